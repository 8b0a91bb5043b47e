// Progress on stderr, and what an interrupt (SIGINT, SIGTERM, SIGHUP) does to a running command.
#ifndef SLUICE_CONTROL_CLI_PROGRESS_H_
#define SLUICE_CONTROL_CLI_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "base/mutex.h"

namespace sluice {

// A bar with rate and remaining time, drawn a few times a second; nothing unless stderr is a
// terminal. With --json-progress, JSON lines in its place, on a terminal or not. The share done
// never goes back, and is 100 % only after finish(). Thread-safe.
class ProgressBar {
 public:
  struct State {
    uint64_t done = 0;   // bytes
    uint64_t total = 0;  // 0: not known
    std::string label;
  };
  // `state` is called on the bar's own thread.
  explicit ProgressBar(std::function<State()> state);
  // Of all bars of the process; before the first one.
  static void use_json_lines();
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // The work has come to its end.
  void finish();
  // Prints a line on stderr without tearing the bar; on a terminal or not.
  void note(const std::string& line);

 private:
  // What is shown of a state.
  struct Shown {
    State state;
    double share = 0;  // 0 to 1
    double rate = 0;   // bytes a second
    double seconds_left = -1;
  };
  Shown observe_locked() SLUICE_REQUIRES(mutex_);
  void draw_locked() SLUICE_REQUIRES(mutex_);
  void draw_json_locked() SLUICE_REQUIRES(mutex_);

  const std::function<State()> state_;
  const bool terminal_;
  const bool json_;
  Mutex mutex_;
  // Of the first state with bytes to come: what an earlier run did counts for no rate.
  int64_t begun_ns_ SLUICE_GUARDED_BY(mutex_);
  uint64_t done_before_ SLUICE_GUARDED_BY(mutex_) = 0;
  bool counting_ SLUICE_GUARDED_BY(mutex_) = false;
  double share_ SLUICE_GUARDED_BY(mutex_) = 0;
  bool finished_ SLUICE_GUARDED_BY(mutex_) = false;
  Condition stop_;
  bool stopped_ SLUICE_GUARDED_BY(mutex_) = false;
  bool drawn_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Turns SIGINT, SIGTERM and SIGHUP into one call of the running command's handler; the second one,
// or the first without a handler, ends the process with exit code 1 after saying so (as JSON too
// with
// --json). One for a process, made before any other thread.
class Interrupts {
 public:
  // Blocks the signals in this thread and all threads it makes, and starts to wait for them.
  static void begin(bool json);
  static bool interrupted();
  // From when the outcome is about to be printed: stdout is not written by anybody else any more.
  static void end();

  // While it lives, `first` is what the first signal calls, on the waiting thread, and must not
  // block. The second one ends the process, after `last`, which may finish what the first one began
  // and must return within some seconds.
  class Handler {
   public:
    explicit Handler(std::function<void()> first, std::function<void()> last = {});
    ~Handler();
    Handler(const Handler&) = delete;
    Handler& operator=(const Handler&) = delete;
  };
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_PROGRESS_H_
