#include "drivers/packet/congestion.h"

#include <algorithm>
#include <cmath>

namespace sluice::packet {
namespace {

// Flow scaling, Swift 3.1: windows of 100 packets and more get no addition to the target, smaller
// ones up to the base target once more.
constexpr double kScaledFrom = 1;
constexpr double kScaledTo = 100;
constexpr double kScaleRange = 1;
// A round trip of three base targets cannot be a queue that others keep within their targets: such
// a path is long. Shorter ones get the same target whatever their length, since a flow that begins
// while a queue stands would take the queue for the path, and more than its share.
constexpr double kLongPath = 3;
constexpr double kLossGain = 1.0 / 512;

}  // namespace

Congestion::Congestion(const CongestionOptions& options)
    : packet_bytes_(options.packet_bytes),
      base_target_ns_(options.base_target_ns),
      max_window_(options.max_window_packets) {}

int64_t Congestion::target(int64_t smallest) const {
  const double base = static_cast<double>(base_target_ns_);
  const double range = kScaleRange * base;
  const double alpha = range / (1 / std::sqrt(kScaledFrom) - 1 / std::sqrt(kScaledTo));
  const double beta = -alpha / std::sqrt(kScaledTo);
  const double scaled = std::clamp(alpha / std::sqrt(window_) + beta, 0.0, range);
  const auto path = static_cast<double>(smallest);
  const double allowed = path > kLongPath * base ? path + base : base;
  return static_cast<int64_t>(allowed + scaled);
}

void Congestion::on_acked(bool limited) {
  loss_ -= loss_ * kLossGain;
  limited_ = limited_ || limited;
}

void Congestion::on_sample(uint64_t number, uint64_t next, int64_t round_trip, int64_t smallest) {
  if (round_delay_ == 0 || round_trip < round_delay_) round_delay_ = round_trip;
  if (number >= round_end_) end_round(next, smallest);
}

void Congestion::end_round(uint64_t next, int64_t smallest) {
  const auto delay = static_cast<double>(round_delay_);
  const auto wanted = static_cast<double>(target(smallest));
  if (slow_start_ && 2 * delay > wanted + static_cast<double>(smallest)) slow_start_ = false;
  if (delay > wanted) {
    rounds_below_ = 0;
    set_window(window_ * std::max(1 - kBeta * (delay - wanted) / delay, 1 - kMaxDecrease));
  } else if (limited_) {
    ++rounds_below_;
    const double hurry = rounds_below_ > kRoundsToHurry ? 5 : 1;
    set_window(slow_start_ ? window_ * 2 : window_ + kIncrease * hurry);
  }
  limited_ = false;
  round_delay_ = 0;
  round_end_ = next;
}

void Congestion::on_lost(uint64_t next) {
  loss_ += (1 - loss_) * kLossGain;
  if (loss_ <= kLossThreshold || next <= decrease_end_) return;
  slow_start_ = false;
  rounds_below_ = 0;
  loss_ /= 2;
  // What is in flight was sent by the old window: its losses say nothing about the new one.
  decrease_end_ = next + static_cast<uint64_t>(window_);
  set_window(window_ * kLossDecrease);
}

void Congestion::on_silence() {
  set_window(kMinWindow);
  slow_start_ = true;
  rounds_below_ = 0;
  round_delay_ = 0;
}

void Congestion::set_window(double packets) {
  window_ = std::clamp(packets, kMinWindow, max_window_);
}

double Congestion::pacing_rate(int64_t round_trip) const {
  const double gain = slow_start_ ? 2.0 : 1.25;
  return gain * window_ * packet_bytes_ * 1e9 /
         static_cast<double>(std::max<int64_t>(round_trip, 1000));
}

}  // namespace sluice::packet
