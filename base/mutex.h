// Locks that the compiler checks. What a mutex guards is declared with SLUICE_GUARDED_BY, and what
// must be called with it held with SLUICE_REQUIRES; clang then refuses a source that reads or
// writes the one, or calls the other, without it (scripts/check). Other compilers see nothing of
// it, and neither do programs: these are std::mutex, std::unique_lock and std::condition_variable.
//
//   class Counter {
//    public:
//     void add() { const MutexLock lock(mutex_); ++value_; }
//     void wait_for(int value) {
//       MutexLock lock(mutex_);
//       changed_.wait(lock, [&]() SLUICE_REQUIRES(mutex_) { return value_ >= value; });
//     }
//    private:
//     Mutex mutex_;
//     Condition changed_;
//     int value_ SLUICE_GUARDED_BY(mutex_) = 0;
//   };
//
// A lambda is checked as a function of its own: it names the mutex that its caller holds.
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#ifndef SLUICE_BASE_MUTEX_H_
#define SLUICE_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#if defined(__clang__)
#define SLUICE_THREAD_ANNOTATION_(x) __attribute__((x))
#else
#define SLUICE_THREAD_ANNOTATION_(x)
#endif

// Of a member: it is read and written with the mutex held only; of a pointer with PT_: what it
// points at.
#define SLUICE_GUARDED_BY(mutex) SLUICE_THREAD_ANNOTATION_(guarded_by(mutex))
#define SLUICE_PT_GUARDED_BY(mutex) SLUICE_THREAD_ANNOTATION_(pt_guarded_by(mutex))
// Of a function: its caller holds the mutex, or must not hold it.
#define SLUICE_REQUIRES(...) SLUICE_THREAD_ANNOTATION_(requires_capability(__VA_ARGS__))
#define SLUICE_EXCLUDES(...) SLUICE_THREAD_ANNOTATION_(locks_excluded(__VA_ARGS__))
// Of a mutex: which one is taken first where both are.
#define SLUICE_ACQUIRED_BEFORE(...) SLUICE_THREAD_ANNOTATION_(acquired_before(__VA_ARGS__))
// Of a function that takes or lets go of a mutex, and of one whose locking is beyond the analysis:
// with a comment why.
#define SLUICE_ACQUIRE(...) SLUICE_THREAD_ANNOTATION_(acquire_capability(__VA_ARGS__))
#define SLUICE_RELEASE(...) SLUICE_THREAD_ANNOTATION_(release_capability(__VA_ARGS__))
#define SLUICE_TRY_ACQUIRE(...) SLUICE_THREAD_ANNOTATION_(try_acquire_capability(__VA_ARGS__))
#define SLUICE_UNCHECKED_LOCKING SLUICE_THREAD_ANNOTATION_(no_thread_safety_analysis)
#define SLUICE_CAPABILITY_(name) SLUICE_THREAD_ANNOTATION_(capability(name))
#define SLUICE_SCOPED_CAPABILITY_ SLUICE_THREAD_ANNOTATION_(scoped_lockable)

namespace sluice {

class SLUICE_CAPABILITY_("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void lock() SLUICE_ACQUIRE() { mutex_.lock(); }
  void unlock() SLUICE_RELEASE() { mutex_.unlock(); }
  bool try_lock() SLUICE_TRY_ACQUIRE(true) { return mutex_.try_lock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds a mutex until its end, or until unlock().
class SLUICE_SCOPED_CAPABILITY_ MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) SLUICE_ACQUIRE(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() SLUICE_RELEASE() {}  // NOLINT(modernize-use-equals-default): it has an annotation
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  void lock() SLUICE_ACQUIRE() { lock_.lock(); }
  void unlock() SLUICE_RELEASE() { lock_.unlock(); }

 private:
  friend class Condition;
  std::unique_lock<std::mutex> lock_;
};

// What waits for a change of what a mutex guards. `holds` is called with the mutex held.
class Condition {
 public:
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }
  void wait(MutexLock& lock) { condition_.wait(lock.lock_); }
  template <typename Holds>
  void wait(MutexLock& lock, Holds&& holds) {
    condition_.wait(lock.lock_, std::forward<Holds>(holds));
  }
  template <typename Rep, typename Period>
  std::cv_status wait_for(MutexLock& lock, const std::chrono::duration<Rep, Period>& time) {
    return condition_.wait_for(lock.lock_, time);
  }
  // What `holds` says at the end.
  template <typename Rep, typename Period, typename Holds>
  bool wait_for(MutexLock& lock, const std::chrono::duration<Rep, Period>& time, Holds&& holds) {
    return condition_.wait_for(lock.lock_, time, std::forward<Holds>(holds));
  }

 private:
  std::condition_variable condition_;
};

}  // namespace sluice

#endif  // SLUICE_BASE_MUTEX_H_
