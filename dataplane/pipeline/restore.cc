#include "dataplane/pipeline/restore.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "dataplane/pipeline/lot_sender.h"
#include "dataplane/pipeline/restore_context.h"
#include "dataplane/pipeline/unit_sender.h"

namespace sluice {
namespace {

constexpr size_t kWorkers = 6;

// Threads read units of lots and send them without waiting; replies end them. Other units are
// carried by one thread each from the archive to their last reply.
class ArchiveSender {
 public:
  ArchiveSender(Exchange& exchange, ArchiveReader& archive, SlotRouter& router,
                const RestoreOptions& options)
      : context_(exchange, archive, router, options), lots_(context_) {}
  absl::StatusOr<RestoreResult> run();

 private:
  absl::Status plan();
  void connect();
  void work();

  RestoreContext context_;
  LotSender lots_;
};

absl::StatusOr<RestoreResult> ArchiveSender::run() {
  const RestoreOptions& options = context_.options;
  const bool repack = context_.repack;
  const size_t requests = std::max<size_t>(options.requests, 1);
  SLUICE_ASSIGN_OR_RETURN(
      context_.pool, context_.exchange.arena().make_pool("restore", requests * (repack ? 2 : 1)));
  SLUICE_RETURN_IF_ERROR(plan());
  connect();
  context_.tally.count_by_manifest();
  if (options.on_progress) {
    options.on_progress(context_.plan.bytes_before(), context_.plan.total_bytes());
  }

  std::vector<std::thread> threads;
  const size_t workers = repack ? requests : std::min(requests, kWorkers);
  for (size_t i = 0; i < workers; ++i) threads.emplace_back([this] { work(); });
  for (std::thread& thread : threads) thread.join();
  context_.client.reset();
  context_.pool->wait_until_whole();
  return context_.tally.finish(context_.pool->try_take());
}

absl::Status ArchiveSender::plan() {
  // Where archive slots are finer or coarser than the cluster's, the low bits they share say where
  // most of a slot goes.
  const uint32_t archive_bits = context_.archive.manifest().identity.slot_bits;
  const uint32_t mask = (uint32_t{1} << std::min(archive_bits, context_.router.slot_bits())) - 1;
  const auto route_of = [&](uint32_t slot) -> absl::StatusOr<SlotRoute> {
    SLUICE_ASSIGN_OR_RETURN(SlotRoute route, context_.local_route(slot & mask));
    for (const auto& replica : route.replicas) context_.addresses[replica.node] = replica.address;
    return route;
  };
  return context_.plan.build(route_of, /*lots=*/!context_.repack);
}

void ArchiveSender::connect() {
  RequestClient::Options client;
  client.kind = StreamKind::kWrite;
  client.cluster = context_.options.cluster;
  client.job = context_.options.id;
  client.attempt = context_.options.attempt;
  context_.client = std::make_unique<RequestClient>(context_.exchange, client);
}

void ArchiveSender::work() {
  UnitSender single(context_);
  while (std::optional<RestorePlan::Work> work = context_.plan.take()) {
    if (context_.stale_route.exchange(false)) context_.router.refresh();
    if (work->units.empty()) {
      lots_.end(work->ended_lot);
    } else if (work->units.front().lot != RestorePlan::kNoLot) {
      lots_.send(work->units);
    } else {
      single.send(work->units.front());
    }
  }
}

}  // namespace

absl::StatusOr<RestoreResult> restore(Exchange& exchange, ArchiveReader& archive,
                                      SlotRouter& router, const RestoreOptions& options) {
  if (options.tries < 1 || options.requests_per_node < 1) {
    return invalid_argument("restore: at least one try and one request for each node");
  }
  ArchiveSender sender(exchange, archive, router, options);
  return sender.run();
}

}  // namespace sluice
