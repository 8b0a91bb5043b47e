// Which simulated thread runs, and when: the part of simulation.h that the functions in the C
// library's place are made of. One for a child process, from begin() on.
//
// Nothing here may call a function that thread_calls.cc or clock_calls.cc define.
#ifndef SLUICE_TESTS_SIMULATION_SCHEDULER_H_
#define SLUICE_TESTS_SIMULATION_SCHEDULER_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/random.h"
#include "tests/simulation/fiber.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {

struct Thread;
class ProcessImpl;

// What a thread waits for.
enum class Wait : uint8_t {
  kMutex,
  kReadLock,
  kWriteLock,
  kCondition,
  kFutex,
  kOnce,
  kJoin,
  kTime
};

struct Deadline {
  static constexpr int64_t kNever = INT64_MAX;
  int64_t ns = kNever;
  bool wall = false;  // by the wall clock of the thread's process
  bool never() const { return ns == kNever; }
};

struct Thread {
  enum class State : uint8_t { kReady, kWaiting, kEnded };
  uint32_t number = 0;  // from 1; main()'s
  std::string name;
  ProcessImpl* process = nullptr;
  Fiber* fiber = nullptr;
  void* (*start)(void*) = nullptr;
  void* argument = nullptr;
  void* result = nullptr;
  State state = State::kReady;
  bool begun = false;
  bool detached = false;
  bool woken = false;   // not by its deadline
  bool needed = false;  // though its process is stopped: it holds what another one waits for
  uint64_t waits = 0;   // counts: what the deadlines' queue holds of earlier ones is void
  Wait wait = Wait::kTime;
  const void* waits_for = nullptr;
  Deadline deadline;
  uint32_t no_switch = 0;
  std::vector<const void*> held;  // locks, and initialisations that it is in
  std::vector<std::pair<void (*)(void*), void*>> destructors;  // of thread_local variables
};

class ProcessImpl final : public Process {
 public:
  ProcessImpl(std::string name, int pid, uint64_t seed)
      : entropy(seed), name_(std::move(name)), pid_(pid) {}
  const std::string& name() const override { return name_; }
  int pid() const override { return pid_; }
  void start(std::string thread, std::function<void()> body) override;
  void pause() override;
  void resume() override;
  void crash() override;
  bool crashed() const override { return crashed_; }
  void set_wall_offset_ns(int64_t offset) override;
  size_t threads() const override { return living; }

  bool stopped() const { return paused_ || crashed_; }
  int64_t wall_offset_ns() const { return wall_offset_ns_; }

  Random entropy;               // what its threads draw from the operating system
  std::vector<Thread*> parked;  // ready, but stopped
  size_t living = 0;

 private:
  const std::string name_;
  const int pid_;
  bool paused_ = false;
  bool crashed_ = false;
  int64_t wall_offset_ns_ = 0;
};

class Scheduler {
 public:
  // Where a run's results go: memory shared with the parent.
  struct Report;

  // Null outside of a run.
  static Scheduler* active() { return active_; }
  // Fibers that children will find made.
  static void prepare(size_t fibers);
  [[noreturn]] static void begin(uint64_t seed, const Options& options,
                                 const std::function<void()>& main, Report& report);

  Thread& current() { return *current_; }
  int64_t now_ns() const { return now_ns_; }
  int64_t wall_ns(const ProcessImpl& process) const {
    return now_ns_ - kStartNs + start_wall_ns_ + process.wall_offset_ns();
  }

  // A scheduling point.
  void step(int64_t takes_ns = kStepNs);
  // Lets others run first, if there are any.
  void yield();
  // False when the deadline was first.
  bool wait(Wait kind, const void* address, Deadline deadline = {});
  // Up to `most` of those that wait for the address, drawn; returns how many.
  size_t wake(const void* address, size_t most);
  bool anybody_waits_for(const void* address) const;
  // What the running thread holds, to be told and, where it is stopped, to be finished with.
  void hold(const void* address);
  void let_go(const void* address);
  // Whether a wait for a condition variable is to end without reason.
  bool wakes_spuriously() { return spuriously_ > 0 && random_.chance(spuriously_); }

  Thread& start_thread(ProcessImpl& process, std::string name, void* (*start)(void*),
                       void* argument);
  [[noreturn]] void end_current(void* result);
  // Null for a handle that is not a thread's.
  Thread* thread_of(pthread_t handle);
  // Of an ended one: its handle may be used again.
  void forget(Thread& thread);

