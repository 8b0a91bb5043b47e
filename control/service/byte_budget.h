// A bound on the bytes of requests in work. Thread-safe.
#ifndef SLUICE_CONTROL_SERVICE_BYTE_BUDGET_H_
#define SLUICE_CONTROL_SERVICE_BYTE_BUDGET_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/status.h"

namespace sluice {

class ByteBudget {
 public:
  explicit ByteBudget(size_t bytes) : bytes_(bytes), free_(bytes) {}

  // Gives its bytes back when it goes.
  class Share {
   public:
    Share(ByteBudget* budget, size_t bytes) : budget_(budget), bytes_(bytes) {}
    Share(Share&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Share& operator=(Share&&) = delete;
    ~Share() {
      if (budget_ != nullptr) budget_->give_back(bytes_);
    }

   private:
    ByteBudget* budget_;
    size_t bytes_;
  };

  // Waits for room. A request larger than the whole budget takes all of it. RESOURCE_EXHAUSTED
  // after the time.
  absl::StatusOr<Share> take(size_t bytes, int64_t timeout_ms) {
    const size_t want = std::min(bytes, bytes_);
    MutexLock lock(mutex_);
    if (!room_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                        [&]() SLUICE_REQUIRES(mutex_) { return free_ >= want; })) {
      return resource_exhausted("{} MiB of requests are in work here already; try again later",
                                bytes_ >> 20);
    }
    free_ -= want;
    return Share(this, want);
  }

 private:
  void give_back(size_t bytes) {
    {
      const MutexLock lock(mutex_);
      free_ += bytes;
    }
    room_.notify_all();
  }

  const size_t bytes_;
  Mutex mutex_;
  Condition room_;
  size_t free_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_BYTE_BUDGET_H_
