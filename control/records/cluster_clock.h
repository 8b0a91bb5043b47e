// The wall clock that a node's stamps follow: the machine's, as long as it agrees with the clocks
// of the cluster's other machines; theirs, as far as it is known, when it does not.
//
//  - What was measured last (ClockMonitor) is the difference between the median of the cluster's
//  clocks and the machine's. Within `max_offset_ms` it counts for nothing; beyond, it is added.
//  - A step of the machine's clock (it moved against the monotonic one by more than max_offset_ms
//  from one reading to the next) is not followed before it was measured: until then time goes on as
//  if there had been none.
//
// Thread-safe.
#ifndef SLUICE_CONTROL_RECORDS_CLUSTER_CLOCK_H_
#define SLUICE_CONTROL_RECORDS_CLUSTER_CLOCK_H_

#include <cstdint>
#include <optional>
#include <span>

#include "base/clock.h"
#include "base/mutex.h"

namespace sluice {

class ClusterClock final : public Clock {
 public:
  ClusterClock(Clock& machine, int64_t max_offset_ms);

  int64_t wall_ms() const override;
  int64_t monotonic_ns() const override { return machine_.monotonic_ns(); }
  void sleep_ns(int64_t duration) override { machine_.sleep_ns(duration); }

  // The machine's clock as it is, and how many steps it has made so far.
  struct Reading {
    int64_t machine_ms = 0;
    int64_t monotonic_ns = 0;
    uint64_t steps = 0;
  };
  Reading read() const;

  // What the median of the cluster's clocks is ahead of the machine's (negative: behind), as
  // measured while the machine's clock had made `steps` steps. False, and nothing changes, when it
  // has made another since.
  bool set_measured(int64_t ahead_ms, uint64_t steps);

 private:
  int64_t read_locked(Reading* reading) const SLUICE_REQUIRES(mutex_);

  Clock& machine_;
  const int64_t max_offset_ms_;
  mutable Mutex mutex_;
  mutable int64_t base_ms_ SLUICE_GUARDED_BY(mutex_);  // wall minus monotonic, at the last reading
  mutable int64_t correction_ms_ SLUICE_GUARDED_BY(mutex_) = 0;
  mutable uint64_t steps_ SLUICE_GUARDED_BY(mutex_) = 0;
};

// The median of one's own clock (0) and of others' differences from it. Of an even number the lower
// one: a clock that follows it runs behind at worst, which stamps make up for by counting, while
// one that is ahead would take all others with it.
int64_t median_ahead_ms(std::span<const int64_t> others_ahead_ms);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_CLUSTER_CLOCK_H_
