// How long to wait before the next try: doubles from one failure to the next, up to a limit. Not
// thread-safe.
#ifndef SLUICE_BASE_BACKOFF_H_
#define SLUICE_BASE_BACKOFF_H_

#include <algorithm>
#include <cstdint>

namespace sluice {

class Backoff {
 public:
  Backoff(int64_t first_ms, int64_t most_ms)
      : first_ms_(std::min(first_ms, most_ms)), most_ms_(most_ms), next_ms_(first_ms_) {}
  // Of the failure that happened now.
  int64_t next_ms() {
    const int64_t wait_ms = next_ms_;
    next_ms_ = std::min(next_ms_ * 2, most_ms_);
    return wait_ms;
  }
  int64_t next_ns() { return next_ms() * 1'000'000; }
  // After a success.
  void reset() { next_ms_ = first_ms_; }

 private:
  const int64_t first_ms_;
  const int64_t most_ms_;
  int64_t next_ms_;
};

}  // namespace sluice

#endif  // SLUICE_BASE_BACKOFF_H_
