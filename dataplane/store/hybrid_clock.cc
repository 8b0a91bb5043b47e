#include "dataplane/store/hybrid_clock.h"

#include <algorithm>
#include <utility>

#include "base/defect.h"
#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

// What kStampsAheadAreRefused allows: as far as clocks may be off.
constexpr uint64_t kMostAheadMs = 2'000;

uint64_t wall_stamp(const Clock& wall) {
  const int64_t ms = std::clamp<int64_t>(wall.wall_ms(), 0, HybridClock::kLatestWallMs - 1);
  return Version::make_stamp(static_cast<uint64_t>(ms), 0);
}

}  // namespace

HybridClock::HybridClock(Clock& wall, uint64_t ceiling,
                         std::function<absl::Status(uint64_t ceiling)> persist)
    : wall_(wall), persist_(std::move(persist)), last_(ceiling), ceiling_(ceiling) {}

absl::StatusOr<uint64_t> HybridClock::stamp() {
  const MutexLock lock(mutex_);
  const uint64_t next = std::max(std::max(last_.load(), seen_.load()) + 1, wall_stamp(wall_));
  SLUICE_RETURN_IF_ERROR(advance_locked(next));
  return next;
}

uint64_t HybridClock::now() const {
  return std::max({last_.load(), seen_.load(), wall_stamp(wall_)});
}

int64_t HybridClock::ahead_ms() const {
  const uint64_t wall = wall_stamp(wall_);
  return static_cast<int64_t>(Version::stamp_ms(std::max(now(), wall)) - Version::stamp_ms(wall));
}

uint64_t HybridClock::ceiling() const {
  const MutexLock lock(mutex_);
  return ceiling_;
}

absl::Status HybridClock::observe(uint64_t stamp) { return observe_below(kPeerLimit, stamp); }

absl::Status HybridClock::reserve(uint64_t stamp,
                                  const std::function<absl::Status(uint64_t)>& persist) {
  if (stamp >= kPeerLimit) {
    return invalid_argument("stamp {:#x} is beyond any possible time: it is damaged", stamp);
  }
  const MutexLock lock(mutex_);
  const uint64_t ceiling = std::max(ceiling_, stamp + Version::make_stamp(kCeilingStepMs, 0));
  SLUICE_RETURN_IF_ERROR(persist(ceiling));
  ceiling_ = ceiling;
  return absl::OkStatus();
}

absl::Status HybridClock::observe_archived(uint64_t stamp) {
  return observe_below(kArchiveLimit, stamp);
}

absl::Status HybridClock::observe_below(uint64_t limit, uint64_t stamp) {
  if (stamp >= limit) {
    return invalid_argument("stamp {:#x} is beyond any possible time: it is damaged", stamp);
  }
  const MutexLock lock(mutex_);
  if (defect(Defect::kStampsAheadAreRefused) &&
      Version::stamp_ms(stamp) > Version::stamp_ms(wall_stamp(wall_)) + kMostAheadMs) {
    return invalid_argument("stamp {:#x} is ahead of this node's clock", stamp);
  }
  return advance_locked(stamp);
}

absl::Status HybridClock::advance_locked(uint64_t stamp) {
  if (stamp <= last_) return absl::OkStatus();
  if (stamp >= ceiling_) {
    const uint64_t ceiling = stamp + Version::make_stamp(kCeilingStepMs, 0);
    if (!defect(Defect::kCeilingIsNotKept)) {
      if (absl::Status status = persist_(ceiling); !status.ok()) {
        seen_ = std::max(seen_.load(), stamp);
        return status;
      }
    }
    ceiling_ = ceiling;
  }
  last_ = stamp;
  return absl::OkStatus();
}

}  // namespace sluice
