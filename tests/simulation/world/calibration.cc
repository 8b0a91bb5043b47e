#include "tests/simulation/world/calibration.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "base/defect.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world/scenario_run.h"

namespace sluice::simulation {
namespace {

struct Entry {
  Defect defect;
  std::string_view name;
  std::string_view line;
};

#define SLUICE_DEFECT_ENTRY(name, line) \
  Entry{Defect::name, std::string_view(#name).substr(1), line},
constexpr std::array kEntries = {SLUICE_DEFECT_LIST(SLUICE_DEFECT_ENTRY)};
#undef SLUICE_DEFECT_ENTRY

// In memory that the processes share.
struct Finding {
  std::array<char, 400> failure;
  std::array<char, 32> invariant;
  uint64_t seed;
  uint64_t seeds;  // that were run
  uint64_t failing_anyway;
  double processor_s;
  bool found;
};
struct Shared {
  std::atomic<size_t> next;
  std::array<Finding, kEntries.size()> findings;
};

double processor_s() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

template <size_t kSize>
void keep(std::string_view text, std::array<char, kSize>& to) {
  const size_t bytes = std::min(text.size(), kSize - 1);
  std::memcpy(to.data(), text.data(), bytes);
  to[bytes] = '\0';
}

std::string invariant_of(const Result& result) {
  switch (result.end) {
    case Result::End::kPassed:
      return "";
    case Result::End::kFailed:
      return result.failure.substr(0, result.failure.find(':'));
    case Result::End::kDeadlock:
      return "deadlock";
    case Result::End::kDidNotEnd:
      return "did not end";
    case Result::End::kDied:
      return "died";
    case Result::End::kHung:
      return "hung";
  }
  return "";
}

// The run of a seed with the defect, where that fails and the one without it does not.
std::optional<Result> find(Defect defect, const Scenario& scenario, Finding& finding) {
  put_back(defect);
  Result result = run_scenario(scenario);
  put_back(Defect::kNone);
  ++finding.seeds;
  if (result.passed()) return std::nullopt;
  if (run_scenario(scenario).passed()) return result;
  ++finding.failing_anyway;
  return std::nullopt;
}

void search(const Entry& entry, const CalibrationOptions& options, std::optional<uint64_t> recorded,
            Finding& finding) {
  const double before_s = processor_s();
  const auto try_seed = [&](uint64_t seed) {
    const auto result = find(entry.defect, options.scenario_of(seed), finding);
    if (!result.has_value()) return;
    finding.found = true;
    finding.seed = seed;
    keep(result->failure.substr(0, result->failure.find('\n')), finding.failure);
    keep(invariant_of(*result), finding.invariant);
  };
  if (recorded.has_value()) try_seed(*recorded);
  for (uint64_t i = 0; i < options.limit && !finding.found; ++i) try_seed(options.first_seed + i);
  finding.processor_s = processor_s() - before_s;
}

void print(const Entry& entry, const Finding& finding) {
  if (finding.found) {
    fmt::print("{}: seed {} of {}, {:.1f} s: {}\n", entry.name, finding.seed, finding.seeds,
               finding.processor_s, finding.failure.data());
  } else {
    fmt::print("{}: NOT FOUND by {} seeds, {:.1f} s\n", entry.name, finding.seeds,
               finding.processor_s);
  }
  if (finding.failing_anyway > 0) {
    fmt::print("{}: {} seeds fail without it as well\n", entry.name, finding.failing_anyway);
  }
  std::fflush(stdout);
}

bool is_wanted(const Entry& entry, const CalibrationOptions& options,
               const nlohmann::json& recorded) {
  if (!options.only.empty() && options.only != entry.name) return false;
  return options.table.empty() || recorded.contains(std::string(entry.name));
}

// The seeds of a table, by the names of the defects that were found.
nlohmann::json seeds_of(const std::string& table) {
  nlohmann::json seeds = nlohmann::json::object();
  if (table.empty()) return seeds;
  std::ifstream file(table);
  const auto whole = nlohmann::json::parse(file, nullptr, false);
  if (whole.is_discarded()) return seeds;
  for (const auto& row : whole.at("defects")) {
    if (row.contains("seed")) seeds[row.at("defect").get<std::string>()] = row.at("seed");
  }
  return seeds;
}

bool write_table(const CalibrationOptions& options, const Shared& shared) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (size_t i = 0; i < kEntries.size(); ++i) {
    if (!is_wanted(kEntries[i], options, {})) continue;
    const Finding& finding = shared.findings[i];
    nlohmann::ordered_json row;
    row["defect"] = kEntries[i].name;
    row["puts_back"] = kEntries[i].line;
    row["seeds"] = finding.seeds;
    if (finding.found) {
      row["seed"] = finding.seed;
      row["invariant"] = finding.invariant.data();
      row["failure"] = finding.failure.data();
    }
    row["processor_s"] = static_cast<double>(static_cast<int64_t>(finding.processor_s * 10)) / 10;
    rows.push_back(std::move(row));
  }
  nlohmann::ordered_json table;
  table["first_seed"] = options.first_seed;
  table["limit"] = options.limit;
  table["defects"] = std::move(rows);
  std::ofstream file(options.out);
  file << table.dump(1) << "\n";
  return static_cast<bool>(file.flush());
}

// Takes defects from the list until none is left.
void work(const CalibrationOptions& options, const nlohmann::json& recorded, Shared& shared) {
  for (size_t i = shared.next++; i < kEntries.size(); i = shared.next++) {
    if (!is_wanted(kEntries[i], options, recorded)) continue;
    std::optional<uint64_t> seed;
    const std::string name(kEntries[i].name);
    if (recorded.contains(name)) seed = recorded.at(name).get<uint64_t>();
    search(kEntries[i], options, seed, shared.findings[i]);
    print(kEntries[i], shared.findings[i]);
  }
}

}  // namespace

void list_defects() {
  for (const Entry& entry : kEntries) fmt::print("{:<26} {}\n", entry.name, entry.line);
}

bool put_back_named(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name != name) continue;
    put_back(entry.defect);
    return kHasDefects;
  }
  return false;
}

int calibrate(const CalibrationOptions& options) {
  if (!kHasDefects) {
    fmt::print(stderr, "no defects in this build: cmake --preset simulation\n");
    return 2;
  }
  const nlohmann::json recorded = seeds_of(options.table);
  const size_t wanted =
      static_cast<size_t>(std::count_if(kEntries.begin(), kEntries.end(), [&](const Entry& entry) {
        return is_wanted(entry, options, recorded);
      }));
  if (wanted == 0) {
    fmt::print(stderr, "no such defect, or an unreadable table\n");
    return 2;
  }
  void* const memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  auto& shared = *new (memory) Shared();
  std::vector<pid_t> children;
  for (size_t job = 0; job < options.jobs; ++job) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child < 0) std::abort();
    if (child == 0) {
      work(options, recorded, shared);
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  const auto found =
      static_cast<size_t>(std::count_if(shared.findings.begin(), shared.findings.end(),
                                        [](const Finding& finding) { return finding.found; }));
  fmt::print("{} of {} defects found\n", found, wanted);
  if (!options.out.empty() && !write_table(options, shared)) {
    fmt::print(stderr, "cannot write {}\n", options.out);
    return 2;
  }
  return found == wanted ? 0 : 1;
}

}  // namespace sluice::simulation
