// A whole backup on virtual time: the shipping table, planner, replan() and rebalance(), in a
// cluster some of whose nodes are slower than they promise and some of which die midway. Nothing
// but the nodes, the wires and the cluster block is simulated. Deterministic.
#ifndef SLUICE_BENCH_SIMULATION_SIMULATION_H_
#define SLUICE_BENCH_SIMULATION_SIMULATION_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/simulation/large_cluster.h"

namespace sluice {

struct SimulationSettings {
  LargeCluster cluster;
  double slow_share = 0.05;  // of the nodes
  double slow_rate = 0.25;   // of what they promise
  double dead_share = 0.01;
  bool lose_rack = false;  // all nodes of one rack die, instead of dead_share
  bool rebalances = true;  // false: only the dead are planned without, by the promised rates
};

struct SimulationResult {
  uint32_t nodes = 0;
  uint32_t slow = 0;
  uint32_t dead = 0;
  double planned_s = 0;  // the first plan's makespan
  double death_s = 0;
  double seconds = 0;
  // If all true rates were used all the time: everything over the sum of all nodes' true rates
  // until the deaths, then what was left, and what the dead had received, over those of the others.
  double ideal_s = 0;
  // What was left when the nodes died, and its time over all true rates that were left.
  double rest_s = 0;
  double ideal_rest_s = 0;
  uint32_t lost = 0;  // slots that not exactly one living target has in the end
  uint64_t needed_bytes = 0;
  uint64_t sent_twice_bytes = 0;  // all that was sent, less what was needed
  // Of these: on its way when a plan changed or a node died; with targets that died; durable at a
  // target that a later plan did not want it from.
  uint64_t given_up_bytes = 0;
  uint64_t lost_with_targets_bytes = 0;
  uint64_t given_up_durable_bytes = 0;
  uint32_t plans = 0;
  uint32_t rebalances = 0;
  // What the control plane holds and moves, by what is stored in truth.
  size_t plan_chunks = 0;
  size_t plan_bytes = 0;                // of the largest plan, in the cluster block
  size_t head_bytes = 0;                // of the backup's head, at its end
  size_t coordinator_memory_bytes = 0;  // of a plan, and of all reports
  uint64_t block_read_bytes = 0;        // heads, by all nodes
  uint64_t plans_told_bytes = 0;        // to all nodes, by the coordinator
  size_t node_reads_bytes = 0;          // by a node, for one plan
  uint64_t block_written_bytes = 0;     // plans, heads and reports
  uint64_t block_commits = 0;
  size_t most_streams = 0;  // of one node at a time
  // Share of the slots that are done, by second.
  std::vector<std::pair<double, double>> done;
};

absl::StatusOr<SimulationResult> simulate(const SimulationSettings& settings);

}  // namespace sluice

#endif  // SLUICE_BENCH_SIMULATION_SIMULATION_H_
