#include "tests/simulation/simulation.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/simulation/heap.h"
#include "tests/simulation/scheduler.h"

namespace sluice::simulation {
namespace {

constexpr size_t kPreparedFibers = 320;  // more than most runs need at a time
constexpr int kReportGraceMs = 5'000;

// A child that died or hangs tells where.
void tell_and_exit(int signal) {
  // Once: what follows may fail in the same way.
  std::signal(signal, SIG_DFL);
  Scheduler* const scheduler = Scheduler::active();
  if (scheduler == nullptr) return;
  const bool hangs = signal == SIGALRM;
  scheduler->finish(
      hangs ? Result::End::kHung : Result::End::kDied,
      fmt::format("{} {}\n{}", hangs ? "does not come to a scheduling point:" : "ended by signal",
                  hangs ? "" : strsignal(signal), scheduler->describe_threads()));
}

void tell_of_signals() {
  constexpr size_t kStackBytes = size_t{256} << 10;
  stack_t stack{};
  stack.ss_sp =
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack.ss_size = kStackBytes;
  if (stack.ss_sp == MAP_FAILED) std::abort();
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_handler = tell_and_exit;
  action.sa_flags = SA_ONSTACK | SA_NODEFER;
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM}) {
    sigaction(signal, &action, nullptr);
  }
}

// False when it has not ended by then.
bool ended_within(int child, int milliseconds) {
  pollfd wait{child, POLLIN, 0};
  return poll(&wait, 1, milliseconds) == 1;
}

Result result_of(const Scheduler::Report& report, bool hung, int status) {
  Result result;
  result.output.assign(report.output.data(), report.output_bytes);
  result.trace_hash = report.trace_hash;
  result.steps = report.steps;
  result.switches = report.switches;
  result.simulated_ns = report.simulated_ns;
  if (report.finished) {
    result.end = report.end;
    result.failure.assign(report.failure.data(), report.failure_bytes);
  } else if (hung) {
    result.end = Result::End::kHung;
    result.failure = "does not come to a scheduling point, nor answers a signal";
  } else {
    result.end = Result::End::kDied;
    result.failure = WIFSIGNALED(status)
                         ? fmt::format("ended by signal {}", strsignal(WTERMSIG(status)))
                         : fmt::format("ended by exit code {}", WEXITSTATUS(status));
  }
  return result;
}

}  // namespace

Result run(uint64_t seed, const Options& options, const std::function<void()>& main) {
  Scheduler::prepare(kPreparedFibers);
  void* const memory = mmap(nullptr, sizeof(Scheduler::Report), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  auto* const report = static_cast<Scheduler::Report*>(memory);
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) std::abort();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    tell_of_signals();
    begin_heap();
    Scheduler::begin(seed, options, main, *report);
  }
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  if (handle < 0) std::abort();
  bool hung = false;
  if (!ended_within(handle, options.machine_limit_s * 1000)) {
    hung = true;
    kill(child, SIGALRM);
    if (!ended_within(handle, kReportGraceMs)) kill(child, SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  close(handle);
  const Result result = result_of(*report, hung, status);
  munmap(memory, sizeof(Scheduler::Report));
  return result;
}

void fix_addresses(char** argv) {
  const int before = personality(0xffffffff);
  if (before < 0) return;
  if ((before & ADDR_NO_RANDOMIZE) != 0 && getenv("LD_BIND_NOW") != nullptr) return;
  if (personality(static_cast<unsigned>(before | ADDR_NO_RANDOMIZE)) < 0) return;
  // A run is a child process: symbols are to be resolved once, in its parent, those of the shared
  // libraries too.
  setenv("LD_BIND_NOW", "1", /*overwrite=*/1);
  execv("/proc/self/exe", argv);
  std::perror("starting the program again");
  std::abort();
}

int64_t now_ns() { return Scheduler::active()->now_ns(); }

void at(int64_t time_ns, std::function<void()> callback) {
  Scheduler::active()->at(time_ns, std::move(callback));
}

void trace(std::string_view text) { Scheduler::active()->trace(text); }

void output(std::string_view text) { Scheduler::active()->output(text); }

void fail(std::string_view why) { Scheduler::active()->finish(Result::End::kFailed, why); }

std::string describe_threads() { return Scheduler::active()->describe_threads(); }

NoSwitch::NoSwitch() { ++Scheduler::active()->current().no_switch; }

NoSwitch::~NoSwitch() { --Scheduler::active()->current().no_switch; }

Process& Process::make(std::string name) {
  return Scheduler::active()->make_process(std::move(name));
}

Process& Process::current() { return *Scheduler::active()->current().process; }

}  // namespace sluice::simulation
