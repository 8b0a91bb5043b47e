// One process's way to a cluster block in memory that all of a simulated cluster share: it takes
// time, and fails as storage far away does.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SIM_BLOCK_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SIM_BLOCK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/memory_cluster_block.h"

namespace sluice::simulation {

// Of one process's calls; may be changed at any time.
struct BlockFaults {
  int64_t fastest_ns = 200'000;
  int64_t slowest_ns = 2'000'000;
  double fails = 0;        // UNAVAILABLE, nothing was done
  double fails_after = 0;  // of commits: UNAVAILABLE, and it was made
  double fails_late = 0;   // of commits: UNAVAILABLE, and it is made up to longest_late_ns later
  int64_t longest_late_ns = 2'000'000'000;
  bool unreachable = false;
};

// What the blocks of one cluster share. Lives until the run ends.
struct BlockWorld {
  explicit BlockWorld(uint64_t seed)
      : storage(make_memory_storage()), random(seed), late(make_memory_cluster_block(storage)) {}

  const std::shared_ptr<MemoryStorage> storage;
  Random random;
  int64_t lease_ms = 3000;  // of the cluster's nodes
  // The harness's: without faults.
  const std::unique_ptr<ClusterBlock> late;
  // Called before each commit of a living process.
  std::function<void(const std::vector<ClusterOp>&)> before_commit;
  // The same, for who only looks.
  std::function<void(const std::vector<ClusterOp>&)> watch_commit;
  // Every value that was stored under kept_prefix, by key and revision.
  std::string kept_prefix = "backups/";
  std::map<std::string, std::map<Revision, std::string>> kept;
  void keep(const std::vector<ClusterOp>& ops, Revision revision);
};

std::unique_ptr<ClusterBlock> make_sim_block(BlockWorld& world, const BlockFaults& faults);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SIM_BLOCK_H_
