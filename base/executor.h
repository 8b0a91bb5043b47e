// Where work goes on when what it waited for has happened: a few threads for the whole process part
// that shares an executor, instead of one for each peer, stream or request. A piece of work never
// waits for a message, a buffer or a timer on these threads; it ends, and is woken.
//
// An Activity is such a piece of work: a state machine that is run after each wake(), by one thread
// at a time. Whoever may hold it up (a stream, a pool, a timer) gets its waker.
#ifndef SLUICE_BASE_EXECUTOR_H_
#define SLUICE_BASE_EXECUTOR_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace sluice {

// Thread-safe. Outlives the activities that run on it.
class Executor {
 public:
  class Work {
   public:
    virtual ~Work() = default;
    virtual void run() = 0;
  };
  virtual ~Executor() = default;
  // Runs it soon, never on the caller's stack.
  virtual void post(std::shared_ptr<Work> work) = 0;
  // Runs it once the clock's monotonic time is `at_ns` or later.
  virtual void post_at(int64_t at_ns, std::shared_ptr<Work> work) = 0;
  virtual Clock& clock() = 0;
};

// Threads that begin with the first work there is for them, up to `threads`. What an activity
// throws is logged and ends that run alone. When it goes, what was not begun is dropped.
std::unique_ptr<Executor> make_thread_executor(std::string name, size_t threads, Clock& clock);
// As many threads as the machine has processors: at least 2, at most 8.
size_t default_executor_threads();

// Runs everything on the thread that calls run(), in the order in which it was posted, on a clock
// that moves only when told to. Not thread-safe: all that is woken is woken from that thread.
class ManualExecutor final : public Executor {
 public:
  explicit ManualExecutor(ManualClock& clock) : clock_(clock) {}
  void post(std::shared_ptr<Work> work) override { ready_.push_back(std::move(work)); }
  void post_at(int64_t at_ns, std::shared_ptr<Work> work) override;
  Clock& clock() override { return clock_; }
  // Until nothing is ready; returns how many pieces of work ran.
  size_t run();
  // Moves the clock to the next timer and runs; false when there is none.
  bool run_next_timer();

 private:
  ManualClock& clock_;
  std::deque<std::shared_ptr<Work>> ready_;
  std::multimap<int64_t, std::shared_ptr<Work>> timers_;
};

class Activity {
 public:
  // Any thread; cheap; harmless after the activity is gone.
  using Waker = std::function<void()>;

  // `run` is called after each wake, by one thread at a time; a wake while it runs makes it run
  // once more.
  Activity(Executor& executor, std::function<void()> run);
  // Stops.
  ~Activity();
  Activity(const Activity&) = delete;
  Activity& operator=(const Activity&) = delete;

  void wake();
  // At that time, unless it is woken before and asks for another.
  void wake_at(int64_t at_ns);
  Waker waker() const;
  // After it returns `run` is not called any more. Waits for a call that is under way, unless it is
  // called from it. Idempotent.
  void stop();

 private:
  class State;
  const std::shared_ptr<State> state_;
};

}  // namespace sluice

#endif  // SLUICE_BASE_EXECUTOR_H_
