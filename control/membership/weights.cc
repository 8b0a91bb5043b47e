#include "control/membership/weights.h"

#include <algorithm>
#include <cmath>

namespace sluice {

double measured_weight(const MeasuredRates& rates) {
  double bottleneck = 0;
  for (const double rate : {rates.disk_write, rates.link, rates.checksum}) {
    if (!std::isfinite(rate) || rate <= 0) continue;
    bottleneck = bottleneck == 0 ? rate : std::min(bottleneck, rate);
  }
  if (bottleneck == 0) return 1;
  const double filling = static_cast<double>(rates.free_bytes) / kFillSeconds;
  return std::max(kLeastWeight, std::min(bottleneck, filling) / (1 << 20));
}

double settled_weight(double stored, double measured) {
  if (!std::isfinite(measured) || measured <= 0) return stored;
  if (!std::isfinite(stored) || stored <= 0) return measured;
  return std::abs(measured - stored) > kWeightHysteresis * stored ? measured : stored;
}

void RateAverage::add(uint64_t bytes, double seconds) {
  if (!std::isfinite(seconds) || seconds <= 0) return;
  const double sample = static_cast<double>(bytes) / seconds;
  const double share = any_ ? 1 - std::exp(-seconds / window_) : 1;
  rate_ += share * (sample - rate_);
  any_ = true;
}

}  // namespace sluice
