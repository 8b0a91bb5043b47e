#include "dataplane/pipeline/restore.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/status.h"
#include "dataplane/pipeline/block_regrouper.h"
#include "dataplane/pipeline/request_client.h"
#include "dataplane/pipeline/restore_ledger.h"
#include "dataplane/pipeline/restore_plan.h"

namespace sluice {
namespace {

// Why a unit was not written everywhere.
struct Failure {
  std::string node;
  absl::Status status;
  bool permanent = false;
  bool unread = false;  // the archive could not be read: what it holds is not known from reading it
};

// The first replica that failed, and the others after it in the reason.
Failure first_of(const std::vector<WriteReply::Failure>& failures) {
  const WriteReply::Failure& first = failures.front();
  if (failures.size() == 1) return Failure{first.node, first.status};
  std::string reason(message_of(first.status));
  for (size_t i = 1; i < failures.size(); ++i) {
    reason += fmt::format("; {} too: {}", failures[i].node, message_of(failures[i].status));
  }
  return Failure{first.node, absl::Status(first.status.code(), reason)};
}

// Each thread carries one unit at a time from the archive to its last reply, so the number of
// threads is the number of requests in flight, and each needs one buffer (two when it repacks).
class RestoreJob {
 public:
  RestoreJob(Exchange& exchange, ArchiveReader& archive, SlotRouter& router,
             const RestoreOptions& options);
  absl::StatusOr<RestoreResult> run();

 private:
  struct Worker {
    explicit Worker(uint32_t slot_bits, std::string_view prefix) : regrouper(slot_bits, prefix) {}
    BlockRegrouper regrouper;
  };
  // What one try of a unit did.
  struct Try {
    uint64_t records = 0;  // live
    uint64_t deletions = 0;
    uint64_t bytes = 0;
    uint64_t newest_stamp = 0;
    uint64_t kept_newer = 0;
    std::map<std::string, RestoreResult::Node> nodes;
    std::map<uint32_t, SlotDigest> digests;
    std::set<uint32_t> failed_slots;  // of a repacked one: not tried again in this try
    SlotLedger::Unit holders;
    std::optional<Failure> failure;
  };

  void work();
  void try_unit(Worker& worker, RestorePlan::Unit& unit, Try* result);
  void send_plain(BlockBuffer buffer, const BlockLocation& location, const RestorePlan::Unit& unit,
                  Try* result);
  void send_regrouped(Worker& worker, BlockBuffer buffer, bool completed,
                      const RestorePlan::Unit& unit, Try* result);
  // Until every replica has the block.
  std::optional<Failure> send(BlockBuffer& buffer, uint32_t bytes, uint32_t slot, int tries,
                              uint64_t records, uint64_t record_bytes, Try* result);
  // Of reading the archive.
  Failure failure_of(const RestorePlan::Unit& unit, const absl::Status& status) const;
  absl::StatusOr<BlockBuffer> take_buffer();
  void account(RestorePlan::Unit unit, Try result);
  void give_up(const RestorePlan::Unit& unit, const Try& result);
  void count_unit(const Try& result);
  absl::Status count_failures();
  void count_completed_slots();
  bool cancelled_now() const {
    return options_.cancellation != nullptr && options_.cancellation->cancelled();
  }
  bool completed_before(uint32_t slot) const { return options_.completed_slots.contains(slot); }

