#include "control/membership/work_meter.h"

#include <algorithm>
#include <cassert>

namespace sluice {
namespace {

size_t place_of(WorkMeter::Rate rate) {
  const auto* const found = std::find_if(kNamedRates.begin(), kNamedRates.end(),
                                         [&](const auto& each) { return each.second == rate; });
  assert(found != kNamedRates.end());
  return static_cast<size_t>(found - kNamedRates.begin());
}

}  // namespace

void WorkMeter::resume(const MeasuredRates& earlier) {
  const MutexLock lock(mutex_);
  for (size_t i = 0; i < kNamedRates.size(); ++i) {
    averages_[i].resume(earlier.*kNamedRates[i].second);
  }
}

void WorkMeter::add(Rate rate, uint64_t bytes, int64_t busy_ns) {
  const MutexLock lock(mutex_);
  add_locked(rate, bytes, busy_ns);
}

void WorkMeter::follow(Rate rate, const StageTimes& total) {
  const MutexLock lock(mutex_);
  StageTimes& before = followed_[place_of(rate)];
  // A stage counts its bytes when a piece of work ends, its time all along: until then there is
  // nothing to divide.
  if (total.bytes == before.bytes) return;
  add_locked(rate, total.bytes - before.bytes, total.busy_ns - before.busy_ns);
  before = total;
}

void WorkMeter::add_locked(Rate rate, uint64_t bytes, int64_t busy_ns) {
  if (bytes == 0) return;
  averages_[place_of(rate)].add(bytes, static_cast<double>(busy_ns) / 1e9);
}

MeasuredRates WorkMeter::rates(MeasuredRates probe) const {
  const MutexLock lock(mutex_);
  for (size_t i = 0; i < kNamedRates.size(); ++i) {
    const MeasuredRate& average = averages_[i].average();
    if (average.work_seconds > 0 && average.work_seconds >= least_seconds_) {
      probe.*kNamedRates[i].second = average;
    }
  }
  return probe;
}

}  // namespace sluice
