// A cluster block in this process's memory: for tests, the simulator, and clusters inside one
// process.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_MEMORY_CLUSTER_BLOCK_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_MEMORY_CLUSTER_BLOCK_H_

#include <memory>

#include "control/cluster_block/cluster_block.h"

namespace sluice {

// What blocks share that show the same documents to several nodes of a process. Thread-safe.
class MemoryStorage;
// Leases run on `clock`, which must outlive the storage.
std::shared_ptr<MemoryStorage> make_memory_storage(Clock& clock = system_clock());

// A watch's thread is started with the first watch; it notices the end of a lease within some
// poll_ms, other methods at once.
std::unique_ptr<ClusterBlock> make_memory_cluster_block(std::shared_ptr<MemoryStorage> storage,
                                                        int poll_ms = 20);
// On a storage of its own.
std::unique_ptr<ClusterBlock> make_memory_cluster_block(Clock& clock = system_clock());

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_MEMORY_CLUSTER_BLOCK_H_
