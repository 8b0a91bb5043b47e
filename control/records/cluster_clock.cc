#include "control/records/cluster_clock.h"

#include <algorithm>
#include <vector>

namespace sluice {

ClusterClock::ClusterClock(Clock& machine, int64_t max_offset_ms)
    : machine_(machine),
      max_offset_ms_(max_offset_ms),
      base_ms_(machine.wall_ms() - machine.monotonic_ms()) {}

int64_t ClusterClock::read_locked(Reading* reading) const {
  reading->machine_ms = machine_.wall_ms();
  reading->monotonic_ns = machine_.monotonic_ns();
  const int64_t base = reading->machine_ms - reading->monotonic_ns / 1'000'000;
  const int64_t moved = base - base_ms_;
  base_ms_ = base;
  if (moved > max_offset_ms_ || moved < -max_offset_ms_) {
    correction_ms_ -= moved;
    ++steps_;
  }
  reading->steps = steps_;
  return reading->machine_ms + correction_ms_;
}

int64_t ClusterClock::wall_ms() const {
  const MutexLock lock(mutex_);
  Reading ignored;
  return read_locked(&ignored);
}

ClusterClock::Reading ClusterClock::read() const {
  const MutexLock lock(mutex_);
  Reading reading;
  read_locked(&reading);
  return reading;
}

bool ClusterClock::set_measured(int64_t ahead_ms, uint64_t steps) {
  const MutexLock lock(mutex_);
  Reading now;
  read_locked(&now);
  if (now.steps != steps) return false;
  const bool agrees = ahead_ms <= max_offset_ms_ && ahead_ms >= -max_offset_ms_;
  correction_ms_ = agrees ? 0 : ahead_ms;
  return true;
}

int64_t median_ahead_ms(std::span<const int64_t> others_ahead_ms) {
  std::vector<int64_t> all(others_ahead_ms.begin(), others_ahead_ms.end());
  all.push_back(0);
  const size_t middle = (all.size() - 1) / 2;
  std::nth_element(all.begin(), all.begin() + static_cast<ptrdiff_t>(middle), all.end());
  return all[middle];
}

}  // namespace sluice
