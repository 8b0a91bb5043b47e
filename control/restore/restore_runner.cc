#include "control/restore/restore_runner.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "base/defect.h"
#include "base/guard.h"
#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/peers/directory_router.h"
#include "control/peers/rpc.h"
#include "control/peers/stage_report.h"
#include "control/restore/restore_check.h"
#include "control/restore/restore_store.h"
#include "dataplane/archive/reader.h"
#include "dataplane/block/block.h"

namespace sluice {

namespace {

constexpr int64_t kObserveMs = 5'000;
constexpr int64_t kFlushNs = 500 * kMs;

// Ends a run when another attempt begins, or its own is over.
class Superseded {
 public:
  static absl::StatusOr<std::unique_ptr<Superseded>> watch(ClusterBlock& block,
                                                           const RestoreFence& fence,
                                                           Cancellation& cancellation) {
    auto watching = std::make_unique<Superseded>();
    Superseded* self = watching.get();
    const std::string key = restore_head_key(fence.id);
    SLUICE_ASSIGN_OR_RETURN(
        watching->handle_,
        block.watch(key, fence.head, [self, key, &cancellation](const WatchEvent& event) {
          // After a resync the fence of the next commit tells.
          if (event.kind == WatchEvent::Kind::kResync || event.key != key) return;
          self->seen_ = true;
          cancellation.cancel();
        }));
    return watching;
  }
  bool seen() const { return seen_; }

 private:
  std::atomic<bool> seen_{false};
  WatchHandle handle_;
};

// Whether what made an archive slot durable is what its replicas are now: the same stores of the
// nodes that the table names today.
bool is_durable(const DurableSlots& progress, const DurableSlots::Slot& slot, uint32_t archive_slot,
                uint32_t archive_bits, const Directory::Snapshot& now) {
  if (now.table == nullptr) return false;
  if (defect(Defect::kProgressBySlot)) return true;
  const uint32_t bits = now.table->slot_bits();
  const auto has = [&](const std::string& node) {
    const Member* member = now.find(node);
    return member != nullptr &&
           std::any_of(slot.holders.begin(), slot.holders.end(), [&](uint32_t holder) {
             return progress.store(holder) == WriteReply::Holder{node, member->info.store_id};
           });
  };
  // With finer slots, the holders of all of an archive slot's are put together: with another table
  // it is not known which had which.
  if (bits > archive_bits && slot.epoch != now.epoch()) return false;
  const uint32_t step = uint32_t{1} << std::min(archive_bits, bits);
  for (uint32_t target = archive_slot & (step - 1); target < now.table->slots(); target += step) {
    for (const uint16_t member : now.table->replicas_of(target)) {
      if (!has(now.table->members()[member].name)) return false;
    }
  }
  return true;
}

// Stores which slots are done, now and then and at the end.
class ProgressKeeper {
 public:
  ProgressKeeper(const RestoreRun& run, const RestoreFence& fence, ClusterBlock& block)
      : run_(run), fence_(fence), block_(block) {}

  // Leaves out what is no longer durable.
  absl::Status load(const ArchiveReader& archive) {
    const auto now = run_.peers->directory().snapshot();
    const MutexLock lock(mutex_);
    for (const auto& part : archive.parts()) {
      Part& mine = parts_[part.node];
      for (const BlockLocation& block : part.blocks) part_of_[block.slot] = part.node;
      SLUICE_RETURN_IF_ERROR(with_patience(run_.peers->clock(), [&]() -> absl::Status {
        SLUICE_ASSIGN_OR_RETURN(mine.progress, load_progress(block_, fence_, part.node));
        return absl::OkStatus();
      }));
      std::vector<uint32_t> gone;
      for (const auto& [number, slot] : mine.progress.slots()) {
        if (!is_durable(mine.progress, slot, number, archive.manifest().identity.slot_bits, *now)) {
          gone.push_back(number);
        }
      }
      for (const uint32_t slot : gone) mine.progress.remove(slot);
      if (!gone.empty()) {
        spdlog::info(
            "restore {}: {} slots of part {} are restored again: their replicas have other "
            "stores now",
            run_.id, gone.size(), part.node);
      }
    }
    return absl::OkStatus();
  }
  std::set<uint32_t> done() const {
    std::set<uint32_t> slots;
    const MutexLock lock(mutex_);
    for (const auto& [node, part] : parts_) {
      for (const auto& [number, slot] : part.progress.slots()) slots.insert(number);
    }
    return slots;
  }
  KeptRecords kept() const {
    KeptRecords sum;
    const MutexLock lock(mutex_);
    for (const auto& [node, part] : parts_) {
      for (const auto& [number, slot] : part.progress.slots()) sum.add(slot.kept);
    }
    return sum;
  }
  void start() {
    thread_ = guarded_thread("storing progress", [this] { keep(); });
  }
  absl::Status finish() {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
    return with_patience(run_.peers->clock(), [this] { return flush(); });
  }
  void complete(const RestoredSlot& slot) {
    const MutexLock lock(mutex_);
    Part& part = parts_[part_of_[slot.slot]];
    part.progress.add(slot);
    part.dirty.insert(progress_chunk(slot.slot));
  }
  void passed(uint64_t done, uint64_t total) {
    const MutexLock lock(mutex_);
    done_ = done;
    // The total goes out at once: a restore may be short.
    if (std::exchange(total_, total) == total) return;
    announced_ = false;
    wake_.notify_all();
  }

