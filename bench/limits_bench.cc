// What bounds this machine, each thing measured once, as JSON on stdout; `bench/run limits` runs it
// again and again and takes medians. It pins itself to as many processors as it is told to use.
//
//   limits_bench --dir DIR [--cores N] [--scale X] [--values 100,4096,1048576] [--only NAME,...]
#include <sched.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/limits/limits.h"

namespace sluice::limits {
namespace {

const std::vector<std::string> kNames = {"memory", "disk", "loopback", "tables", "write_batch"};

// To the first `count` of the processors that this process may use; before any other thread runs.
void pin(size_t count) {
  cpu_set_t allowed;
  require(sched_getaffinity(0, sizeof allowed, &allowed) == 0, "sched_getaffinity");
  if (static_cast<size_t>(CPU_COUNT(&allowed)) < count) {
    die("--cores " + std::to_string(count) + ": there are " + std::to_string(CPU_COUNT(&allowed)));
  }
  cpu_set_t chosen;
  CPU_ZERO(&chosen);
  for (int cpu = 0; static_cast<size_t>(CPU_COUNT(&chosen)) < count; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) CPU_SET(cpu, &chosen);
  }
  require(sched_setaffinity(0, sizeof chosen, &chosen) == 0, "sched_setaffinity");
}

std::vector<Sample> measure(const Settings& settings, const std::vector<size_t>& values,
                            const std::vector<std::string>& only) {
  std::vector<Sample> samples;
  const auto wanted = [&](const char* name) {
    return only.empty() || std::find(only.begin(), only.end(), name) != only.end();
  };
  const auto add = [&](std::vector<Sample> more) {
    samples.insert(samples.end(), more.begin(), more.end());
  };
  if (wanted("memory")) add(measure_memory(settings, values));
  if (wanted("disk")) add(measure_disk(settings));
  if (wanted("loopback")) add(measure_loopback(settings));
  for (const size_t value_bytes : values) {
    if (wanted("tables")) add(measure_tables(settings, value_bytes));
    if (wanted("write_batch")) add(measure_write_batches(settings, value_bytes));
  }
  return samples;
}

int run(int argc, char** argv) {
  CLI::App app("What bounds this machine");
  Settings settings;
  std::vector<size_t> values = {100, 4096, size_t{1} << 20};
  std::vector<std::string> only;
  app.add_option("--dir", settings.directory, "Existing; on the disk to measure")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--cores", settings.threads, "Processors, and threads")->check(CLI::Range(1, 256));
  app.add_option("--scale", settings.scale, "Of bytes and seconds")->check(CLI::Range(0.001, 100.));
  app.add_option("--values", values, "Bytes of values")
      ->delimiter(',')
      ->check(CLI::Range(size_t{1}, size_t{64} << 20));
  app.add_option("--only", only, "What to measure")->delimiter(',')->check(CLI::IsMember(kNames));
  CLI11_PARSE(app, argc, argv);
  pin(settings.threads);
  nlohmann::json limits = nlohmann::json::array();
  for (const Sample& sample : measure(settings, values, only)) {
    limits.push_back({{"name", sample.name},
                      {"value_bytes", sample.value_bytes},
                      {"bytes", sample.bytes},
                      {"seconds", sample.seconds},
                      {"core_s", sample.core_s}});
  }
  std::printf("%s\n",
              nlohmann::json({{"cores", settings.threads}, {"limits", limits}}).dump().c_str());
  return 0;
}

}  // namespace
}  // namespace sluice::limits

int main(int argc, char** argv) { return sluice::limits::run(argc, argv); }
