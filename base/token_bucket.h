// A rate that is kept on average: who wants to move bytes asks whether the bucket is ready, then
// takes what they are. Nobody waits in here; a caller that must wait sleeps for wait_ns(), or is
// woken after it.
//
// What is taken may be more than what is there, so that a message of any size passes: the bucket is
// then not ready until the debt is paid. So in any time no more is taken than the rate allows, plus
// a burst, plus one taking for each thread that found it ready at the same moment.
//
// (The virtual form of the leaky bucket, ITU-T I.371: one time stamp instead of a level and the
// time at which it was right.)
#ifndef SLUICE_BASE_TOKEN_BUCKET_H_
#define SLUICE_BASE_TOKEN_BUCKET_H_

#include <algorithm>
#include <cstdint>

#include "base/clock.h"
#include "base/mutex.h"

namespace sluice {

// Thread-safe. The clock outlives it.
class TokenBucket {
 public:
  // What is not taken is kept for so long, and lost then: longer than who waits oversleeps.
  static constexpr int64_t kBurstNs = 50'000'000;

  // A rate of 0: no limit, always ready. At least `least_burst` bytes are kept: no less than is
  // ever given back at once, or that would be lost.
  TokenBucket(Clock& clock, uint64_t bytes_per_second, uint64_t least_burst)
      : clock_(clock),
        ns_per_byte_(bytes_per_second == 0 ? 0 : 1e9 / static_cast<double>(bytes_per_second)),
        burst_ns_(std::max(kBurstNs, cost_ns(least_burst))),
        paid_at_ns_(clock.monotonic_ns() - burst_ns_) {}
  TokenBucket(const TokenBucket&) = delete;
  TokenBucket& operator=(const TokenBucket&) = delete;

  bool limited() const { return ns_per_byte_ > 0; }
  bool ready() const { return wait_ns() == 0; }
  // Until it is ready, if nobody takes any more.
  int64_t wait_ns() const {
    if (!limited()) return 0;
    const MutexLock lock(mutex_);
    return std::max<int64_t>(paid_at_ns_ - clock_.monotonic_ns(), 0);
  }
  void take(uint64_t bytes) {
    if (!limited()) return;
    const MutexLock lock(mutex_);
    paid_at_ns_ = std::max(paid_at_ns_, clock_.monotonic_ns() - burst_ns_) + cost_ns(bytes);
  }
  // Of what was taken and not used.
  void give_back(uint64_t bytes) {
    if (!limited()) return;
    const MutexLock lock(mutex_);
    paid_at_ns_ -= cost_ns(bytes);
  }

 private:
  int64_t cost_ns(uint64_t bytes) const {
    return static_cast<int64_t>(static_cast<double>(bytes) * ns_per_byte_);
  }

  Clock& clock_;
  const double ns_per_byte_;
  const int64_t burst_ns_;
  mutable Mutex mutex_;
  int64_t paid_at_ns_ SLUICE_GUARDED_BY(mutex_);  // when all that was taken is paid for
};

}  // namespace sluice

#endif  // SLUICE_BASE_TOKEN_BUCKET_H_
