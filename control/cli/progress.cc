#include "control/cli/progress.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <utility>

#include "base/clock.h"
#include "base/guard.h"
#include "base/mutex.h"
#include "control/cli/outcome.h"
#include "control/cli/standard_streams.h"

namespace sluice {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(200);
constexpr int kBarCells = 24;
constexpr double kMostUnfinished = 0.99;

bool json_lines = false;

struct InterruptState {
  Mutex mutex;
  std::function<void()> first SLUICE_GUARDED_BY(mutex);
  std::function<void()> last SLUICE_GUARDED_BY(mutex);
  bool json SLUICE_GUARDED_BY(mutex) = false;
  bool ended SLUICE_GUARDED_BY(mutex) = false;
  std::atomic<bool> interrupted{false};
};

// Lives as long as the process: the waiting thread is never joined.
InterruptState& interrupt_state() {
  static InterruptState* const state = new InterruptState;
  return *state;
}

[[noreturn]] void end_process(bool json) {
  Outcome outcome;
  outcome.code = kExitFailed;
  outcome.error = "interrupted";
  print_outcome(outcome, json);
  _exit(kExitFailed);
}

void wait_for_signals(const sigset_t& signals) {
  InterruptState& state = interrupt_state();
  bool hung_up = false;
  while (true) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    const MutexLock lock(state.mutex);
    if (state.ended) continue;
    // The kernel and the shell both tell of a terminal that goes.
    if (signal == SIGHUP && std::exchange(hung_up, true)) continue;
    const bool first = !state.interrupted.exchange(true);
    if (!first && state.last) state.last();
    if (!first || !state.first) end_process(state.json);
    print_stderr("sluice: interrupted, stopping (once more to stop at once)\n");
    // Without memory or a thread for it: another interrupt ends the process.
    guarded("the interrupt", state.first).IgnoreError();
  }
}

}  // namespace

void ProgressBar::use_json_lines() { json_lines = true; }

ProgressBar::ProgressBar(std::function<State()> state)
    : state_(std::move(state)),
      terminal_(isatty(STDERR_FILENO) == 1),
      json_(json_lines),
      begun_ns_(system_clock().monotonic_ns()) {
  if (!terminal_ && !json_) return;
  auto thread = start_thread("the progress bar", [this] {
    MutexLock lock(mutex_);
    while (!stop_.wait_for(lock, kRedraw, [this]() SLUICE_REQUIRES(mutex_) { return stopped_; }))
      draw_locked();
  });
  if (thread.ok()) thread_ = *std::move(thread);
}

ProgressBar::~ProgressBar() {
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    stop_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  const MutexLock lock(mutex_);
  if (json_) {
    draw_json_locked();
  } else if (drawn_) {
    print_stderr("\r\x1b[K");
  }
}

void ProgressBar::finish() {
  const MutexLock lock(mutex_);
  finished_ = true;
}

ProgressBar::Shown ProgressBar::observe_locked() {
  Shown shown;
  shown.state = state_();
  const State& state = shown.state;
  const int64_t now = system_clock().monotonic_ns();
  if (!counting_ && state.total > 0) {
    counting_ = true;
    begun_ns_ = now;
    done_before_ = state.done;
  }
  const double seconds = static_cast<double>(now - begun_ns_) / 1e9;
  const uint64_t done = state.done - std::min(state.done, done_before_);
  if (seconds > 0) shown.rate = static_cast<double>(done) / seconds;
  if (state.total > 0) {
    const double share = static_cast<double>(state.done) / static_cast<double>(state.total);
    share_ = std::max(share_, std::min(share, kMostUnfinished));
  }
  shown.share = finished_ ? 1 : share_;
  if (finished_) {
    shown.seconds_left = 0;
  } else if (state.total > state.done && shown.rate > 0) {
    shown.seconds_left = static_cast<double>(state.total - state.done) / shown.rate;
  }
  return shown;
}

void ProgressBar::draw_locked() {
  if (json_) return draw_json_locked();
  const Shown shown = observe_locked();
  std::string line = shown.state.label;
  if (shown.state.total > 0) {
    const int cells = static_cast<int>(shown.share * kBarCells);
    line += fmt::format(" [{}{}] {:3.0f} %", std::string(cells, '#'),
                        std::string(kBarCells - cells, '.'), std::floor(shown.share * 100));
  }
  line += fmt::format("  {}", human_bytes(static_cast<double>(shown.state.done)));
  if (shown.state.total > 0) {
    line += fmt::format(" of {}", human_bytes(static_cast<double>(shown.state.total)));
  }
  line += fmt::format("  {}/s", human_bytes(shown.rate));
  if (shown.seconds_left >= 0) line += "  " + human_seconds(shown.seconds_left) + " left";
  print_stderr("\r\x1b[K{}", line);
  drawn_ = true;
}

void ProgressBar::draw_json_locked() {
  const Shown shown = observe_locked();
  Json line = {{"stage", shown.state.label},
               {"bytes_done", shown.state.done},
               {"bytes_total", shown.state.total},
               {"bytes_per_second", static_cast<uint64_t>(shown.rate)},
               {"percent", Json()}};
  if (shown.state.total > 0 || shown.share == 1) line["percent"] = std::floor(shown.share * 100);
  line["seconds_left"] = shown.seconds_left < 0 ? Json() : Json(shown.seconds_left);
  print_stderr("{}\n", line.dump(-1, ' ', false, Json::error_handler_t::replace));
}

void ProgressBar::note(const std::string& line) {
  const MutexLock lock(mutex_);
  if (json_) {
    const Json message = {{"message", line}};
    print_stderr("{}\n", message.dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  print_stderr("{}{}\n", drawn_ ? "\r\x1b[K" : "", line);
}

void Interrupts::begin(bool json) {
  static sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  // Of a terminal that goes, unless nohup had it ignored.
  struct sigaction hangup {};
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
    sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  {
    const MutexLock lock(interrupt_state().mutex);
    interrupt_state().json = json;
  }
  guarded_thread("waiting for signals", [] { wait_for_signals(signals); }).detach();
}

bool Interrupts::interrupted() { return interrupt_state().interrupted; }

void Interrupts::end() {
  const MutexLock lock(interrupt_state().mutex);
  interrupt_state().ended = true;
}

Interrupts::Handler::Handler(std::function<void()> first, std::function<void()> last) {
  const MutexLock lock(interrupt_state().mutex);
  interrupt_state().first = std::move(first);
  interrupt_state().last = std::move(last);
}

Interrupts::Handler::~Handler() {
  const MutexLock lock(interrupt_state().mutex);
  interrupt_state().first = nullptr;
  interrupt_state().last = nullptr;
}

}  // namespace sluice
