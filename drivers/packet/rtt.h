// The round trip and the retransmission timeout by RFC 6298, in nanoseconds. Confined to one
// thread.
#ifndef SLUICE_DRIVERS_PACKET_RTT_H_
#define SLUICE_DRIVERS_PACKET_RTT_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>

namespace sluice::packet {

inline constexpr int64_t kMicrosecond = 1'000;
inline constexpr int64_t kMillisecond = 1'000'000;
inline constexpr int64_t kSecond = 1'000'000'000;
inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

class RoundTrip {
 public:
  // RFC 6298 2.1 before the first sample. Its floor of one second (2.4) is for the Internet; a
  // timeout here sends a probe and declares nothing lost, so a short one costs a packet.
  static constexpr int64_t kInitialTimeout = 1 * kSecond;
  static constexpr int64_t kMinTimeout = 5 * kMillisecond;
  static constexpr int64_t kMaxTimeout = 1 * kSecond;
  static constexpr int64_t kGranularity = 1 * kMillisecond;
  static constexpr int64_t kMinWindow = 10 * kSecond;

  // `host_delay`: how much of it may have been spent waiting in the two hosts for their programs to
  // look. The timeout is of the whole round trip, congestion is only in the rest.
  void sample(int64_t round_trip, int64_t host_delay, int64_t now) {
    round_trip = std::max<int64_t>(round_trip, 1);
    network_ = std::max<int64_t>(round_trip - std::max<int64_t>(host_delay, 0), 1);
    if (smallest_ == 0 || network_ <= smallest_ || now - smallest_at_ > kMinWindow) {
      smallest_ = network_;
      smallest_at_ = now;
    }
    latest_ = round_trip;
    if (smoothed_ == 0) {  // 2.2
      smoothed_ = round_trip;
      variation_ = round_trip / 2;
      return;
    }
    // 2.3, alpha = 1/8, beta = 1/4
    variation_ += (std::abs(smoothed_ - round_trip) - variation_) / 4;
    smoothed_ += (round_trip - smoothed_) / 8;
  }

  bool known() const { return smoothed_ != 0; }
  int64_t smoothed() const { return smoothed_; }
  int64_t variation() const { return variation_; }
  int64_t latest() const { return latest_; }
  // Of the latest sample, and the smallest of the last ten seconds: without the hosts' part.
  int64_t network() const { return network_; }
  int64_t smallest() const { return smallest_; }
  // With exponential backoff (5.5) after `backoffs` timeouts in a row.
  int64_t timeout(uint32_t backoffs) const {
    int64_t timeout = kInitialTimeout;
    if (known()) timeout = smoothed_ + std::max(kGranularity, 4 * variation_);
    timeout = std::clamp(timeout, kMinTimeout, kMaxTimeout);
    return std::min(timeout << std::min(backoffs, 10u), kMaxTimeout);
  }

 private:
  int64_t smoothed_ = 0;
  int64_t variation_ = 0;
  int64_t latest_ = 0;
  int64_t network_ = 0;
  int64_t smallest_ = 0;
  int64_t smallest_at_ = 0;
};

}  // namespace sluice::packet

#endif  // SLUICE_DRIVERS_PACKET_RTT_H_
