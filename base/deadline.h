// The end of a bounded wait that asks again and again: when it is over, and the pauses between
// (where they grow, Backoff says how long they are).
#ifndef SLUICE_BASE_DEADLINE_H_
#define SLUICE_BASE_DEADLINE_H_

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace sluice {

// Not thread-safe. The clock outlives it.
class Deadline {
 public:
  Deadline(Clock& clock, int64_t ms) : clock_(clock), ms_(ms) { restart(); }
  // Something moved, now or at a time of the clock: the whole time is left again from there.
  void restart() { restart_at(clock_.monotonic_ns()); }
  void restart_at(int64_t monotonic_ns) { end_ns_ = monotonic_ns + ms_ * kMs; }
  bool passed() const { return clock_.monotonic_ns() >= end_ns_; }
  // Never below 0.
  int64_t left_ms() const { return std::max<int64_t>((end_ns_ - clock_.monotonic_ns()) / kMs, 0); }
  // Sleeps before the next try, until the deadline at most. False, at once, where it has passed.
  bool pause(int64_t ms) {
    const int64_t left_ns = end_ns_ - clock_.monotonic_ns();
    if (left_ns <= 0) return false;
    clock_.sleep_ns(std::min(ms * kMs, left_ns));
    return true;
  }

 private:
  Clock& clock_;
  const int64_t ms_;
  int64_t end_ns_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_BASE_DEADLINE_H_
