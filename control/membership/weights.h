// What a node is worth: pure functions from measurements to weights.
#ifndef SLUICE_CONTROL_MEMBERSHIP_WEIGHTS_H_
#define SLUICE_CONTROL_MEMBERSHIP_WEIGHTS_H_

#include <cstdint>

namespace sluice {

// Bytes a second; 0: not measured, does not limit.
struct MeasuredRates {
  double disk_write = 0;  // arena to disk
  double link = 0;
  double checksum = 0;
  uint64_t free_bytes = 0;  // of the data folder's disk
};

// A node that would fill its free space within this time at its own rate counts only for the rate
// that fills it in just this time.
inline constexpr double kFillSeconds = 600;
inline constexpr double kWeightHysteresis = 0.20;
inline constexpr double kLeastWeight = 0.001;

// The bottleneck rate in MiB/s, capped by free space; at least kLeastWeight. 1 when nothing was
// measured.
double measured_weight(const MeasuredRates& rates);

// `measured` where it differs from `stored` by more than kWeightHysteresis of `stored`, else
// `stored`. A measurement that is not a positive finite number changes nothing.
double settled_weight(double stored, double measured);

// A moving average of a rate that was really achieved. Confined to one thread.
class RateAverage {
 public:
  // Samples count by their seconds: those of the last `window_seconds` make up most of the average.
  explicit RateAverage(double window_seconds = 60) : window_(window_seconds) {}
  void add(uint64_t bytes, double seconds);
  // Bytes a second; 0 before the first sample.
  double rate() const { return rate_; }

 private:
  double window_;
  double rate_ = 0;
  bool any_ = false;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_MEMBERSHIP_WEIGHTS_H_
