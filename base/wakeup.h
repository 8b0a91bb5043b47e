// Lets one thread sleep until others have something for it. What happens while it is awake is not
// missed: the next wait returns at once. Thread-safe; one thread waits.
#ifndef SLUICE_BASE_WAKEUP_H_
#define SLUICE_BASE_WAKEUP_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

namespace sluice {

class Wakeup {
 public:
  void wake() {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
    }
    changed_.notify_one();
  }
  // True when wake() was called since the last wait that returned true; false after timeout_ms
  // without.
  bool wait(int64_t timeout_ms) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return woken_; });
    return std::exchange(woken_, false);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
};

}  // namespace sluice

#endif  // SLUICE_BASE_WAKEUP_H_
