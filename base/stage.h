// What a stage of a pipeline has done, for reports that say which one bounds the whole: bytes, for
// how much time at least one worker was at it, and its system calls where it counts them. Counted
// always, so it costs two readings of the clock and an uncontended lock for each block.
#ifndef SLUICE_BASE_STAGE_H_
#define SLUICE_BASE_STAGE_H_

#include <cstdint>

#include "base/clock.h"
#include "base/mutex.h"

namespace sluice {

struct StageTimes {
  uint64_t bytes = 0;
  int64_t busy_ns = 0;
  int64_t wait_ns = 0;  // since its first work began
  uint64_t system_calls = 0;
};

// Thread-safe. The clock outlives it.
class Stage {
 public:
  explicit Stage(Clock& clock) : clock_(clock) {}
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  // A worker begins and ends; several may be at work at a time.
  void begin() {
    const MutexLock lock(mutex_);
    if (working_++ > 0) return;
    busy_since_ns_ = clock_.monotonic_ns();
    if (first_ns_ == 0) first_ns_ = busy_since_ns_;
  }
  void end(uint64_t bytes) {
    const MutexLock lock(mutex_);
    bytes_ += bytes;
    if (--working_ == 0) busy_ns_ += clock_.monotonic_ns() - busy_since_ns_;
  }
  void add(uint64_t bytes) {
    const MutexLock lock(mutex_);
    bytes_ += bytes;
  }
  void count_system_calls(uint64_t calls) {
    const MutexLock lock(mutex_);
    system_calls_ += calls;
  }
  // Up to now.
  StageTimes times() const {
    const MutexLock lock(mutex_);
    if (first_ns_ == 0) return {};
    const int64_t now = clock_.monotonic_ns();
    const int64_t busy = busy_ns_ + (working_ > 0 ? now - busy_since_ns_ : 0);
    return {bytes_, busy, now - first_ns_ - busy, system_calls_};
  }

  // begin() and end() of a scope.
  class Work {
   public:
    explicit Work(Stage* stage) : stage_(stage) {
      if (stage_ != nullptr) stage_->begin();
    }
    ~Work() {
      if (stage_ != nullptr) stage_->end(bytes_);
    }
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    void add(uint64_t bytes) { bytes_ += bytes; }

   private:
    Stage* const stage_;
    uint64_t bytes_ = 0;
  };
  // Inside a Work: a wait that does not count as work.
  class Pause {
   public:
    explicit Pause(Stage* stage) : stage_(stage) {
      if (stage_ != nullptr) stage_->end(0);
    }
    ~Pause() {
      if (stage_ != nullptr) stage_->begin();
    }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    Stage* const stage_;
  };

 private:
  Clock& clock_;
  mutable Mutex mutex_;
  uint64_t bytes_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t busy_ns_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t first_ns_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t busy_since_ns_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t system_calls_ SLUICE_GUARDED_BY(mutex_) = 0;
  size_t working_ SLUICE_GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice

#endif  // SLUICE_BASE_STAGE_H_
