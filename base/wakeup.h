// Lets one thread sleep until others have something for it. What happens while it is awake is not
// missed: the next wait returns at once. Thread-safe; one thread waits.
#ifndef SLUICE_BASE_WAKEUP_H_
#define SLUICE_BASE_WAKEUP_H_

#include <chrono>
#include <cstdint>
#include <utility>

#include "base/mutex.h"

namespace sluice {

class Wakeup {
 public:
  void wake() {
    {
      const MutexLock lock(mutex_);
      woken_ = true;
    }
    changed_.notify_one();
  }
  // True when wake() was called since the last wait that returned true; false after timeout_ms
  // without.
  bool wait(int64_t timeout_ms) {
    MutexLock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                      [this]() SLUICE_REQUIRES(mutex_) { return woken_; });
    return std::exchange(woken_, false);
  }

 private:
  Mutex mutex_;
  Condition changed_;
  bool woken_ SLUICE_GUARDED_BY(mutex_) = false;
};

}  // namespace sluice

#endif  // SLUICE_BASE_WAKEUP_H_
