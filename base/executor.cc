#include "base/executor.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "base/guard.h"
#include "base/mutex.h"

namespace sluice {
namespace {

class ThreadExecutor final : public Executor {
 public:
  ThreadExecutor(std::string name, size_t threads, Clock& clock)
      : name_(std::move(name)), most_(std::max<size_t>(threads, 1)), clock_(clock) {}

  ~ThreadExecutor() override {
    std::deque<std::shared_ptr<Work>> ready;
    Timers timers;
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
      ready.swap(ready_);
      timers.swap(timers_);
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void post(std::shared_ptr<Work> work) override {
    {
      const MutexLock lock(mutex_);
      if (stopping_) return;
      ready_.push_back(std::move(work));
      start_thread_locked();
    }
    changed_.notify_one();
  }

  void post_at(int64_t at_ns, std::shared_ptr<Work> work) override {
    {
      const MutexLock lock(mutex_);
      if (stopping_) return;
      timers_.emplace(at_ns, std::move(work));
      start_thread_locked();
    }
    changed_.notify_one();
  }

  Clock& clock() override { return clock_; }

 private:
  using Timers = std::multimap<int64_t, std::shared_ptr<Work>>;

  // One more where all are busy. Without a thread to be had, those that there are do the work.
  void start_thread_locked() SLUICE_REQUIRES(mutex_) {
    if (idle_ > 0 || threads_.size() >= most_) return;
    auto thread = start_thread(name_, [this] { run(); });
    if (thread.ok()) threads_.push_back(*std::move(thread));
  }

  // Whether somebody wakes up when the next timer is due.
  bool timer_watched_locked() const SLUICE_REQUIRES(mutex_) {
    return timers_.empty() || (!watched_.empty() && *watched_.begin() <= timers_.begin()->first);
  }

  void run() {
    MutexLock lock(mutex_);
    while (!stopping_) {
      const int64_t now = timers_.empty() ? 0 : clock_.monotonic_ns();
      while (!timers_.empty() && timers_.begin()->first <= now) {
        ready_.push_back(std::move(timers_.begin()->second));
        timers_.erase(timers_.begin());
      }
      if (!ready_.empty()) {
        const std::shared_ptr<Work> work = std::move(ready_.front());
        ready_.pop_front();
        // Somebody else is to see to the rest, and to the timers.
        if (idle_ == 0) {
          if (!ready_.empty()) start_thread_locked();
        } else if (!ready_.empty() || !timer_watched_locked()) {
          changed_.notify_one();
        }
        lock.unlock();
        // What it threw was logged.
        (void)guarded(name_, [&] { work->run(); });
        lock.lock();
        continue;
      }
      ++idle_;
      if (timers_.empty()) {
        changed_.wait(lock);
      } else {
        const auto watched = watched_.insert(timers_.begin()->first);
        changed_.wait_for(lock, std::chrono::nanoseconds(*watched - now));
        watched_.erase(watched);
      }
      --idle_;
    }
  }

  const std::string name_;
  const size_t most_;
  Clock& clock_;
  Mutex mutex_;
  Condition changed_;
  std::deque<std::shared_ptr<Work>> ready_ SLUICE_GUARDED_BY(mutex_);
  Timers timers_ SLUICE_GUARDED_BY(mutex_);
  std::multiset<int64_t> watched_ SLUICE_GUARDED_BY(mutex_);  // the times until which threads wait
  std::vector<std::thread> threads_ SLUICE_GUARDED_BY(mutex_);
  size_t idle_ SLUICE_GUARDED_BY(mutex_) = 0;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<Executor> make_thread_executor(std::string name, size_t threads, Clock& clock) {
  return std::make_unique<ThreadExecutor>(std::move(name), threads, clock);
}

size_t default_executor_threads() {
  return std::clamp<size_t>(std::thread::hardware_concurrency(), 2, 8);
}

void ManualExecutor::post_at(int64_t at_ns, std::shared_ptr<Work> work) {
  timers_.emplace(at_ns, std::move(work));
}

size_t ManualExecutor::run() {
  size_t count = 0;
  for (;;) {
    while (!timers_.empty() && timers_.begin()->first <= clock_.monotonic_ns()) {
      ready_.push_back(std::move(timers_.begin()->second));
      timers_.erase(timers_.begin());
    }
    if (ready_.empty()) return count;
    const std::shared_ptr<Work> work = std::move(ready_.front());
    ready_.pop_front();
    work->run();
    ++count;
  }
}

bool ManualExecutor::run_next_timer() {
  if (timers_.empty()) return false;
  clock_.advance_ns(std::max<int64_t>(timers_.begin()->first - clock_.monotonic_ns(), 0));
  run();
  return true;
}

class Activity::State final : public Executor::Work,
                              public std::enable_shared_from_this<Activity::State> {
 public:
  State(Executor& executor, std::function<void()> run)
      : executor_(executor), run_(std::move(run)) {}

  void wake() {
    {
      const MutexLock lock(mutex_);
      if (stopped_ || woken_) return;
      woken_ = true;
      if (running_) return;  // it is posted again when this run ends
    }
    executor_.post(shared_from_this());
  }

  void wake_at(int64_t at_ns) {
    {
      const MutexLock lock(mutex_);
      if (stopped_ || (timer_ns_ != 0 && timer_ns_ <= at_ns)) return;
      timer_ns_ = at_ns;
    }
    executor_.post_at(at_ns, std::make_shared<Timer>(weak_from_this(), at_ns));
  }

  void run() override {
    {
      const MutexLock lock(mutex_);
      if (stopped_) return;
      woken_ = false;
      running_ = true;
      runner_ = std::this_thread::get_id();
    }
    // What it threw was logged; it is run again when it is woken.
    (void)guarded("an activity", run_);
    bool again = false;
    {
      const MutexLock lock(mutex_);
      running_ = false;
      again = woken_ && !stopped_;
      // Under the lock: who waits for it may let go of this right after.
      ended_.notify_all();
    }
    if (again) executor_.post(shared_from_this());
  }

  void stop() {
    MutexLock lock(mutex_);
    stopped_ = true;
    if (running_ && runner_ == std::this_thread::get_id()) return;
    ended_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return !running_; });
  }

