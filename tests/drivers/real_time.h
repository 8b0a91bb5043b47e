// The machine's time for a simulated fabric. Thread-safe; one thread calls.
#ifndef SLUICE_TESTS_DRIVERS_REAL_TIME_H_
#define SLUICE_TESTS_DRIVERS_REAL_TIME_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "drivers/sim/fabric.h"

namespace sluice {

class RealTime final : public SimTime {
 public:
  RealTime() : thread_([this] { run(); }) {}
  ~RealTime() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  int64_t now_ns() const override { return system_clock().monotonic_ns(); }
  void call_at(int64_t at_ns, std::function<void()> due) override {
    {
      const std::lock_guard lock(mutex_);
      at_ns_ = at_ns;
      due_ = std::move(due);
    }
    changed_.notify_all();
  }
  void forget() override {
    std::unique_lock lock(mutex_);
    due_ = nullptr;
    changed_.wait(lock, [this] { return !calling_; });
    due_ = nullptr;
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      if (!due_) {
        changed_.wait(lock);
        continue;
      }
      if (const int64_t left_ns = at_ns_ - now_ns(); left_ns > 0) {
        changed_.wait_for(lock, std::chrono::nanoseconds(left_ns));
        continue;
      }
      const auto due = std::exchange(due_, nullptr);
      calling_ = true;
      lock.unlock();
      due();
      lock.lock();
      calling_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t at_ns_ = 0;
  std::function<void()> due_;
  bool calling_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_DRIVERS_REAL_TIME_H_
