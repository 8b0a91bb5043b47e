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
#include <functional>
#include <map>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

// What a table has of a defect: the seed that found it, if one did, and the theme of those tried.
struct Recorded {
  std::optional<uint64_t> seed;
  std::string theme;
};
using Table = std::map<std::string, Recorded, std::less<>>;

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

void search(const Entry& entry, const CalibrationOptions& options, const Recorded& recorded,
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
  if (recorded.seed.has_value()) try_seed(*recorded.seed);
  const std::string& theme = options.theme.empty() ? recorded.theme : options.theme;
  uint64_t tried = 0;
  for (uint64_t seed = options.first_seed; tried < options.limit && !finding.found; ++seed) {
    if (!theme.empty() && options.scenario_of(seed).theme != theme) continue;
    ++tried;
    try_seed(seed);
  }
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

// Of a table to check: what it says was found, or is named.
bool is_wanted(const Entry& entry, const CalibrationOptions& options, const Table& table) {
  if (!options.only.empty()) return options.only == entry.name;
  if (options.table.empty()) return true;
  const auto recorded = table.find(entry.name);
  return recorded != table.end() && recorded->second.seed.has_value();
}

nlohmann::ordered_json read_table(const std::string& path) {
  std::ifstream file(path);
  auto whole = nlohmann::ordered_json::parse(file, nullptr, false);
  if (whole.is_discarded()) return nlohmann::ordered_json::object();
  return whole;
}

Table recorded_in(const std::string& path) {
  Table table;
  if (path.empty()) return table;
  const auto whole = read_table(path);
  if (!whole.contains("defects")) return table;
  for (const auto& row : whole.at("defects")) {
    Recorded& recorded = table[row.at("defect").get<std::string>()];
    if (row.contains("seed")) recorded.seed = row.at("seed").get<uint64_t>();
    if (row.contains("theme")) recorded.theme = row.at("theme").get<std::string>();
  }
  return table;
}

nlohmann::ordered_json row_of(const Entry& entry, const std::string& theme,
                              const Finding& finding) {
  nlohmann::ordered_json row;
  row["defect"] = entry.name;
  row["puts_back"] = entry.line;
  if (!theme.empty()) row["theme"] = theme;
  row["seeds"] = finding.seeds;
  if (finding.found) {
    row["seed"] = finding.seed;
    row["invariant"] = finding.invariant.data();
    row["failure"] = finding.failure.data();
  }
  row["processor_s"] = static_cast<double>(static_cast<int64_t>(finding.processor_s * 10)) / 10;
  return row;
}

// Rows of defects that were not tried stay as the file has them.
bool write_table(const CalibrationOptions& options, const Table& recorded, const Shared& shared) {
  std::map<std::string, nlohmann::ordered_json, std::less<>> before;
  if (const auto whole = read_table(options.out); whole.contains("defects")) {
    for (const auto& row : whole.at("defects")) before[row.at("defect").get<std::string>()] = row;
  }
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (size_t i = 0; i < kEntries.size(); ++i) {
    const auto old = before.find(kEntries[i].name);
    if (!is_wanted(kEntries[i], options, recorded)) {
      if (old != before.end()) rows.push_back(old->second);
      continue;
    }
    std::string theme = options.theme;
    if (const auto its = recorded.find(kEntries[i].name); theme.empty() && its != recorded.end()) {
      theme = its->second.theme;
    }
    rows.push_back(row_of(kEntries[i], theme, shared.findings[i]));
  }
  nlohmann::ordered_json table;
  table["defects"] = std::move(rows);
  std::ofstream file(options.out);
  file << table.dump(1) << "\n";
  return static_cast<bool>(file.flush());
}

// Takes defects from the list until none is left.
void work(const CalibrationOptions& options, const Table& table, Shared& shared) {
  for (size_t i = shared.next++; i < kEntries.size(); i = shared.next++) {
    if (!is_wanted(kEntries[i], options, table)) continue;
    const auto recorded = table.find(kEntries[i].name);
    search(kEntries[i], options, recorded == table.end() ? Recorded() : recorded->second,
           shared.findings[i]);
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
  const Table recorded = recorded_in(options.table);
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
  if (!options.out.empty() && !write_table(options, recorded, shared)) {
    fmt::print(stderr, "cannot write {}\n", options.out);
    return 2;
  }
  return found == wanted ? 0 : 1;
}

}  // namespace sluice::simulation
