// What a node is worth: pure functions from measurements to weights.
#ifndef SLUICE_CONTROL_MEMBERSHIP_WEIGHTS_H_
#define SLUICE_CONTROL_MEMBERSHIP_WEIGHTS_H_

#include <array>
#include <cstdint>
#include <utility>

namespace sluice {

// Bytes a second; 0: not known, does not limit.
struct MeasuredRate {
  double rate = 0;
  double work_seconds = 0;  // of the real work that it is the average of; 0: a probe's
  friend bool operator==(const MeasuredRate&, const MeasuredRate&) = default;
};

struct MeasuredRates {
  MeasuredRate disk_write;  // arena to disk: what an archive is written with
  MeasuredRate link;
  MeasuredRate checksum;
  MeasuredRate ingest;      // of a restore's blocks into the record store; known from work alone
  double limit = 0;         // an operator's, of bulk in each direction; 0: none
  uint64_t free_bytes = 0;  // of the data directory's disk
  friend bool operator==(const MeasuredRates&, const MeasuredRates&) = default;
};

// The rates that are measured, with their names in documents and reports.
using NamedRates = std::array<std::pair<const char*, MeasuredRate MeasuredRates::*>, 4>;
inline constexpr NamedRates kNamedRates = {{{"disk_write", &MeasuredRates::disk_write},
                                            {"link", &MeasuredRates::link},
                                            {"checksum", &MeasuredRates::checksum},
                                            {"ingest", &MeasuredRates::ingest}}};

// A node that would fill its free space within this time at its own rate counts only for the rate
// that fills it in just this time.
inline constexpr double kFillSeconds = 600;
inline constexpr double kWeightHysteresis = 0.20;
inline constexpr double kLeastWeight = 0.001;
// Less work than this says little about a node.
inline constexpr double kLeastWorkSeconds = 2;

enum class WeightFrom { kOperator, kProbe, kWork };
const char* weight_from_name(WeightFrom from);

// What bounds a node, and the weight that follows.
struct Bottleneck {
  double weight = 1;  // MiB a second
  const char* what =
      "none";  // one of kNamedRates, "limit" or "free_space"; "none": nothing is known
  WeightFrom from = WeightFrom::kProbe;
};
// The smallest of the rates and the limit, capped by free space; at least kLeastWeight. Weight 1
// when nothing was measured.
Bottleneck bottleneck_of(const MeasuredRates& rates);

// What a node can send of a backup, and take as its target, in bytes a second; 0: not known.
double send_rate(const MeasuredRates& rates);
double receive_rate(const MeasuredRates& rates);

// `measured` where it differs from `stored` by more than kWeightHysteresis of `stored`, else
// `stored`. A measurement that is not a positive finite number changes nothing.
double settled_weight(double stored, double measured);

// Whether the others should hear of `now`: a rate or the limit is known for the first time, or is
// another than `stored` by more than kWeightHysteresis of that. Free space tells by the weight.
bool is_news(const MeasuredRates& stored, const MeasuredRates& now);

// Work tells how fast a node's thread moves messages while it has any to move, and not how long
// they are on the wire; `device` (a rate of 0: not known) tells what the wire carries at most.
MeasuredRate link_rate(const MeasuredRate& work, const MeasuredRate& device);

// `probe`, with the rates in their place that `earlier` has from work: a restart forgets none.
MeasuredRates with_work_of(const MeasuredRates& earlier, MeasuredRates probe);

// A moving average of a rate that was really achieved. Confined to one thread.
class RateAverage {
 public:
  // Samples count by their seconds: those of the last `window_seconds` make up most of the average.
  explicit RateAverage(double window_seconds = 60) : window_(window_seconds) {}
  void add(uint64_t bytes, double seconds);
  // Goes on from an average that was read before.
  void resume(const MeasuredRate& earlier);
  const MeasuredRate& average() const { return average_; }

 private:
  double window_;
  MeasuredRate average_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_MEMBERSHIP_WEIGHTS_H_
