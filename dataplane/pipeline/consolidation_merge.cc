// What merges of divergent slots need of the consolidation.
#include <utility>

#include "base/status.h"
#include "dataplane/pipeline/consolidation_impl.h"

namespace sluice::consolidation {

absl::Status ConsolidationImpl::start_merging() {
  std::set<uint32_t> durable;
  {
    const MutexLock lock(mutex_);
    for (const ConsolidationSlot* plan : divergent_) {
      if (slots_[plan->slot].phase == Slot::Phase::kDurable) durable.insert(plan->slot);
    }
  }
  merge_ = std::make_unique<MergeTarget>(exchange_, *this, options_);
  return merge_->start(divergent_, durable);
}

void ConsolidationImpl::told_to_wait() { last_block_ns_ = exchange_.clock().monotonic_ns(); }

absl::Status ConsolidationImpl::append(uint32_t slot, BlockBuffer block, uint32_t bytes) {
  {
    const MutexLock lock(mutex_);
    slots_[slot].taken_bytes += bytes;
  }
  absl::Status status = writer_.append(std::move(block), bytes);
  if (!status.ok()) {
    status = with_context(status, fmt::format("archiving merged slot {}", slot));
    end(State::kFailed, status);
  }
  return status;
}

void ConsolidationImpl::start_over(uint32_t slot, const absl::Status& why) {
  drop(slot, true);
  // A broken stream is its source's bad luck, as often as it happens. What was wrong with the data
  // counts.
  if (absl::IsDataLoss(why)) {
    slot_failed(slot, "its sources", why);
  } else {
    const MutexLock lock(mutex_);
    ++progress_.slots_refused;
  }
}

bool ConsolidationImpl::slot_received(uint32_t slot, const SlotDigest& digest,
                                      uint64_t newest_stamp, DivergenceReport report) {
  {
    // Counted once it is durable: otherwise a slot that is merged again after a restart would count
    // twice.
    const MutexLock lock(mutex_);
    unsynced_divergence_[slot] = std::move(report);
  }
  return slot_received(slot, digest, newest_stamp);
}

}  // namespace sluice::consolidation
