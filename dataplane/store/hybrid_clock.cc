#include "dataplane/store/hybrid_clock.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

// Beyond this (the year 6429) a stamp is damage or malice: a clock that followed it would run out
// of stamps.
constexpr uint64_t kStampLimit = uint64_t{1} << 63;

uint64_t wall_stamp(const Clock& wall) {
  const int64_t ms = std::clamp<int64_t>(wall.wall_ms(), 0, (int64_t{1} << 47) - 1);
  return Version::make_stamp(static_cast<uint64_t>(ms), 0);
}

absl::Status check_plausible(uint64_t stamp) {
  if (stamp < kStampLimit) return absl::OkStatus();
  return invalid_argument("stamp {:#x} is beyond any possible time", stamp);
}

}  // namespace

HybridClock::HybridClock(Clock& wall, uint64_t ceiling, int64_t max_offset_ms,
                         std::function<absl::Status(uint64_t ceiling)> persist)
    : wall_(wall),
      max_offset_ms_(max_offset_ms),
      persist_(std::move(persist)),
      last_(ceiling),
      ceiling_(ceiling) {}

absl::StatusOr<uint64_t> HybridClock::stamp() {
  std::lock_guard lock(mutex_);
  const uint64_t next = std::max(last_ + 1, wall_stamp(wall_));
  SLUICE_RETURN_IF_ERROR(advance_locked(next));
  return next;
}

uint64_t HybridClock::now() const {
  std::lock_guard lock(mutex_);
  return std::max(last_, wall_stamp(wall_));
}

absl::Status HybridClock::observe(uint64_t stamp) {
  SLUICE_RETURN_IF_ERROR(check_plausible(stamp));
  std::lock_guard lock(mutex_);
  const uint64_t here = std::max(last_, wall_stamp(wall_));
  const uint64_t ahead_ms =
      Version::stamp_ms(stamp) - std::min(Version::stamp_ms(stamp), Version::stamp_ms(here));
  if (ahead_ms > static_cast<uint64_t>(max_offset_ms_)) {
    return out_of_range(
        "stamp of {} ms is {} ms ahead of this node's clock at {} ms: at most {} ms are accepted",
        Version::stamp_ms(stamp), ahead_ms, Version::stamp_ms(here), max_offset_ms_);
  }
  return advance_locked(stamp);
}

absl::Status HybridClock::observe_trusted(uint64_t stamp) {
  SLUICE_RETURN_IF_ERROR(check_plausible(stamp));
  std::lock_guard lock(mutex_);
  if (stamp <= last_) return absl::OkStatus();
  const uint64_t stamp_ms = Version::stamp_ms(stamp);
  const uint64_t wall_ms = Version::stamp_ms(wall_stamp(wall_));
  if (stamp_ms > wall_ms + static_cast<uint64_t>(kMaxTrustedMs)) {
    return out_of_range(
        "stamp of {} ms is {} ms ahead of this node's wall clock at {} ms: at most {} ms are "
        "accepted from an archive",
        stamp_ms, stamp_ms - wall_ms, wall_ms, kMaxTrustedMs);
  }
  return advance_locked(stamp);
}

absl::Status HybridClock::advance_locked(uint64_t stamp) {
  if (stamp <= last_) return absl::OkStatus();
  if (stamp >= ceiling_) {
    const uint64_t ceiling = stamp + Version::make_stamp(kCeilingStepMs, 0);
    SLUICE_RETURN_IF_ERROR(persist_(ceiling));
    ceiling_ = ceiling;
  }
  last_ = stamp;
  return absl::OkStatus();
}

}  // namespace sluice
