// One large cluster for programs of bench/: nodes of unequal weight in racks, whose rates are as
// their weights, and what they publish for a cut. The same settings make the same cluster.
#ifndef SLUICE_BENCH_SIMULATION_LARGE_CLUSTER_H_
#define SLUICE_BENCH_SIMULATION_LARGE_CLUSTER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "control/schedule/planner.h"

namespace CLI {
class App;
}

namespace sluice {

struct LargeCluster {
  uint32_t nodes = 10'000;
  uint32_t racks = 100;
  uint32_t slot_bits = 18;
  uint32_t replicas = 3;
  double spread = 8;       // of the weights: the largest over the smallest
  double divergent = 0.1;  // share of the slots
  uint64_t largest_slot = uint64_t{64} << 20;
  double rate_of_weight = 1e8;  // bytes a second of a node of weight 1
  uint64_t seed = 1;
};

void add_options(CLI::App& app, LargeCluster& cluster);
absl::StatusOr<DistributionTable> table_of(const LargeCluster& cluster);
// targets: how many, spread over the nodes; 0: all. The table has to outlive the input.
PlanInput input_of(const LargeCluster& cluster, const DistributionTable& table, uint32_t targets);

}  // namespace sluice

#endif  // SLUICE_BENCH_SIMULATION_LARGE_CLUSTER_H_