  ProcessImpl& make_process(std::string name);
  ProcessImpl& harness() { return *processes_.front(); }
  // What stopping and resuming a process, and setting its clock, have to do here.
  void stopped(ProcessImpl& process);
  void resumed(ProcessImpl& process);
  void clock_was_set(const ProcessImpl& process);
  void at(int64_t time_ns, std::function<void()> callback);

  void mix(uint64_t value) {
    hash_ = (hash_ ^ value) * 0x9fb21c651e98df25;
    hash_ ^= hash_ >> 32;
  }
  void trace(std::string_view text);
  void output(std::string_view text);
  [[noreturn]] void finish(Result::End end, std::string_view why);
  std::string describe_threads();

 private:
  static constexpr int64_t kStepNs = 20;
  static constexpr int64_t kStartNs = int64_t{1000} * 1'000'000'000;
  static constexpr int64_t kLongestEventNs = 1'000'000;
  static constexpr size_t kBuckets = 1024;
  // Then those are dropped that ended otherwise: more than there are threads.
  static constexpr size_t kMostDue = 4096;

  struct Due {
    int64_t ns;
    uint64_t number;  // of two at the same time the earlier is first
    Thread* thread;
    uint64_t wait;
    bool operator>(const Due& other) const {
      return ns != other.ns ? ns > other.ns : number > other.number;
    }
  };
  // The first one on top.
  class DueQueue : public std::priority_queue<Due, std::vector<Due>, std::greater<>> {
   public:
    void drop(bool (*is_void)(const Due&)) {
      std::erase_if(c, is_void);
      std::make_heap(c.begin(), c.end(), comp);
    }
  };

  Scheduler(uint64_t seed, const Options& options, Report& report);
  static void run_fiber(void* thread);

  bool may_run(const Thread& thread) const { return !thread.process->stopped() || thread.needed; }
  void make_ready(Thread& thread);
  void set_due(Thread& thread);
  void stop_waiting(Thread& thread, bool woken);
  void wake_due();
  // Runs another thread (or this one) until this one is chosen again.
  void switch_away();
  Thread& choose();
  void advance_to_next_due();
  void go_to(Thread& next);
  // Lets stopped threads go on that hold what `thread` waits for.
  void need_holders(const Thread& thread);
  bool is_event_held_up(int64_t until_ns) const;
  void run_events();
  std::string describe(const Thread& thread) const;
  std::string stack_of(Thread& thread);

  static Scheduler* active_;
  static std::vector<Fiber*> prepared_;

  const Options options_;
  Report& report_;
  Random random_;
  double preempt_ = 0;
  double spuriously_ = 0;
  const uint64_t entropy_seed_;
  const int64_t start_wall_ns_;
  int64_t now_ns_ = kStartNs;
  uint64_t steps_ = 0;
  uint64_t switches_ = 0;
  uint64_t hash_ = 0;
  Fiber* root_ = nullptr;
  Thread* current_ = nullptr;
  std::vector<Thread*> ready_;
  std::array<std::vector<Thread*>, kBuckets> waiting_;  // by address
  DueQueue due_;
  uint64_t dues_ = 0;
  std::vector<std::unique_ptr<Thread>> threads_;  // all that ever were, by number
  std::unordered_map<pthread_t, Thread*> by_handle_;
  std::vector<Fiber*> free_;
  std::deque<std::unique_ptr<ProcessImpl>> processes_;
  // Threads of stopped processes that held something when they were stopped, or do since.
  std::vector<Thread*> stopped_holders_;
  std::multimap<int64_t, std::function<void()>> events_;
  Thread* events_thread_ = nullptr;
  // While the stacks of others are looked at: whose turn it is again.
  Thread* looking_ = nullptr;
  std::string stack_;
};

struct Scheduler::Report {
  static constexpr size_t kTextBytes = size_t{1} << 20;
  bool finished;
  Result::End end;
  uint64_t trace_hash;
  uint64_t steps;
  uint64_t switches;
  int64_t simulated_ns;
  size_t failure_bytes;
  size_t output_bytes;
  std::array<char, kTextBytes> failure;
  std::array<char, kTextBytes> output;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_SCHEDULER_H_
