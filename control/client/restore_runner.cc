#include "control/client/restore_runner.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "base/status.h"
#include "control/client/directory_router.h"
#include "control/client/parallel.h"
#include "control/client/restore_store.h"
#include "control/client/rpc.h"
#include "dataplane/archive/reader.h"
#include "dataplane/block/block.h"

namespace sluice {

namespace {

constexpr int64_t kCallMs = 5'000;
constexpr auto kFlushInterval = std::chrono::milliseconds(500);

// Stores which slots are done, now and then and at the end.
class DoneSlots {
 public:
  DoneSlots(const RestoreRun& run, const RestoreFence& fence, ClusterBlock& block)
      : run_(run), fence_(fence), block_(block) {}

  absl::Status load(const ArchiveReader& archive) {
    for (const auto& part : archive.parts()) {
      Part& mine = parts_[part.node];
      if (!run_.dry_run) {
        SLUICE_ASSIGN_OR_RETURN(mine.done, load_done_slots(block_, run_.id, part.node));
      }
      for (const BlockLocation& block : part.blocks) part_of_[block.slot] = part.node;
    }
    return absl::OkStatus();
  }
  std::set<uint32_t> all() const {
    std::set<uint32_t> slots;
    for (const auto& [node, part] : parts_) slots.insert(part.done.begin(), part.done.end());
    return slots;
  }
  void start() {
    thread_ = std::thread([this] { keep(); });
  }
  absl::Status finish() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
    return flush();
  }
  void complete(uint32_t slot) {
    const std::lock_guard lock(mutex_);
    Part& part = parts_[part_of_[slot]];
    part.done.insert(slot);
    part.dirty = true;
  }
  void written(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    bytes_ = bytes;
  }

 private:
  struct Part {
    std::set<uint32_t> done;
    bool dirty = false;
  };

  void keep() {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, kFlushInterval, [this] { return stopping_; })) {
      const uint64_t bytes = bytes_;
      lock.unlock();
      if (run_.progress) run_.progress(bytes);
      if (const absl::Status status = flush(); !status.ok()) {
        spdlog::warn("restore {}: progress: {}", run_.id, message_of(status));
      }
      lock.lock();
    }
  }
  absl::Status flush() {
    std::map<std::string, std::set<uint32_t>> dirty;
    {
      const std::lock_guard lock(mutex_);
      for (auto& [node, part] : parts_) {
        if (std::exchange(part.dirty, false)) dirty[node] = part.done;
      }
    }
    absl::Status first;
    for (const auto& [node, slots] : dirty) {
      const absl::Status status = store_done_slots(block_, fence_, node, slots);
      if (status.ok()) continue;
      first = status;
      // Somebody else drives this restore now.
      if (absl::IsAborted(status) && run_.cancellation != nullptr) run_.cancellation->cancel();
      const std::lock_guard lock(mutex_);
      parts_[node].dirty = true;
    }
    return first;
  }

  const RestoreRun& run_;
  const RestoreFence& fence_;
  ClusterBlock& block_;
  std::map<uint32_t, std::string> part_of_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, Part> parts_;
  uint64_t bytes_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

// The clocks of the whole cluster pass the archive's newest stamp, so that what is written after
// the restore is newer than it.
absl::Status move_clocks(Peers& peers, uint64_t newest) {
  const auto names = peers.directory().snapshot()->live_names();
  std::mutex mutex;
  absl::Status first;
  parallel_for(names.size(), [&](size_t i) {
    const auto peer = peers.find(names[i]);
    absl::Status status = peer.status();
    if (peer.ok()) {
      grpc::ClientContext call;
      set_timeout(call, kCallMs);
      v1::ObserveRequest request;
      request.set_stamp(newest);
      v1::Empty reply;
      const grpc::Status answer = (*peer)->peer().ObserveStamp(&call, request, &reply);
      (*peer)->note(answer);
      status = from_peer(answer, names[i]);
    }
    // A node that went away, or is too slow now, observes when it is written to.
    if (status.ok() || is_away(status)) return;
    const std::lock_guard lock(mutex);
    first = status;
  });
  return first;
}

bool is_first_fragment(const BlockEntry& entry) { return entry.fragment_offset == 0; }

