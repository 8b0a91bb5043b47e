// The rates that a node's bulk work achieves, as moving averages. Only time in which the node
// itself was at work counts, so that a fast node is not slow because it waits for a slow one.
#ifndef SLUICE_CONTROL_MEMBERSHIP_WORK_METER_H_
#define SLUICE_CONTROL_MEMBERSHIP_WORK_METER_H_

#include <array>
#include <cstdint>

#include "base/mutex.h"
#include "base/stage.h"
#include "control/membership/weights.h"

namespace sluice {

// Thread-safe. No clock: it is told what was done in which time.
class WorkMeter {
 public:
  using Rate = MeasuredRate MeasuredRates::*;

  // `least_seconds`: of work without which a rate stays the probe's.
  explicit WorkMeter(double least_seconds = kLeastWorkSeconds) : least_seconds_(least_seconds) {}
  // Goes on from an earlier run's averages. Before any work.
  void resume(const MeasuredRates& earlier);
  // Work that is over.
  void add(Rate rate, uint64_t bytes, int64_t busy_ns);
  // What a stage has done since the last call for this rate; the stage counts from its start.
  void follow(Rate rate, const StageTimes& total);
  // `probe`, with the averages in their place for which there was work enough.
  MeasuredRates rates(MeasuredRates probe) const;

 private:
  void add_locked(Rate rate, uint64_t bytes, int64_t busy_ns) SLUICE_REQUIRES(mutex_);

  const double least_seconds_;
  mutable Mutex mutex_;
  // By the rate's place in kNamedRates.
  std::array<RateAverage, kNamedRates.size()> averages_ SLUICE_GUARDED_BY(mutex_);
  std::array<StageTimes, kNamedRates.size()> followed_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_MEMBERSHIP_WORK_METER_H_
