// Runs a program of many threads one thread at a time, in an order and on a clock that a seed
// decides: the same seed, the same run. What the program is made of (std::thread, mutexes,
// condition variables, futures, std::atomic's wait, sleeps, clocks, random numbers, files below
// kRoot of mounts.h) is the code that ships; the functions of the C library under it are this
// program's own (thread_calls.cc, clock_calls.cc, file_calls.cc).
//
// Rules of the simulation:
//  1. A thread runs until it waits, or is preempted at a scheduling point: each such call is one.
//     Who is next is drawn. How often a thread is preempted at a call that need not wait is drawn
//     for each seed: never, or at one of 1000, of 50, of 4.
//  2. Time stands still but for 20 ns at each call (1 us for a yield); when all threads wait it
//     jumps to the next deadline. Where there is none, the run ends as a deadlock, with what each
//     thread waits for, holds, and its stack.
//  3. A condition variable's waiters are woken in any order, in some seeds also without reason, as
//     POSIX permits. Who unlocks a mutex may have it again before the one that it woke.
//  4. A loop that waits for another thread has to pass a scheduling point, or the run hangs until
//     the time limit of the machine's clock.
//
// Everything here but run() and Options is for code inside run().
#ifndef SLUICE_TESTS_SIMULATION_SIMULATION_H_
#define SLUICE_TESTS_SIMULATION_SIMULATION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::simulation {

struct Options {
  // Drawn where not given.
  std::optional<double> preempt;          // chance at each scheduling point
  uint64_t preempted_steps = UINT64_MAX;  // no preemption behind so many scheduling points
  std::optional<double> spuriously;  // chance that a wait for a condition variable ends at once
  int64_t time_limit_ns = int64_t{24} * 3600 * 1'000'000'000;  // of the simulated clock
  uint64_t step_limit = 2'000'000'000;                         // scheduling points
  int machine_limit_s = 120;
  int64_t wall_ms = 1'700'000'000'000;  // what wall clocks show when the run begins
  bool print_trace = false;             // trace() to stderr
};

struct Result {
  enum class End {
    kPassed,
    kFailed,  // fail()
    kDeadlock,
    kDidNotEnd,  // by the limit of time or steps
    kDied,       // by a signal
    kHung,       // by the machine's time
  };
  End end = End::kPassed;
  std::string failure;  // empty where it passed
  std::string output;   // what was handed to output()
  // Of every scheduling point, its time and its thread, and of what was handed to trace().
  uint64_t trace_hash = 0;
  uint64_t steps = 0;
  uint64_t switches = 0;
  int64_t simulated_ns = 0;
  bool passed() const { return end == End::kPassed; }
};

// Calls `main` in a simulated thread of a child process; returns when it has returned (what other
// threads still do is dropped, as at the end of a program) or the run has failed. The caller must
// be the only thread of its process.
Result run(uint64_t seed, const Options& options, const std::function<void()>& main);
// Starts the program again with its memory at the same addresses each time, unless it has been:
// containers ordered or hashed by address are then the same in every run of a seed. Also has the
// dynamic linker resolve all symbols at once. To be called first in main().
void fix_addresses(char** argv);

// Monotonic. Not a scheduling point, and takes no time.
int64_t now_ns();
// Calls it at that time (or now) on the harness's one thread for this: in the order of times, then
// of calls. A callback may wait for a lock, and those behind it wait with it; the run fails where
// that takes longer than 1 ms.
void at(int64_t time_ns, std::function<void()> callback);
// Goes into the hash of the run, with time and thread.
void trace(std::string_view text);
// For the caller of run(); at most 1 MiB in all.
void output(std::string_view text);
// Ends the run.
[[noreturn]] void fail(std::string_view why);
// What all threads wait for, hold and where they stand.
std::string describe_threads();

// While one lives on a thread, that thread is not preempted; to wait there is a failure. For
// objects of the harness that threads of several processes use: none of them is ever stopped inside
// of it.
class NoSwitch {
 public:
  NoSwitch();
  ~NoSwitch();
  NoSwitch(const NoSwitch&) = delete;
  NoSwitch& operator=(const NoSwitch&) = delete;
};

// Threads that stop, crash and see the time together: what would be a process of the operating
// system. A thread is of its creator's process; main() is of the harness's. Lives until the run
// ends.
class Process {
 public:
  static Process& make(std::string name);
  static Process& current();  // of the running thread

  virtual const std::string& name() const = 0;
  virtual int pid() const = 0;
  virtual void start(std::string thread, std::function<void()> body) = 0;
  // As SIGSTOP and SIGCONT: its threads do not run, their time goes on.
  virtual void pause() = 0;
  virtual void resume() = 0;
  // As SIGKILL: none of its threads runs again, nothing is destructed. A caller of this process is
  // stopped at its next scheduling point. What else a process has (files: file_calls.cc; calls and
  // messages: the harness) must have no effect from now on, because a thread that holds a lock
  // which threads of other processes wait for (of a library, say) goes on until it has let go. So
  // does one of a paused process.
  virtual void crash() = 0;
  virtual bool crashed() const = 0;
  // What its wall clock is ahead of the harness's; sleeps until a wall time follow it.
  virtual void set_wall_offset_ns(int64_t offset) = 0;
  virtual size_t threads() const = 0;  // that have not ended

 protected:
  ~Process() = default;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_SIMULATION_H_
