#include "control/membership/weights.h"

#include <algorithm>
#include <cmath>

namespace sluice {
namespace {

constexpr double kMib = 1 << 20;

bool is_rate(double rate) { return std::isfinite(rate) && rate > 0; }

double filling_rate(const MeasuredRates& rates) {
  return static_cast<double>(rates.free_bytes) / kFillSeconds;
}

// The smaller one of those that are known; 0 when none is.
double smaller_known(double a, double b) {
  if (!is_rate(a)) return is_rate(b) ? b : 0;
  return is_rate(b) ? std::min(a, b) : a;
}

}  // namespace

const char* weight_from_name(WeightFrom from) {
  switch (from) {
    case WeightFrom::kOperator:
      return "operator";
    case WeightFrom::kProbe:
      return "probe";
    case WeightFrom::kWork:
      return "work";
  }
  return "?";
}

Bottleneck bottleneck_of(const MeasuredRates& rates) {
  Bottleneck found;
  double least = 0;
  const auto consider = [&](const char* what, double rate, WeightFrom from) {
    if (!is_rate(rate) || (least > 0 && rate >= least)) return;
    least = rate;
    found.what = what;
    found.from = from;
  };
  for (const auto& [name, member] : kNamedRates) {
    const MeasuredRate& each = rates.*member;
    consider(name, each.rate, each.work_seconds > 0 ? WeightFrom::kWork : WeightFrom::kProbe);
  }
  consider("limit", rates.limit, WeightFrom::kProbe);
  if (least == 0) return found;
  if (filling_rate(rates) < least) {
    least = filling_rate(rates);
    found.what = "free_space";
    found.from = WeightFrom::kProbe;
  }
  found.weight = std::max(kLeastWeight, least / kMib);
  return found;
}

double send_rate(const MeasuredRates& rates) { return smaller_known(rates.link.rate, rates.limit); }

double receive_rate(const MeasuredRates& rates) {
  const double known =
      smaller_known(smaller_known(rates.disk_write.rate, rates.checksum.rate), send_rate(rates));
  return known == 0 ? 0 : std::max(kLeastWeight * kMib, std::min(known, filling_rate(rates)));
}

double settled_weight(double stored, double measured) {
  if (!is_rate(measured)) return stored;
  if (!is_rate(stored)) return measured;
  return std::abs(measured - stored) > kWeightHysteresis * stored ? measured : stored;
}

bool is_news(const MeasuredRates& stored, const MeasuredRates& now) {
  const auto differs = [](double before, double after) {
    return is_rate(after) && settled_weight(before, after) != before;
  };
  if (differs(stored.limit, now.limit)) return true;
  return std::any_of(kNamedRates.begin(), kNamedRates.end(), [&](const auto& each) {
    const MeasuredRate& before = stored.*each.second;
    const MeasuredRate& after = now.*each.second;
    return differs(before.rate, after.rate) || (before.work_seconds == 0 && after.work_seconds > 0);
  });
}

MeasuredRate link_rate(const MeasuredRate& work, const MeasuredRate& device) {
  return device.rate > 0 && device.rate < work.rate ? device : work;
}

MeasuredRates with_work_of(const MeasuredRates& earlier, MeasuredRates probe) {
  const MeasuredRate device = probe.link;
  for (const auto& [name, member] : kNamedRates) {
    if ((earlier.*member).work_seconds > 0) probe.*member = earlier.*member;
  }
  probe.link = link_rate(probe.link, device);
  return probe;
}

void RateAverage::add(uint64_t bytes, double seconds) {
  if (!is_rate(seconds)) return;
  const double fading = std::exp(-seconds / window_);
  const double before = average_.work_seconds * fading;
  const double now = window_ * (1 - fading);
  average_.rate =
      (average_.rate * before + static_cast<double>(bytes) / seconds * now) / (before + now);
  average_.work_seconds = before + now;
}

void RateAverage::resume(const MeasuredRate& earlier) {
  if (!is_rate(earlier.rate) || !is_rate(earlier.work_seconds)) return;
  average_ = {earlier.rate, std::min(earlier.work_seconds, window_)};
}

}  // namespace sluice
