#include "control/cli/progress.h"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
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

ProgressBar::ProgressBar(std::function<State()> state)
    : state_(std::move(state)),
      terminal_(isatty(STDERR_FILENO) == 1),
      begun_ns_(system_clock().monotonic_ns()) {
  if (!terminal_) return;
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
  if (drawn_) print_stderr("\r\x1b[K");
}

void ProgressBar::draw_locked() {
  const State state = state_();
  const double seconds = static_cast<double>(system_clock().monotonic_ns() - begun_ns_) / 1e9;
  const double rate = static_cast<double>(state.done) / std::max(seconds, 1e-3);
  std::string line = state.label;
  if (state.total > 0) {
    const double share =
        std::min(1.0, static_cast<double>(state.done) / static_cast<double>(state.total));
    const int cells = static_cast<int>(share * kBarCells);
    line += fmt::format(" [{}{}] {:3.0f} %", std::string(cells, '#'),
                        std::string(kBarCells - cells, '.'), share * 100);
  }
  line +=
      fmt::format("  {}  {}/s", human_bytes(static_cast<double>(state.done)), human_bytes(rate));
  if (state.total > state.done && rate > 0) {
    line += "  " + human_seconds(static_cast<double>(state.total - state.done) / rate) + " left";
  }
  print_stderr("\r\x1b[K{}", line);
  drawn_ = true;
}

void ProgressBar::note(const std::string& line) {
  const MutexLock lock(mutex_);
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
