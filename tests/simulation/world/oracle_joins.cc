#include "tests/simulation/world/oracle_joins.h"

#include <fmt/format.h>

#include <deque>

#include "control/membership/documents.h"
#include "control/proto/peer.pb.h"
#include "control/proto/sluice.pb.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

// An answer has arrived by then where nothing delays it.
constexpr int64_t kArrivedNs = 10'000'000;

bool needs_join(const google::protobuf::Message& request) {
  return dynamic_cast<const v1::WriteRequest*>(&request) != nullptr ||
         dynamic_cast<const v1::ApplyRequest*>(&request) != nullptr ||
         dynamic_cast<const v1::ReadRequest*>(&request) != nullptr ||
         dynamic_cast<const v1::ArmRequest*>(&request) != nullptr;
}

}  // namespace

JoinOracle::JoinOracle(World& world) : world_(world) {
  for (Host& host : world_.all_hosts()) joined_.insert(host.process());
}

void JoinOracle::answered(const DirectMessage& message) {
  if (message.status == nullptr || !message.status->ok()) return;
  const Process& sender = Process::current();
  if (needs_join(*message.request) && !joined_.contains(&sender)) {
    fail(fmt::format("I11: {} has answered {} before it joins", message.from, message.method));
  }
  const auto* const reply = dynamic_cast<const v1::ApplyReply*>(message.reply);
  if (reply == nullptr) return;
  for (Host& host : world_.all_hosts()) {
    if (host.process() == nullptr || host.name() != host_at(message.to)) continue;
    Heard& heard = heard_[{host.process(), host_at(message.from)}];
    if (heard.token != reply->token()) heard = {reply->token()};
    if (heard.change >= reply->sequence()) continue;
    heard.change = reply->sequence();
    heard.at_ns = now_ns();
  }
}

void JoinOracle::about_to_commit(const std::vector<ClusterOp>& ops) {
  for (const ClusterOp& op : ops) {
    if (op.kind != ClusterOp::Kind::kPut) continue;
    if (op.key.starts_with(kLivePrefix)) joined_.insert(&Process::current());
    if (!op.key.starts_with(kStoresPrefix)) continue;
    const auto store = decode_store_info(op.key, op.value);
    if (!store.ok()) continue;
    for (Host& host : world_.all_hosts()) {
      if (!host.is_running(Process::current())) continue;
      joins(host, store->token, store->sequence);
    }
    for (Host& copy : world_.copies()) {
      if (on_copy_ && copy.is_running(Process::current())) on_copy_(copy);
    }
  }
}

void JoinOracle::joins(const Host& host, std::string_view token, uint64_t change) {
  std::string& before = tokens_[host.node()];
  if (before == token) return;
  if (!host.accepts_data_loss() && is_well_) {
    for (Host& peer : world_.all_hosts()) {
      const auto heard = heard_.find({peer.process(), host.node()});
      if (!peer.serving() || heard == heard_.end() || heard->second.token != before) continue;
      if (heard->second.change <= change || heard->second.at_ns + kArrivedNs > now_ns()) continue;
      if (!is_well_(peer) || !is_well_(host)) continue;
      fail(fmt::format("I11: {} joins with change {}, though {} had an answer about change {}",
                       host.name(), change, peer.name(), heard->second.change));
    }
  }
  before = token;
}

}  // namespace sluice::simulation
