#include "control/peers/client_exchange.h"

#include "base/status.h"

namespace sluice {
namespace {

// What a client must speak so that every live node understands it.
absl::StatusOr<std::string> common_driver(const Directory::Snapshot& snapshot) {
  const Member* first = nullptr;
  for (const Member& member : snapshot.members) {
    if (!member.live) continue;
    if (first == nullptr) first = &member;
    if (member.info.driver != first->info.driver) {
      return failed_precondition("{} moves blocks by {}, {} by {}: give all nodes the same driver",
                                 first->info.name, first->info.driver, member.info.name,
                                 member.info.driver);
    }
  }
  if (first == nullptr) return unavailable("no node of the cluster is live");
  return first->info.driver;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClientExchange>> ClientExchange::open(ClusterConnection& cluster,
                                                                     const std::string& node,
                                                                     size_t arena_bytes) {
  const auto snapshot = cluster.directory().snapshot();
  auto client = std::make_unique<ClientExchange>();
  SLUICE_ASSIGN_OR_RETURN(const std::string driver, common_driver(*snapshot));
  const TransportFactory& given = cluster.options().transport;
  SLUICE_ASSIGN_OR_RETURN(client->transport_, given ? given(driver) : make_transport(driver));
  SLUICE_ASSIGN_OR_RETURN(
      client->arena_,
      Arena::create({.bytes = arena_bytes, .pages = client->transport_->limits().arena_pages}));
  Exchange::Options options;
  options.arena = client->arena_.get();
  options.transport = client->transport_.get();
  options.clock = &cluster.clock();
  options.node = node;
  options.own_buffers = 2;
  options.control_buffers = 8;
  options.receive_blocks = kReceiveBlocks;
  SLUICE_ASSIGN_OR_RETURN(client->exchange_, Exchange::open(options));
  const size_t streams = stream_buffers(snapshot->members.size());
  if (client->arena_->buffers() < streams + kLeastSpare) {
    return resource_exhausted("an arena of {} MiB is too small for {} nodes: give at least {} MiB",
                              arena_bytes >> 20, snapshot->members.size(), streams + 8);
  }
  client->spare_buffers_ = client->arena_->buffers() - streams;
  return client;
}

}  // namespace sluice
