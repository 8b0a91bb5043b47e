// Runs whole clusters in simulated time, a scenario for each seed, and tells which seeds break what
// is promised:
//   simulate --seeds FROM..TO [--jobs N]    those seeds
//   simulate --hours H [--jobs N]           new seeds, for that long
//   simulate --replay SEED [--trace]        one, again
//   simulate --shrink SEED                  the fewest operations with which it still fails alike
// With --full-disks disks run full as well (scenario.h).
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/scenario_run.h"

namespace sluice::simulation {
namespace {

bool full_disks = false;

Scenario scenario_of(uint64_t seed) { return make_scenario(seed, full_disks); }

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// What makes two failures the same: the promise that is broken, or how the run ended.
std::string kind_of(const Result& result) {
  if (result.end != Result::End::kFailed) {
    return fmt::format("end {}", static_cast<int>(result.end));
  }
  return result.failure.substr(0, result.failure.find(':'));
}

void print_failure(uint64_t seed, const Result& result) {
  fmt::print("seed {} FAILS\n{}{}\nreplay: simulate --replay {} --trace\n", seed,
             describe(scenario_of(seed)), result.failure, seed);
  std::fflush(stdout);
}

struct Totals {
  uint64_t seeds = 0;
  uint64_t failed = 0;
  double simulated_s = 0;
};

double cpu_s() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// Seeds first, first + step, ... up to last, for at most so long.
Totals run_seeds(uint64_t first, uint64_t last, uint64_t step, double most_s) {
  const auto begin = Clock::now();
  Totals totals;
  for (uint64_t seed = first; seed <= last && seconds_since(begin) < most_s; seed += step) {
    const Result result = run_scenario(scenario_of(seed));
    ++totals.seeds;
    totals.simulated_s += static_cast<double>(result.simulated_ns) / 1e9;
    if (result.passed()) continue;
    ++totals.failed;
    print_failure(seed, result);
  }
  fmt::print("{} seeds, {} failed, {:.1f} s, {:.0f} ms of CPU a seed, {:.2f} simulated hours\n",
             totals.seeds, totals.failed, seconds_since(begin),
             totals.seeds == 0 ? 0 : cpu_s() * 1e3 / static_cast<double>(totals.seeds),
             totals.simulated_s / 3600);
  std::fflush(stdout);
  return totals;
}

int run_jobs(uint64_t first, uint64_t last, size_t jobs, double most_s) {
  std::vector<pid_t> children;
  for (size_t job = 0; job < jobs; ++job) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child < 0) std::abort();
    if (child == 0) {
      _exit(run_seeds(first + job, last, jobs, most_s).failed == 0 ? 0 : 1);
    }
    children.push_back(child);
  }
  int failed = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) failed = 1;
  }
  return failed;
}

int replay(uint64_t seed, bool trace) {
  const Scenario scenario = scenario_of(seed);
  fmt::print("{}", describe(scenario));
  std::fflush(stdout);
  const Result result = run_scenario(scenario, trace);
  fmt::print("{}{}hash {:016x}, {} steps, {:.1f} simulated s\n", result.output,
             result.passed() ? "passes\n" : "FAILS\n" + result.failure + "\n", result.trace_hash,
             result.steps, static_cast<double>(result.simulated_ns) / 1e9);
  return result.passed() ? 0 : 1;
}

// Leaves out operations, in ever smaller pieces, as long as it fails in the same way.
int shrink(uint64_t seed) {
  Scenario scenario = scenario_of(seed);
  const Result first = run_scenario(scenario);
  if (first.passed()) {
    fmt::print("seed {} passes\n", seed);
    return 0;
  }
  const std::string kind = kind_of(first);
  std::string failure = first.failure;
  const auto try_it = [&](const Scenario& smaller) {
    const Result result = run_scenario(smaller);
    if (result.passed() || kind_of(result) != kind) return false;
    failure = result.failure;
    scenario = smaller;
    return true;
  };
  Scenario calm = scenario;
  calm.calls = {};
  try_it(calm);
  calm = scenario;
  calm.block = {};
  try_it(calm);
  for (size_t piece = scenario.ops.size(); piece > 0; piece /= 2) {
    for (size_t at = 0; at < scenario.ops.size();) {
      Scenario smaller = scenario;
      const size_t end = std::min(at + piece, smaller.ops.size());
      smaller.ops.erase(smaller.ops.begin() + static_cast<ptrdiff_t>(at),
                        smaller.ops.begin() + static_cast<ptrdiff_t>(end));
      if (!try_it(smaller)) at += piece;
    }
  }
  Scenario fewer = scenario;
  for (fewer.writers = 1; fewer.writers < scenario.writers; ++fewer.writers) {
    if (try_it(fewer)) break;
  }
  fmt::print("{}{}\n", describe(scenario), failure);
  return 1;
}

int usage() {
  fmt::print(stderr,
             "usage: simulate --seeds FROM..TO [--jobs N] | --hours H [--jobs N] | --replay SEED "
             "[--trace] | --shrink SEED [--full-disks]\n");
  return 2;
}

int run_program(int argc, char** argv) {
  std::string mode;
  std::string value;
  size_t jobs = 1;
  bool trace = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--full-disks") {
      full_disks = true;
    } else if (argument == "--trace") {
      trace = true;
    } else if (i + 1 == argc) {
      return usage();
    } else if (argument == "--jobs") {
      jobs = std::max<size_t>(std::strtoull(argv[++i], nullptr, 10), 1);
    } else {
      mode = argument;
      value = argv[++i];
    }
  }
  const uint64_t number = std::strtoull(value.c_str(), nullptr, 10);
  if (mode == "--replay") return replay(number, trace);
  if (mode == "--shrink") return shrink(number);
  if (mode == "--hours") {
    const uint64_t first = entropy() >> 24;
    fmt::print("seeds from {}\n", first);
    return run_jobs(first, UINT64_MAX, jobs, std::strtod(value.c_str(), nullptr) * 3600);
  }
  const size_t dots = value.find("..");
  if (mode != "--seeds" || dots == std::string::npos) return usage();
  return run_jobs(number, std::strtoull(value.c_str() + dots + 2, nullptr, 10), jobs, 1e12);
}

}  // namespace
}  // namespace sluice::simulation

int main(int argc, char** argv) {
  sluice::simulation::fix_addresses(argv);
  return sluice::simulation::run_program(argc, argv);
}