 private:
  struct Part {
    DurableSlots progress;
    std::set<uint32_t> dirty;  // chunks
  };

  void keep() {
    MutexLock lock(mutex_);
    for (;;) {
      wake_.wait_for(lock, std::chrono::nanoseconds(kFlushNs),
                     [this]() SLUICE_REQUIRES(mutex_) { return stopping_ || !announced_; });
      if (stopping_) return;
      announced_ = true;
      const uint64_t done = done_;
      const uint64_t total = total_;
      lock.unlock();
      if (run_.progress) run_.progress(done, total);
      const absl::Status status = guarded("storing progress", [this] { return flush(); });
      if (!status.ok()) {
        spdlog::warn("restore {}: progress: {}", run_.id, message_of(status));
        // Somebody else drives this restore now.
        if (absl::IsAborted(status)) run_.cancellation->cancel();
      }
      lock.lock();
    }
  }
  struct Due {
    std::string part;
    uint32_t chunk = 0;
    std::string document;
  };
  std::optional<Due> take_due() {
    const MutexLock lock(mutex_);
    for (auto& [node, part] : parts_) {
      if (part.dirty.empty()) continue;
      const uint32_t chunk = *part.dirty.begin();
      part.dirty.erase(part.dirty.begin());
      return Due{node, chunk, encode_progress(part.progress, chunk)};
    }
    return std::nullopt;
  }
  absl::Status flush() {
    while (std::optional<Due> due = take_due()) {
      const absl::Status status =
          store_progress(block_, fence_, due->part, due->chunk, std::move(due->document));
      if (status.ok()) continue;
      const MutexLock lock(mutex_);
      parts_[due->part].dirty.insert(due->chunk);
      return status;
    }
    return absl::OkStatus();
  }