 private:
  class Timer final : public Executor::Work {
   public:
    Timer(std::weak_ptr<State> state, int64_t at_ns) : state_(std::move(state)), at_ns_(at_ns) {}
    void run() override {
      const std::shared_ptr<State> state = state_.lock();
      if (state == nullptr) return;
      {
        const MutexLock lock(state->mutex_);
        if (state->timer_ns_ == at_ns_) state->timer_ns_ = 0;
      }
      state->wake();
    }

   private:
    const std::weak_ptr<State> state_;
    const int64_t at_ns_;
  };

  Executor& executor_;
  const std::function<void()> run_;
  Mutex mutex_;
  Condition ended_;
  bool woken_ SLUICE_GUARDED_BY(mutex_) = false;  // posted, or to be posted when the run ends
  bool running_ SLUICE_GUARDED_BY(mutex_) = false;
  bool stopped_ SLUICE_GUARDED_BY(mutex_) = false;
  int64_t timer_ns_ SLUICE_GUARDED_BY(mutex_) = 0;  // the earliest that is set; 0: none
  std::thread::id runner_ SLUICE_GUARDED_BY(mutex_);
};

Activity::Activity(Executor& executor, std::function<void()> run)
    : state_(std::make_shared<State>(executor, std::move(run))) {}
Activity::~Activity() { stop(); }
void Activity::wake() { state_->wake(); }
void Activity::wake_at(int64_t at_ns) { state_->wake_at(at_ns); }
void Activity::stop() { state_->stop(); }
Activity::Waker Activity::waker() const {
  return [state = state_] { state->wake(); };
}

}  // namespace sluice
