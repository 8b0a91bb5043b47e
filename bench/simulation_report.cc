// One backup of a large cluster on virtual time, for bench/run simulation: with nodes' work taken
// over by others, and without.
//
//   simulation_report [--nodes N] [--racks N] [--slot-bits B] [--slow SHARE] [--slow-rate X]
//                     [--dead SHARE] [--lose-rack] [--static]
//
// Prints what came of it as JSON.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "bench/simulation/simulation.h"

namespace sluice {
namespace {

nlohmann::json json_of(const SimulationResult& result) {
  return {{"nodes", result.nodes},
          {"slow", result.slow},
          {"dead", result.dead},
          {"planned_s", result.planned_s},
          {"death_s", result.death_s},
          {"seconds", result.seconds},
          {"ideal_s", result.ideal_s},
          {"rest_s", result.rest_s},
          {"ideal_rest_s", result.ideal_rest_s},
          {"lost", result.lost},
          {"needed_bytes", result.needed_bytes},
          {"sent_twice_bytes", result.sent_twice_bytes},
          {"given_up_bytes", result.given_up_bytes},
          {"lost_with_targets_bytes", result.lost_with_targets_bytes},
          {"given_up_durable_bytes", result.given_up_durable_bytes},
          {"plans", result.plans},
          {"rebalances", result.rebalances},
          {"plan_chunks", result.plan_chunks},
          {"plan_bytes", result.plan_bytes},
          {"head_bytes", result.head_bytes},
          {"coordinator_memory_bytes", result.coordinator_memory_bytes},
          {"node_reads_bytes", result.node_reads_bytes},
          {"block_read_bytes", result.block_read_bytes},
          {"plans_told_bytes", result.plans_told_bytes},
          {"block_written_bytes", result.block_written_bytes},
          {"block_commits", result.block_commits},
          {"most_streams", result.most_streams},
          {"done", result.done}};
}

int run(int argc, char** argv) {
  CLI::App app("One backup of a large cluster on virtual time");
  SimulationSettings settings;
  settings.cluster.largest_slot = uint64_t{96} << 30;
  bool is_static = false;
  add_options(app, settings.cluster);
  app.add_option("--slow", settings.slow_share, "Share of the nodes")->check(CLI::Range(0., 1.));
  app.add_option("--slow-rate", settings.slow_rate, "Of what they promise")
      ->check(CLI::Range(0.001, 1.));
  app.add_option("--dead", settings.dead_share, "Share of the nodes")->check(CLI::Range(0., 0.5));
  app.add_flag("--lose-rack", settings.lose_rack, "The nodes of one rack die");
  app.add_flag("--static", is_static, "Slow nodes keep what the first plan gave them");
  CLI11_PARSE(app, argc, argv);
  settings.rebalances = !is_static;
  const auto result = simulate(settings);
  if (!result.ok()) {
    std::fprintf(stderr, "simulation_report: %s\n", result.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", json_of(*result).dump().c_str());
  return 0;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { return sluice::run(argc, argv); }