  const RestoreRun& run_;
  const RestoreFence& fence_;
  ClusterBlock& block_;
  std::map<uint32_t, std::string> part_of_;
  mutable Mutex mutex_;
  Condition wake_;
  std::map<std::string, Part> parts_ SLUICE_GUARDED_BY(mutex_);
  uint64_t done_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t total_ SLUICE_GUARDED_BY(mutex_) = 0;
  bool announced_ SLUICE_GUARDED_BY(mutex_) = true;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// The clocks of the whole cluster pass the archive's newest stamp, so that what is written after
// the restore is newer than it.
absl::Status move_clocks(Peers& peers, uint64_t newest) {
  const auto names = peers.directory().snapshot()->live_names();
  Mutex mutex;
  absl::Status first;
  parallel_for(names.size(), [&](size_t i) {
    const auto peer = peers.find(names[i]);
    absl::Status status = peer.status();
    if (peer.ok()) {
      grpc::ClientContext call;
      set_timeout(call, kObserveMs);
      v1::ObserveRequest request;
      request.set_stamp(newest);
      v1::Empty reply;
      const grpc::Status answer = (*peer)->peer().ObserveStamp(&call, request, &reply);
      (*peer)->note(answer);
      status = from_peer(answer, names[i]);
    }
    // A node that went away, or is too slow now, observes when it is written to.
    if (status.ok() || is_away(status)) return;
    const MutexLock lock(mutex);
    first = status;
  });
  return first;
}

bool is_first_fragment(const BlockEntry& entry) { return entry.fragment_offset == 0; }

// Live records whose keys begin with the prefix.
absl::Status count_records(const RestoreRun& run, ArchiveReader& archive,
                           v1::RestorePartResult* result) {
  if (run.mapping.prefix.empty()) {
    for (const PartManifest& part : archive.manifest().parts) {
      for (const auto& here : archive.parts()) {
        if (here.node != part.node) continue;
        for (const SlotSummary& slot : part.slots) {
          result->set_records(result->records() + slot.digest.records);
          result->set_bytes(result->bytes() + slot.digest.bytes);
        }
      }
    }
    return absl::OkStatus();
  }
  SLUICE_ASSIGN_OR_RETURN(const auto arena, Arena::create({.bytes = kBufferBytes}));
  SLUICE_ASSIGN_OR_RETURN(const auto pool, arena->make_pool("counting", 1));
  BlockBuffer buffer = pool->try_take();
  const Clock& clock = run.peers->clock();
  int64_t reported_ns = clock.monotonic_ns();
  for (size_t part = 0; part < archive.parts().size(); ++part) {
    for (const BlockLocation& location : archive.parts()[part].blocks) {
      if (run.cancellation->cancelled()) return cancelled("cancelled");
      // Whoever waits for it is found to be gone when it is told.
      if (const int64_t now = clock.monotonic_ns(); now - reported_ns >= kFlushNs) {
        reported_ns = now;
        if (run.progress) run.progress(0, 0);
      }
      SLUICE_RETURN_IF_ERROR(archive.read_block(part, location, buffer.span()));
      SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(buffer.span()));
      BlockEntry entry;
      while (true) {
        SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
        if (!more) break;
        if (entry.tombstone || !is_first_fragment(entry) || !run.mapping.takes(entry.key)) continue;
        result->set_records(result->records() + 1);
        result->set_bytes(result->bytes() + entry.key.size() + entry.value_bytes);
      }
    }
  }
  return absl::OkStatus();
}

void fill_result(const RestoreResult& from, v1::RestorePartResult* to) {
  to->set_records(from.records);
  to->set_bytes(from.bytes);
  to->set_written(from.written);
  to->set_kept_newer(from.kept.newer);
  to->set_kept_deleted(from.kept.deleted);
  to->set_replaced(from.kept.replaced);
  to->set_retried(from.retried);
  to->set_failed_records(from.failed_records);
  to->set_failed_deletions(from.failed_deletions);
  to->set_failed_units(from.failed.size());
  to->set_cancelled(from.cancelled);
  for (const auto& [name, node] : from.nodes) {
    auto* out = to->add_nodes();
    out->set_name(name);
    out->set_records(node.records);
    out->set_bytes(node.bytes);
  }
  for (const auto& [slot, digest] : from.expected) {
    auto* out = to->add_expected();
    out->set_slot(slot);
    ByteWriter writer(out->mutable_digest());
    digest.encode(writer);
  }
}

absl::Status store_failures(const RestoreRun& run, const RestoreFence& fence,
                            const ArchiveReader& archive, const std::vector<RestoreUnit>& failed,
                            v1::RestorePartResult* result) {
  ClusterBlock& block = run.peers->directory().block();
  for (const auto& part : archive.parts()) {
    std::vector<RestoreUnit> units;
    std::copy_if(failed.begin(), failed.end(), std::back_inserter(units),
                 [&](const RestoreUnit& unit) { return unit.part == part.node; });
    SLUICE_RETURN_IF_ERROR(
        store_failed_units(block, run.peers->clock(), fence, part.node, run.list, units));
    // What is listed, by part: the head names it.
    if (!units.empty()) result->add_listed(part.node);
  }
  return absl::OkStatus();
}

// What the manifest says that slots hold, where the cluster's slots are the archive's.
void add_expected(const ArchiveReader& archive, const RestoreRun& run,
                  v1::RestorePartResult* result) {
  if (run.mapping.repacks() ||
      archive.manifest().identity.slot_bits != run.peers->directory().cluster().slot_bits) {
    return;
  }
  for (const PartManifest& part : archive.manifest().parts) {
    const auto& here = archive.parts();
    if (std::none_of(here.begin(), here.end(),
                     [&](const auto& open) { return open.node == part.node; })) {
      continue;
    }
    for (const SlotSummary& slot : part.slots) {
      auto* out = result->add_expected();
      out->set_slot(slot.slot);
      ByteWriter writer(out->mutable_digest());
      slot.digest.encode(writer);
    }
  }
}

RestoreOptions options_of(const RestoreRun& run) {
  const auto snapshot = run.peers->directory().snapshot();
  RestoreOptions options;
  options.id = run.id;
  options.attempt = run.attempt;
  options.cluster = run.peers->directory().cluster().uuid;
  options.mapping = run.mapping;
  options.together = run.together;
  options.requests = run.requests;
  options.cancellation = run.cancellation;
  // Where a replica is known to be away, its requests need not be tried for long: they stay on the
  // retry list.
  if (snapshot->live_names().size() < snapshot->members.size()) options.tries = 2;
  return options;
}

// Of no slots, and without counts.
RestoreCheck check_of(const RestoreRun& run, ArchiveReader& archive) {
  RestoreCheck check;
  check.archive = &archive;
  check.peers = run.peers;
  check.mapping = run.mapping;
  check.cancellation = run.cancellation;
  check.progress = [&run] {
    if (run.progress) run.progress(0, 0);
  };
  return check;
}

absl::StatusOr<v1::RestorePartResult> check_part(const RestoreRun& run, ArchiveReader& archive) {
  RestoreCheck check = check_of(run, archive);
  check.slots = run.check_slots;
  SLUICE_ASSIGN_OR_RETURN(const RestoreCheckResult result, check_restored(check));
  v1::RestorePartResult answer;
  for (const auto& [node, slots] : result.lacking) {
    auto* out = answer.add_lacking();
    out->set_node(node);
    for (const uint32_t slot : slots) out->add_slots(slot);
  }
  for (const std::string& node : result.unreachable) answer.add_unreachable(node);
  return answer;
}

// What a restore would meet in the cluster, for a dry run.
absl::Status foresee(const RestoreRun& run, ArchiveReader& archive, v1::RestorePartResult* answer) {
  RestoreCheck check = check_of(run, archive);
  check.counts = true;
  SLUICE_ASSIGN_OR_RETURN(const RestoreCheckResult result, check_restored(check));
  answer->set_kept_newer(result.newer + result.deleted);
  answer->set_kept_deleted(result.deleted);
  answer->set_live_here(result.live);
  return absl::OkStatus();
}

// The part's retry list of earlier attempts.
absl::StatusOr<std::vector<RestoreUnit>> load_listed(ClusterBlock& block, const RestoreRun& run,
                                                     const ArchiveReader& archive) {
  std::vector<RestoreUnit> listed;
  SLUICE_RETURN_IF_ERROR(with_patience(run.peers->clock(), [&]() -> absl::Status {
    listed.clear();
    SLUICE_ASSIGN_OR_RETURN(const StoredRestore stored, load_restore(block, run.id));
    for (const auto& part : archive.parts()) {
      SLUICE_ASSIGN_OR_RETURN(auto units, load_failed_units(block, stored.head, part.node));
      std::move(units.begin(), units.end(), std::back_inserter(listed));
    }
    return absl::OkStatus();
  }));
  return listed;
}

absl::StatusOr<v1::RestorePartResult> send_part(const RestoreRun& run, const RestoreFence& fence,
                                                ArchiveReader& archive) {
  Directory& directory = run.peers->directory();
  ClusterBlock& block = directory.block();
  v1::RestorePartResult answer;
  // Whose stores count, as the cluster has it now.
  SLUICE_RETURN_IF_ERROR(with_patience(run.peers->clock(), [&] { return directory.refresh(); }));
  SLUICE_RETURN_IF_ERROR(move_clocks(*run.peers, archive.manifest().newest_stamp));
  ProgressKeeper keeper(run, fence, block);
  SLUICE_RETURN_IF_ERROR(keeper.load(archive));
  RestoreOptions options = options_of(run);
  if (run.retry) {
    SLUICE_ASSIGN_OR_RETURN(options.only, load_listed(block, run, archive));
    if (options.only.empty()) {
      add_expected(archive, run, &answer);
      return answer;
    }
  } else {
    options.completed_slots = keeper.done();
    // Not in a retry: of a slot's other units it knows nothing. Nor where keys get other names: the
    // replicas of their slots are not the archive slot's.
    if (!run.mapping.renames) {
      options.on_slot_complete = [&](const RestoredSlot& slot) { keeper.complete(slot); };
    }
  }
  const KeptRecords kept = run.retry ? KeptRecords() : keeper.kept();
  options.on_progress = [&](uint64_t done, uint64_t total) { keeper.passed(done, total); };
  DirectoryRouter router(directory);
  keeper.start();
  Stage read(run.peers->clock());
  options.read = &read;
  auto result = restore(*run.exchange, archive, router, options);
  SLUICE_RETURN_IF_ERROR(keeper.finish());
  SLUICE_RETURN_IF_ERROR(result.status());
  result->kept.add(kept);
  // A retry that was cancelled leaves the list as it was: nothing on it is lost.
  if (!(run.retry && result->cancelled) || defect(Defect::kCancelledRetryLosesList)) {
    SLUICE_RETURN_IF_ERROR(store_failures(run, fence, archive, result->failed, &answer));
  }
  // A retry has seen only some records of the archive.
  if (run.retry) result->expected.clear();
  fill_result(*result, &answer);
  put({report_of("", DataStage::kRead, read.times())}, answer.mutable_stages());
  if (run.retry) add_expected(archive, run, &answer);
  return answer;
}

}  // namespace

absl::StatusOr<v1::RestorePartResult> run_restore(const RestoreRun& run) {
  SLUICE_ASSIGN_OR_RETURN(const auto archive, ArchiveReader::open(run.folders, &run.expected));
  if (run.dry_run) {
    v1::RestorePartResult answer;
    SLUICE_RETURN_IF_ERROR(count_records(run, *archive, &answer));
    SLUICE_RETURN_IF_ERROR(foresee(run, *archive, &answer));
    return answer;
  }
  ClusterBlock& block = run.peers->directory().block();
  SLUICE_ASSIGN_OR_RETURN(const RestoreFence fence,
                          find_fence(block, run.peers->clock(), run.id, run.attempt));
  SLUICE_ASSIGN_OR_RETURN(const auto superseded,
                          Superseded::watch(block, fence, *run.cancellation));
  auto answer = run.check ? check_part(run, *archive) : send_part(run, fence, *archive);
  if (answer.ok()) answer->set_slot_bits(archive->manifest().identity.slot_bits);
  if (superseded->seen()) {
    return aborted("restore {}: attempt {} was superseded", run.id, run.attempt);
  }
  return answer;
}

std::string slot_bitmap(const std::set<uint32_t>& slots) {
  std::string bitmap;
  if (!slots.empty()) bitmap.resize(*slots.rbegin() / 8 + 1);
  for (const uint32_t slot : slots) bitmap[slot / 8] |= static_cast<char>(1 << (slot % 8));
  return bitmap;
}

std::set<uint32_t> slots_of_bitmap(std::string_view bitmap) {
  std::set<uint32_t> slots;
  const size_t bytes = std::min(bitmap.size(), (size_t{1} << kMaxSlotBits) / 8);
  for (uint32_t i = 0; i < bytes * 8; ++i) {
    if ((bitmap[i / 8] >> (i % 8) & 1) != 0) slots.insert(i);
  }
  return slots;
}

namespace {

// Reads the keys of one unit's blocks.
absl::Status read_keys(
    ArchiveReader& archive,
    const std::map<std::pair<uint32_t, uint32_t>, const BlockLocation*>& locations,
    const RestoreUnit& unit, BlockBuffer& buffer, absl::Status* visited,
    const std::function<absl::Status(std::string_view key, bool deletion)>& visit) {
  for (uint32_t block = 0; block < unit.blocks; ++block) {
    const auto found = locations.find({unit.slot, unit.first_sequence + block});
    if (found == locations.end()) {
      return not_found("the archive has no block {} of slot {}", unit.first_sequence + block,
                       unit.slot);
    }
    SLUICE_RETURN_IF_ERROR(archive.read_block(0, *found->second, buffer.span()));
    SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(buffer.span()));
    BlockEntry entry;
    while (true) {
      SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
      if (!more) break;
      if (!is_first_fragment(entry)) continue;
      *visited = visit(entry.key, entry.tombstone);
      if (!visited->ok()) return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status read_unit_keys(const std::string& folder, const ArchivePartId& expected,
                            const std::vector<RestoreUnit>& units, const UnitKeyVisitor& visitor) {
  SLUICE_ASSIGN_OR_RETURN(const auto archive, ArchiveReader::open({folder}, &expected));
  SLUICE_ASSIGN_OR_RETURN(const auto arena, Arena::create({.bytes = kBufferBytes}));
  SLUICE_ASSIGN_OR_RETURN(const auto pool, arena->make_pool("reading keys", 1));
  BlockBuffer buffer = pool->try_take();
  std::map<std::pair<uint32_t, uint32_t>, const BlockLocation*> locations;
  for (const BlockLocation& location : archive->parts().at(0).blocks) {
    locations[{location.slot, location.sequence}] = &location;
  }
  for (size_t i = 0; i < units.size(); ++i) {
    absl::Status visited;
    const absl::Status read = read_keys(
        *archive, locations, units[i], buffer, &visited,
        [&](std::string_view key, bool deletion) { return visitor.key(i, key, deletion); });
    if (visited.ok() && !read.ok()) visited = visitor.problem(i, read);
    SLUICE_RETURN_IF_ERROR(visited);
  }
  return absl::OkStatus();
}

}  // namespace sluice
