#include "control/restore/restore_check.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/peers/patient_call.h"
#include "control/peers/rpc.h"
#include "dataplane/pipeline/slot_digester.h"

namespace sluice {

namespace {

constexpr size_t kReaders = 4;
constexpr size_t kBatchItems = 4096;
constexpr int64_t kBufferWaitMs = 10'000;

class Checker {
 public:
  explicit Checker(const RestoreCheck& check)
      : check_(check), snapshot_(check.peers->directory().snapshot()) {}

  absl::StatusOr<RestoreCheckResult> run() {
    if (snapshot_->table == nullptr) return unavailable("the cluster has no distribution table");
    SLUICE_ASSIGN_OR_RETURN(const auto arena, Arena::create({.bytes = kReaders * kBufferBytes}));
    SLUICE_ASSIGN_OR_RETURN(pool_, arena->make_pool("checking", kReaders));
    const std::vector<Slot> slots = find_slots();
    std::vector<absl::Status> statuses(slots.size());
    parallel_for(
        slots.size(), [&](size_t i) { statuses[i] = check_slot(slots[i]); }, kReaders);
    pool_.reset();
    for (const absl::Status& status : statuses) SLUICE_RETURN_IF_ERROR(status);
    const MutexLock lock(mutex_);
    return std::move(result_);
  }

 private:
  struct Slot {
    size_t part = 0;
    std::vector<BlockLocation> blocks;  // in order
  };
  std::vector<Slot> find_slots() const {
    std::map<std::pair<size_t, uint32_t>, Slot> slots;
    for (size_t part = 0; part < check_.archive->parts().size(); ++part) {
      for (const BlockLocation& block : check_.archive->parts()[part].blocks) {
        if (!check_.counts && !check_.slots.contains(block.slot)) continue;
        Slot& slot = slots[{part, block.slot}];
        slot.part = part;
        slot.blocks.push_back(block);
      }
    }
    std::vector<Slot> list;
    for (auto& [where, slot] : slots) {
      std::sort(slot.blocks.begin(), slot.blocks.end(),
                [](const auto& a, const auto& b) { return a.sequence < b.sequence; });
      list.push_back(std::move(slot));
    }
    return list;
  }

  absl::Status check_slot(const Slot& slot) {
    BlockBuffer buffer = pool_->take(kBufferWaitMs);
    if (!buffer) return resource_exhausted("no buffer to read the archive into");
    std::map<uint32_t, v1::FindMissingRequest> batches;  // by the cluster's slot
    size_t items = 0;
    std::string name;
    SlotDigester digester;
    digester.reset();
    for (const BlockLocation& location : slot.blocks) {
      if (check_.cancellation != nullptr && check_.cancellation->cancelled()) {
        return cancelled("the check was cancelled");
      }
      SLUICE_RETURN_IF_ERROR(check_.archive->read_block(slot.part, location, buffer.span()));
      SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(buffer.span()));
      SLUICE_RETURN_IF_ERROR(digester.begin_block(reader));
      BlockEntry entry;
      while (true) {
        SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
        if (!more) break;
        RecordSummary summary;
        SLUICE_ASSIGN_OR_RETURN(const bool complete, digester.add(entry, &summary));
        if (!complete || !check_.mapping.takes(entry.key)) continue;
        // What has no possible name was not restored, and is on the retry list.
        if (!check_.mapping.name(entry.key, &name).ok()) continue;
        fill(name, check_.mapping.summary(summary),
             batches[slot_of(name, snapshot_->table->slot_bits())].add_items());
        ++items;
      }
      SLUICE_RETURN_IF_ERROR(digester.end_block(reader));
      if (items < kBatchItems) continue;
      SLUICE_RETURN_IF_ERROR(ask(batches));
      items = 0;
    }
    return ask(batches);
  }

  absl::Status ask(std::map<uint32_t, v1::FindMissingRequest>& batches) {
    for (auto& [slot, batch] : batches) {
      batch.set_slot(slot);
      batch.set_tell(check_.counts);
      Newest newest;
      for (const uint16_t member : snapshot_->table->replicas_of(slot)) {
        SLUICE_RETURN_IF_ERROR(
            ask_replica(snapshot_->table->members()[member].name, batch, &newest));
      }
      count(batch, newest);
    }
    batches.clear();
    const MutexLock lock(mutex_);
    if (check_.progress) check_.progress();
    return absl::OkStatus();
  }

  // What a replica has of an item.
  struct Here {
    Version version;
    bool tombstone = false;
    bool same = false;  // has the item's value
  };
  using Newest = std::map<uint32_t, Here>;  // by the item's place in its batch

  void count(const v1::FindMissingRequest& batch, const Newest& newest) {
    const MutexLock lock(mutex_);
    for (const auto& [index, here] : newest) {
      if (index >= static_cast<uint32_t>(batch.items_size())) continue;
      const v1::ScanItem& item = batch.items(static_cast<int>(index));
      if (item.tombstone()) continue;
      const bool later = here.version > Version{item.stamp(), item.node()};
      result_.deleted += later && here.tombstone;
      result_.newer += later && !here.tombstone && !here.same;
      result_.live += !here.tombstone;
    }
  }

  absl::Status ask_replica(const std::string& node, const v1::FindMissingRequest& request,
                           Newest* newest) {
    {
      const MutexLock lock(mutex_);
      if (result_.unreachable.contains(node)) return absl::OkStatus();
    }
    Patience patience;
    patience.cancellation = check_.cancellation;
    v1::FindMissingReply reply;
    const absl::Status status = call_patiently(
        *check_.peers, node, patience, [&](PeerNode& peer, grpc::ClientContext& call) {
          reply.Clear();
          return peer.peer().FindMissing(&call, request, &reply);
        });
    const MutexLock lock(mutex_);
    if (is_late(status)) {
      result_.unreachable.insert(node);
      return absl::OkStatus();
    }
    for (const auto& here : reply.here()) {
      const Here found{{here.stamp(), here.node()}, here.tombstone(), here.same()};
      Here& known = (*newest)[here.item()];
      if (known.version <= found.version) known = found;
    }
    if (reply.missing_size() > 0) result_.lacking[node].insert(request.slot());
    return status;
  }

  const RestoreCheck& check_;
  const std::shared_ptr<const Directory::Snapshot> snapshot_;
  std::unique_ptr<BlockPool> pool_;
  Mutex mutex_;
  RestoreCheckResult result_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<RestoreCheckResult> check_restored(const RestoreCheck& check) {
  return Checker(check).run();
}

}  // namespace sluice