// Live records whose keys begin with the prefix.
absl::Status count_records(const RestoreRun& run, ArchiveReader& archive,
                           v1::RestorePartResult* result) {
  if (run.prefix.empty()) {
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
  auto reported = std::chrono::steady_clock::now();
  for (size_t part = 0; part < archive.parts().size(); ++part) {
    for (const BlockLocation& location : archive.parts()[part].blocks) {
      if (run.cancellation != nullptr && run.cancellation->cancelled())
        return cancelled("cancelled");
      // Whoever waits for it is found to be gone when it is told.
      if (const auto now = std::chrono::steady_clock::now(); now - reported >= kFlushInterval) {
        reported = now;
        if (run.progress) run.progress(result->bytes());
      }
      SLUICE_RETURN_IF_ERROR(archive.read_block(part, location, buffer));
      SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(buffer.span()));
      BlockEntry entry;
      while (true) {
        SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
        if (!more) break;
        if (entry.tombstone || !is_first_fragment(entry) || !entry.key.starts_with(run.prefix))
          continue;
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
  to->set_kept_newer(from.kept_newer);
  to->set_retried(from.retried);
  to->set_failed_records(from.failed_records);
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

absl::Status store_failures(const RestoreFence& fence, ClusterBlock& block,
                            const ArchiveReader& archive, const std::vector<RestoreUnit>& failed) {
  for (const auto& part : archive.parts()) {
    std::vector<RestoreUnit> units;
    std::copy_if(failed.begin(), failed.end(), std::back_inserter(units),
                 [&](const RestoreUnit& unit) { return unit.part == part.node; });
    SLUICE_RETURN_IF_ERROR(store_failed_units(block, fence, part.node, units));
  }
  return absl::OkStatus();
}

// What the manifest says that slots hold, where the cluster's slots are the archive's.
void add_expected(const ArchiveReader& archive, const RestoreRun& run,
                  v1::RestorePartResult* result) {
  if (!run.prefix.empty() ||
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

// Holds for as long as nobody else begins an attempt at this restore.
absl::StatusOr<RestoreFence> fence_of(const RestoreRun& run, ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const StoredRestore stored, load_restore(block, run.id));
  if (stored.revision == 0) return not_found("no restore {}", run.id);
  if (stored.head.attempt != run.attempt) {
    return aborted("restore {} is at attempt {}, this one is {}", run.id, stored.head.attempt,
                   run.attempt);
  }
  return RestoreFence{run.id, stored.revision};
}

RestoreOptions options_of(const RestoreRun& run) {
  const auto snapshot = run.peers->directory().snapshot();
  RestoreOptions options;
  options.id = run.id;
  options.attempt = run.attempt;
  options.cluster = run.peers->directory().cluster().uuid;
  options.prefix = run.prefix;
  options.requests = run.requests;
  options.cancellation = run.cancellation;
  // Where a replica is known to be away, its requests need not be tried for long: they stay on the
  // retry list.
  if (snapshot->live_names().size() < snapshot->members.size()) options.tries = 2;
  return options;
}

}  // namespace

absl::StatusOr<v1::RestorePartResult> run_restore(const RestoreRun& run) {
  ClusterBlock& block = run.peers->directory().block();
  SLUICE_ASSIGN_OR_RETURN(const auto archive, ArchiveReader::open(run.folders, &run.expected));
  v1::RestorePartResult answer;
  if (run.dry_run) {
    SLUICE_RETURN_IF_ERROR(count_records(run, *archive, &answer));
    return answer;
  }
  SLUICE_ASSIGN_OR_RETURN(const RestoreFence fence, fence_of(run, block));
  SLUICE_RETURN_IF_ERROR(move_clocks(*run.peers, archive->manifest().newest_stamp));
  DoneSlots done(run, fence, block);
  SLUICE_RETURN_IF_ERROR(done.load(*archive));
  RestoreOptions options = options_of(run);
  if (run.retry) {
    for (const auto& part : archive->parts()) {
      SLUICE_ASSIGN_OR_RETURN(auto units, load_failed_units(block, run.id, part.node));
      std::move(units.begin(), units.end(), std::back_inserter(options.only));
    }
    if (options.only.empty()) {
      add_expected(*archive, run, &answer);
      return answer;
    }
  } else {
    options.completed_slots = done.all();
    // Not in a retry: of a slot's other units it knows nothing.
    options.on_slot_complete = [&](uint32_t slot) { done.complete(slot); };
  }
  options.on_progress = [&](uint64_t, uint64_t bytes) { done.written(bytes); };
  DirectoryRouter router(run.peers->directory());
  done.start();
  auto result = restore(*run.exchange, *archive, router, options);
  SLUICE_RETURN_IF_ERROR(done.finish());
  SLUICE_RETURN_IF_ERROR(result.status());
  // A retry that was cancelled leaves the list as it was: nothing on it is lost.
  if (!(run.retry && result->cancelled)) {
    SLUICE_RETURN_IF_ERROR(store_failures(fence, block, *archive, result->failed));
  }
  // A retry has seen only some records of the archive.
  if (run.retry) result->expected.clear();
  fill_result(*result, &answer);
  if (run.retry) add_expected(*archive, run, &answer);
  return answer;
}

absl::Status read_unit_keys(
    const std::string& folder, const ArchivePartId& expected, const std::vector<RestoreUnit>& units,
    const std::function<absl::Status(size_t unit, std::string_view key)>& visit) {
  SLUICE_ASSIGN_OR_RETURN(const auto archive, ArchiveReader::open({folder}, &expected));
  SLUICE_ASSIGN_OR_RETURN(const auto arena, Arena::create({.bytes = kBufferBytes}));
  SLUICE_ASSIGN_OR_RETURN(const auto pool, arena->make_pool("reading keys", 1));
  BlockBuffer buffer = pool->try_take();
  const auto& parts = archive->parts();
  std::map<std::pair<uint32_t, uint32_t>, const BlockLocation*> locations;
  for (const BlockLocation& location : parts.at(0).blocks) {
    locations[{location.slot, location.sequence}] = &location;
  }
  for (size_t i = 0; i < units.size(); ++i) {
    for (uint32_t block = 0; block < units[i].blocks; ++block) {
      const auto found = locations.find({units[i].slot, units[i].first_sequence + block});
      if (found == locations.end()) {
        return not_found("{}: no block {} of slot {}", folder, units[i].first_sequence + block,
                         units[i].slot);
      }
      SLUICE_RETURN_IF_ERROR(archive->read_block(0, *found->second, buffer));
      SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(buffer.span()));
      BlockEntry entry;
      while (true) {
        SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
        if (!more) break;
        if (is_first_fragment(entry)) SLUICE_RETURN_IF_ERROR(visit(i, entry.key));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice
