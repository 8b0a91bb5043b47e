// Runs whole clusters in simulated time, a scenario for each seed, and tells which seeds break what
// is promised, and how often each kind of fault struck:
//   simulate --seeds FROM..TO [--jobs N]     those seeds
//   simulate --hours H [--jobs N]            new seeds, for that long
//   simulate --replay SEED|FILE [--trace]    one, again
//   simulate --shrink SEED|FILE [--out FILE] the least with which it still fails alike, as a file
//   simulate --themes                        names of themes; with --theme NAME only seeds that
//                                            have this theme are run
//   simulate --defects                       defects that can be put back (calibration.h); with
//                                            --defect NAME all of the above run with one
//   simulate --calibrate [--defect NAME] [--first SEED] [--limit N] [--jobs N] [--out FILE]
//   simulate --calibrate --table FILE        whether the seeds of a table still find their defects
// With --full-disks disks run full as well (scenario.h).
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world/calibration.h"
#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/scenario_run.h"
#include "tests/simulation/world/scenario_text.h"
#include "tests/simulation/world/shrink.h"

namespace sluice::simulation {
namespace {

constexpr size_t kMostShrinkingRuns = 1000;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Arguments {
  std::string mode;
  std::string value;
  std::string out;
  size_t jobs = 1;
  bool trace = false;
  bool full_disks = false;
  CalibrationOptions calibration;
};

// By name, over all seeds.
using Counts = std::map<std::string, uint64_t>;

void add_counts(const std::string& lines, Counts& counts) {
  std::istringstream words(lines);
  std::string word;
  std::string name;
  uint64_t number = 0;
  while (words >> word >> name >> number) counts[name] += number;
}

void print_failure(const Scenario& scenario, const Result& result, bool full_disks) {
  fmt::print("seed {} FAILS\n{}{}\nreplay: simulate --replay {} --trace{}\n", scenario.seed,
             describe(scenario), result.failure, scenario.seed, full_disks ? " --full-disks" : "");
  std::fflush(stdout);
}

// Seeds first, first + step, ... up to last, for at most so long.
Counts run_seeds(uint64_t first, uint64_t last, uint64_t step, double most_s,
                 const Arguments& arguments) {
  const bool full_disks = arguments.full_disks;
  const auto begin = Clock::now();
  Counts counts;
  for (uint64_t seed = first; seed <= last && seconds_since(begin) < most_s; seed += step) {
    const Scenario scenario = make_scenario(seed, full_disks);
    const std::string& theme = arguments.calibration.theme;
    if (!theme.empty() && scenario.theme != theme) continue;
    const Result result = run_scenario(scenario);
    ++counts["seeds"];
    counts["simulated-ms"] += static_cast<uint64_t>(result.simulated_ns / 1'000'000);
    add_counts(result.output, counts);
    if (result.passed()) continue;
    ++counts["failed"];
    print_failure(scenario, result, full_disks);
  }
  return counts;
}

// Its counts, through a pipe, from a process of its own.
FILE* start_job(const std::function<Counts()>& work) {
  int ends[2];
  std::fflush(nullptr);
  if (pipe(ends) != 0) std::abort();
  const pid_t child = fork();
  if (child < 0) std::abort();
  if (child > 0) {
    close(ends[1]);
    return fdopen(ends[0], "r");
  }
  close(ends[0]);
  std::string lines;
  for (const auto& [name, number] : work()) lines += fmt::format("count {} {}\n", name, number);
  if (write(ends[1], lines.data(), lines.size()) != static_cast<ssize_t>(lines.size())) _exit(1);
  _exit(0);
}

double cpu_s() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void print_counts(Counts counts, double seconds) {
  const auto seeds = static_cast<double>(counts["seeds"]);
  const double simulated_s = static_cast<double>(counts["simulated-ms"]) / 1e3;
  fmt::print(
      "{} seeds, {} failed, {:.1f} s: {:.1f} seeds/s, {:.0f} ms of CPU a seed, {:.2f} simulated "
      "hours, {:.0f} an hour\n",
      counts["seeds"], counts["failed"], seconds, seeds / seconds, cpu_s() * 1e3 / seeds,
      simulated_s / 3600, simulated_s / seconds);
  for (const char* const name : {"seeds", "failed", "simulated-ms"}) counts.erase(name);
  fmt::print("in 1,000 seeds:");
  for (const auto& [name, number] : counts) {
    fmt::print(" {} {:.0f}", name, static_cast<double>(number) * 1e3 / seeds);
  }
  fmt::print("\n");
}

int run_jobs(uint64_t first, uint64_t last, double most_s, const Arguments& arguments) {
  const auto begin = Clock::now();
  std::vector<FILE*> jobs;
  for (size_t job = 0; job < arguments.jobs; ++job) {
    jobs.push_back(
        start_job([&] { return run_seeds(first + job, last, arguments.jobs, most_s, arguments); }));
  }
  Counts counts;
  for (FILE* const job : jobs) {
    std::string lines;
    for (int byte = std::fgetc(job); byte != EOF; byte = std::fgetc(job)) {
      lines += static_cast<char>(byte);
    }
    std::fclose(job);
    add_counts(lines, counts);
  }
  bool died = false;
  for (size_t job = 0; job < jobs.size(); ++job) {
    int status = 0;
    wait(&status);
    died = died || status != 0;
  }
  print_counts(counts, seconds_since(begin));
  return died || counts["failed"] > 0 ? 1 : 0;
}

// Of a seed, or of a file that --shrink wrote.
Scenario scenario_named(const Arguments& arguments) {
  const bool is_seed = arguments.value.find_first_not_of("0123456789") == std::string::npos;
  if (is_seed) {
    return make_scenario(std::strtoull(arguments.value.c_str(), nullptr, 10), arguments.full_disks);
  }
  std::ifstream file(arguments.value);
  std::ostringstream text;
  text << file.rdbuf();
  const auto scenario = parse_scenario(text.str());
  if (!file || !scenario.ok()) {
    fmt::print(stderr, "{}: {}\n", arguments.value, scenario.status().ToString());
    std::exit(2);
  }
  return *scenario;
}

int replay(const Arguments& arguments) {
  const Scenario scenario = scenario_named(arguments);
  fmt::print("{}", describe(scenario));
  std::fflush(stdout);
  const Result result = run_scenario(scenario, arguments.trace);
  fmt::print("{}{}hash {:016x}, {} steps, {:.1f} simulated s\n", result.output,
             result.passed() ? "passes\n" : "FAILS\n" + result.failure + "\n", result.trace_hash,
             result.steps, static_cast<double>(result.simulated_ns) / 1e9);
  return result.passed() ? 0 : 1;
}

int shrink_one(const Arguments& arguments) {
  const Scenario scenario = scenario_named(arguments);
  const auto run = [](const Scenario& smaller) { return run_scenario(smaller); };
  const Result result = run(scenario);
  if (result.passed()) {
    fmt::print("{} passes\n", arguments.value);
    return 0;
  }
  const Shrunk shrunk = shrink(scenario, result, run, kMostShrinkingRuns);
  const std::string out =
      arguments.out.empty() ? fmt::format("{}.sim", scenario.seed) : arguments.out;
  std::ofstream file(out);
  file << scenario_text(shrunk.scenario);
  file.close();
  fmt::print("{}{}\n{} of {} operations are left after {} runs\n", describe(shrunk.scenario),
             shrunk.result.failure, shrunk.scenario.ops.size(), scenario.ops.size(), shrunk.runs);
  if (!file) {
    fmt::print(stderr, "cannot write {}: {}\n", out, std::strerror(errno));
    return 2;
  }
  fmt::print("replay: simulate --replay {} --trace\n", out);
  return 1;
}

int usage() {
  fmt::print(stderr,
             "usage: simulate --seeds FROM..TO [--jobs N] | --hours H [--jobs N] | --replay "
             "SEED|FILE [--trace] | --shrink SEED|FILE [--out FILE] | --defects | --calibrate "
             "[--defect NAME] [--first SEED] [--limit N] [--jobs N] [--out FILE] [--table FILE] | "
             "--themes; [--theme NAME] [--full-disks]\n");
  return 2;
}

bool parse(int argc, char** argv, Arguments* arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--defects" || argument == "--calibrate" || argument == "--themes") {
      arguments->mode = argument;
    } else if (argument == "--full-disks") {
      arguments->full_disks = true;
    } else if (argument == "--trace") {
      arguments->trace = true;
    } else if (i + 1 == argc) {
      return false;
    } else if (argument == "--jobs") {
      arguments->jobs = std::max<size_t>(std::strtoull(argv[++i], nullptr, 10), 1);
    } else if (argument == "--out") {
      arguments->out = argv[++i];
    } else if (argument == "--defect") {
      arguments->calibration.only = argv[++i];
    } else if (argument == "--theme") {
      arguments->calibration.theme = argv[++i];
    } else if (argument == "--first") {
      arguments->calibration.first_seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--limit") {
      arguments->calibration.limit = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--table") {
      arguments->calibration.table = argv[++i];
    } else {
      arguments->mode = argument;
      arguments->value = argv[++i];
    }
  }
  return true;
}

int run_calibration(const Arguments& arguments) {
  CalibrationOptions options = arguments.calibration;
  options.jobs = arguments.jobs;
  options.out = arguments.out;
  options.scenario_of = [&](uint64_t seed) { return make_scenario(seed, arguments.full_disks); };
  return calibrate(options);
}

bool is_theme(const std::string& name) {
  const auto names = theme_names();
  return name.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

int run_program(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, &arguments)) return usage();
  const std::string& defect = arguments.calibration.only;
  if (arguments.mode != "--calibrate" && !defect.empty() && !put_back_named(defect)) {
    fmt::print(stderr, "no defect {}, or none in this build: cmake --preset simulation\n", defect);
    return 2;
  }
  if (!is_theme(arguments.calibration.theme)) {
    fmt::print(stderr, "no theme {}: simulate --themes\n", arguments.calibration.theme);
    return 2;
  }
  if (arguments.mode == "--replay") return replay(arguments);
  if (arguments.mode == "--shrink") return shrink_one(arguments);
  if (arguments.mode == "--calibrate") return run_calibration(arguments);
  if (arguments.mode == "--defects") {
    list_defects();
    return 0;
  }
  if (arguments.mode == "--themes") {
    for (const std::string_view name : theme_names()) fmt::print("{}\n", name);
    return 0;
  }
  const char* const value = arguments.value.c_str();
  if (arguments.mode == "--hours") {
    const uint64_t first = entropy() >> 24;
    fmt::print("seeds from {}\n", first);
    return run_jobs(first, UINT64_MAX, std::strtod(value, nullptr) * 3600, arguments);
  }
  const char* const dots = std::strstr(value, "..");
  if (arguments.mode != "--seeds" || dots == nullptr) return usage();
  return run_jobs(std::strtoull(value, nullptr, 10), std::strtoull(dots + 2, nullptr, 10), 1e12,
                  arguments);
}

}  // namespace
}  // namespace sluice::simulation

int main(int argc, char** argv) {
  sluice::simulation::fix_addresses(argv);
  return sluice::simulation::run_program(argc, argv);
}
