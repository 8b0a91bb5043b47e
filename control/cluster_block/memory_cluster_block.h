// A cluster block in this process's memory: for tests, the simulator, and clusters inside one
// process.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_MEMORY_CLUSTER_BLOCK_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_MEMORY_CLUSTER_BLOCK_H_

#include <memory>

#include "control/cluster_block/cluster_block.h"

namespace sluice {

// Leases run on `clock`, which must outlive the block. A watch's thread is started with the first
// watch; it notices the end of a lease within some 20 ms of real time, other methods at once.
std::unique_ptr<ClusterBlock> make_memory_cluster_block(Clock& clock = system_clock());

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_MEMORY_CLUSTER_BLOCK_H_