  Exchange& exchange_;
  ArchiveReader& archive_;
  SlotRouter& router_;
  const RestoreOptions& options_;
  const uint32_t archive_bits_;
  const uint32_t cluster_bits_;
  const bool repack_;
  RestorePlan plan_;
  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<RequestClient> client_;
  std::mutex mutex_;  // what follows, and callbacks
  SlotLedger ledger_;
  RestoreResult result_;
};

RestoreJob::RestoreJob(Exchange& exchange, ArchiveReader& archive, SlotRouter& router,
                       const RestoreOptions& options)
    : exchange_(exchange),
      archive_(archive),
      router_(router),
      options_(options),
      archive_bits_(archive.manifest().identity.slot_bits),
      cluster_bits_(router.slot_bits()),
      repack_(archive_bits_ != cluster_bits_ || !options.prefix.empty()),
      plan_(archive, options, exchange.clock()) {}

absl::StatusOr<RestoreResult> RestoreJob::run() {
  const size_t requests = std::max<size_t>(options_.requests, 1);
  SLUICE_ASSIGN_OR_RETURN(pool_,
                          exchange_.arena().make_pool("restore", requests * (repack_ ? 2 : 1)));
  // Where archive slots are finer or coarser than the cluster's, the low bits they share say where
  // most of a slot goes.
  const uint32_t mask = (uint32_t{1} << std::min(archive_bits_, cluster_bits_)) - 1;
  SLUICE_RETURN_IF_ERROR(plan_.build([&](uint32_t slot) -> absl::StatusOr<std::string> {
    if (!repack_ && completed_before(slot)) return std::string();
    SLUICE_ASSIGN_OR_RETURN(const SlotRoute route, router_.route(slot & mask));
    if (route.replicas.empty()) return not_found("slot {} has no replicas", slot & mask);
    return route.replicas.front().node;
  }));
  RequestClient::Options client;
  client.kind = StreamKind::kWrite;
  client.cluster = options_.cluster;
  client.job = options_.id;
  client.attempt = options_.attempt;
  client_ = std::make_unique<RequestClient>(exchange_, client);
  if (!repack_) count_completed_slots();

  std::vector<std::thread> threads;
  for (size_t i = 0; i < requests; ++i) threads.emplace_back([this] { work(); });
  for (std::thread& thread : threads) thread.join();
  client_.reset();
  while (pool_->free() < pool_->size()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  result_.cancelled = cancelled_now();
  SLUICE_RETURN_IF_ERROR(count_failures());
  return std::move(result_);
}

absl::Status RestoreJob::count_failures() {
  std::vector<RestoreUnit> failed = plan_.failed();
  std::vector<RestoreUnit*> unread;
  for (RestoreUnit& unit : failed) {
    if (unit.records + unit.deletions == 0) unread.push_back(&unit);
  }
  if (!unread.empty()) {
    BlockBuffer buffer = pool_->try_take();
    SLUICE_RETURN_IF_ERROR(count_unread(archive_, unread, buffer));
  }
  const bool counted_by_manifest = !repack_ && options_.only.empty();
  for (RestoreUnit* unit : unread) {
    if (!counted_by_manifest) result_.records += unit->records;
  }
  for (const RestoreUnit& unit : failed) {
    result_.failed_records += unit.records;
    result_.failed_deletions += unit.deletions;
  }
  result_.failed = coalesce(std::move(failed));
  return absl::OkStatus();
}

// Plain restores know from the manifest what is there; where records are picked or regrouped, they
// are counted as they come by, also those of completed slots.
void RestoreJob::count_completed_slots() {
  if (!options_.only.empty()) return;
  for (const PartManifest& part : archive_.manifest().parts) {
    const auto& here = archive_.parts();
    if (std::none_of(here.begin(), here.end(),
                     [&](const auto& open) { return open.node == part.node; })) {
      continue;
    }
    for (const SlotSummary& slot : part.slots) {
      result_.records += slot.digest.records;
      result_.bytes += slot.digest.bytes;
      result_.expected[slot.slot] = slot.digest;
      if (completed_before(slot.slot)) result_.written += slot.digest.records;
    }
  }
  result_.newest_stamp = archive_.manifest().newest_stamp;
}

void RestoreJob::work() {
  Worker worker(cluster_bits_, options_.prefix);
  while (std::optional<RestorePlan::Unit> unit = plan_.take()) {
    Try result;
    try_unit(worker, *unit, &result);
    account(*unit, std::move(result));
  }
}

absl::StatusOr<BlockBuffer> RestoreJob::take_buffer() {
  for (;;) {
    if (BlockBuffer buffer = pool_->take(kCancellationPollMs)) return buffer;
    if (cancelled_now()) return cancelled("the restore is cancelled");
  }
}

Failure RestoreJob::failure_of(const RestorePlan::Unit& unit, const absl::Status& status) const {
  return {fmt::format("archive of {}", archive_.parts()[unit.part].node), status,
          absl::IsDataLoss(status) || absl::IsFailedPrecondition(status), /*unread=*/true};
}

void RestoreJob::try_unit(Worker& worker, RestorePlan::Unit& unit, Try* result) {
  worker.regrouper.reset();
  // The last try goes on after a failure, without sending, so that it is known how many records the
  // unit has. One that is repacked goes on in any case: its other slots may have healthy replicas.
  const bool last = unit.tries + 1 >= options_.tries;
  for (uint32_t i = 0; i < unit.blocks; ++i) {
    if (result->failure.has_value() && (result->failure->permanent || (!last && !repack_))) return;
    const BlockLocation& location = plan_.blocks(unit.part)[unit.first + i];
    const bool completed = completed_before(location.slot);
    if (completed && !repack_) continue;
    absl::StatusOr<BlockBuffer> buffer = take_buffer();
    if (!buffer.ok()) {
      result->failure = Failure{"", buffer.status()};
      return;
    }
    const absl::Status status = archive_.read_block(unit.part, location, *buffer);
    if (!status.ok()) {
      result->failure = failure_of(unit, status);
    } else if (repack_) {
      send_regrouped(worker, *std::move(buffer), completed, unit, result);
    } else {
      send_plain(*std::move(buffer), location, unit, result);
    }
  }
}

void RestoreJob::send_plain(BlockBuffer buffer, const BlockLocation& location,
                            const RestorePlan::Unit& unit, Try* result) {
  uint64_t records = 0;
  uint64_t deletions = 0;
  uint64_t bytes = 0;
  absl::StatusOr<BlockReader> reader = BlockReader::open({buffer.data(), location.bytes});
  absl::Status status = reader.status();
  BlockEntry entry;
  while (status.ok()) {
    absl::StatusOr<bool> more = reader->next(&entry);
    status = more.status();
    if (!status.ok() || !*more) break;
    if (entry.tombstone) ++deletions;
    if (entry.tombstone || !entry.last()) continue;
    ++records;
    bytes += entry.key.size() + entry.value_bytes;
  }
  result->records += records;
  result->deletions += deletions;
  result->bytes += bytes;
  if (!status.ok()) {
    result->failure = failure_of(unit, status);
    return;
  }
  if (result->failure.has_value()) return;
  result->failure = send(buffer, location.bytes, location.slot, unit.tries, records, bytes, result);
}

void RestoreJob::send_regrouped(Worker& worker, BlockBuffer buffer, bool completed,
                                const RestorePlan::Unit& unit, Try* result) {
  // Live records by new slot that no block has gone out with yet; of a run they count with its last
  // block.
  std::map<uint32_t, RestoreResult::Node> unsent;
  BlockRegrouper::Sink sink;
  sink.take = [this] { return take_buffer(); };
  sink.record = [&](uint32_t slot, std::string_view key, const RecordSummary& summary) {
    result->digests[slot].add(key, summary);
    result->newest_stamp = std::max(result->newest_stamp, summary.version.stamp);
    if (summary.tombstone) {
      ++result->deletions;
      return;
    }
    RestoreResult::Node& count = unsent[slot];
    ++count.records;
    count.bytes += key.size() + summary.value_bytes;
    ++result->records;
    result->bytes += key.size() + summary.value_bytes;
  };
  sink.put = [&](BlockBuffer block, uint32_t block_bytes, uint32_t slot) {
    if (completed || result->failed_slots.contains(slot)) return absl::OkStatus();
    const RestoreResult::Node count = std::exchange(unsent[slot], {});
    std::optional<Failure> failure =
        send(block, block_bytes, slot, unit.tries, count.records, count.bytes, result);
    if (failure.has_value()) {
      result->failed_slots.insert(slot);
      if (!result->failure.has_value()) result->failure = std::move(failure);
    }
    return absl::OkStatus();
  };
  const auto header = peek_block_header({buffer.data(), buffer.capacity()});
  absl::Status status = header.status();
  if (status.ok()) {
    absl::StatusOr<BlockReader> reader = BlockReader::open({buffer.data(), header->stored_bytes});
    status = reader.ok() ? worker.regrouper.regroup(*reader, sink) : reader.status();
  }
  if (!status.ok()) result->failure = failure_of(unit, status);
}

std::optional<Failure> RestoreJob::send(BlockBuffer& buffer, uint32_t bytes, uint32_t slot,
                                        int tries, uint64_t records, uint64_t record_bytes,
                                        Try* result) {
  absl::StatusOr<SlotRoute> route = router_.route(slot);
  if (!route.ok() || route->replicas.empty()) {
    return Failure{"", route.ok() ? not_found("slot {} has no replicas", slot) : route.status()};
  }
  Envelope envelope;
  envelope.kind = MessageKind::kWriteRequest;
  envelope.slot = slot;
  envelope.attempt = route->epoch;
  envelope.payload_bytes = bytes;
  Failure last;
  // A later try begins with another replica: the first one may be alive but stuck.
  const size_t replicas = route->replicas.size();
  for (size_t i = 0; i < replicas; ++i) {
    const SlotRoute::Replica& replica =
        route->replicas[(i + static_cast<size_t>(tries)) % replicas];
    envelope.sequence = client_->next_sequence();
    const uint32_t message_bytes = Envelope::seal(envelope, buffer);
    absl::StatusOr<RequestClient::CallPtr> call = client_->begin(
        replica, buffer.share(), message_bytes, envelope.sequence, options_.request_timeout_ms);
    absl::StatusOr<WriteReply> reply = call.ok()
                                           ? client_->finish(*call, options_.request_timeout_ms)
                                           : absl::StatusOr<WriteReply>(call.status());
    if (!reply.ok()) {
      if (last.node.empty()) last = Failure{replica.node, reply.status()};
      // The envelope of a request that is still on its way must not change under it, so a sent one
      // is not sent to another replica in this try.
      if (call.ok()) break;
      continue;
    }
    result->kept_newer += reply->kept_different;
    if (!reply->failures.empty()) {
      last = first_of(reply->failures);
      break;
    }
    if (reply->holders.size() != replicas) {
      last =
          Failure{replica.node, data_loss("its answer names {} of {} replicas that have the block",
                                          reply->holders.size(), replicas)};
      break;
    }
    result->holders.add(route->epoch, reply->holders);
    for (const SlotRoute::Replica& holder : route->replicas) {
      RestoreResult::Node& node = result->nodes[holder.node];
      node.records += records;
      node.bytes += record_bytes;
    }
    return std::nullopt;
  }
  if (last.status.code() == absl::StatusCode::kFailedPrecondition) router_.refresh();
  return last;
}

void RestoreJob::account(RestorePlan::Unit unit, Try result) {
  const bool failed = result.failure.has_value();
  const uint32_t slot = plan_.blocks(unit.part)[unit.first].slot;
  std::unique_lock lock(mutex_);
  const bool retry = failed && !result.failure->permanent && unit.tries + 1 < options_.tries;
  if (!failed || (!retry && !cancelled_now() && !result.failure->unread)) count_unit(result);
  if (!failed) {
    if (!completed_before(slot) || repack_) result_.written += result.records;
    ledger_.add(slot, result.holders, result.kept_newer);
    result_.kept_newer += result.kept_newer;
    for (const auto& [name, node] : result.nodes) {
      result_.nodes[name].records += node.records;
      result_.nodes[name].bytes += node.bytes;
    }
    if (plan_.done(unit).has_value() && options_.only.empty()) {
      const std::optional<RestoredSlot> restored = ledger_.complete(slot);
      if (restored.has_value() && !completed_before(slot) && options_.on_slot_complete) {
        options_.on_slot_complete(*restored);
      }
    }
    if (options_.on_progress) options_.on_progress(result_.written, result_.bytes);
    return;
  }
  if (retry || cancelled_now()) {  // a cancelled unit waits for a next life
    if (unit.tries++ == 0) ++result_.retried;
    plan_.retry(unit);
    return;
  }
  give_up(unit, result);
}

void RestoreJob::give_up(const RestorePlan::Unit& unit, const Try& result) {
  RestoreUnit failed;
  failed.node = result.failure->node;
  failed.reason = message_of(result.failure->status);
  failed.damaged = result.failure->permanent && result.failure->unread;
  if (!result.failure->unread) {
    failed.records = result.records;
    failed.deletions = result.deletions;
  }
  plan_.give_up(unit, std::move(failed));
}

void RestoreJob::count_unit(const Try& result) {
  if (!repack_ && options_.only.empty()) return;  // the manifest has said it
  result_.records += result.records;
  result_.bytes += result.bytes;
  result_.newest_stamp = std::max(result_.newest_stamp, result.newest_stamp);
  for (const auto& [slot, digest] : result.digests) {
    SlotDigest& sum = result_.expected[slot];
    sum.sum += digest.sum;
    sum.records += digest.records;
    sum.tombstones += digest.tombstones;
    sum.bytes += digest.bytes;
  }
}

}  // namespace

absl::StatusOr<RestoreResult> restore(Exchange& exchange, ArchiveReader& archive,
                                      SlotRouter& router, const RestoreOptions& options) {
  if (options.tries < 1 || options.requests_per_node < 1) {
    return invalid_argument("restore: at least one try and one request for each node");
  }
  RestoreJob job(exchange, archive, router, options);
  return job.run();
}

}  // namespace sluice
