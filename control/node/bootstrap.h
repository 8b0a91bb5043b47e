// Makes a cluster out of nodes that have joined: waits for them, computes the first distribution
// table and publishes it.
#ifndef SLUICE_CONTROL_NODE_BOOTSTRAP_H_
#define SLUICE_CONTROL_NODE_BOOTSTRAP_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "control/cluster_block/cluster_block.h"
#include "control/membership/documents.h"

namespace sluice {

struct ClusterShape {
  uint32_t slot_bits = 12;
  uint32_t replicas = 3;
  uint64_t seed = 0;  // 0: random
  std::string uuid;   // empty: a new one
};

// Describes a new cluster in the block. ALREADY_EXISTS when there is one, unless it has the UUID
// that was asked for: it was made before, and its maker was not told.
absl::StatusOr<ClusterInfo> make_cluster(ClusterBlock& block, const ClusterShape& shape,
                                         Clock& clock = system_clock());

// Waits until `nodes` nodes are live, and publishes the table of epoch 1 over all members. OK when
// there is a table already. DEADLINE_EXCEEDED, naming those that are live, when fewer joined in
// time; INVALID_ARGUMENT for fewer nodes than replicas.
absl::Status publish_first_table(ClusterBlock& block, size_t nodes, int64_t timeout_ms,
                                 Clock& clock = system_clock());

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_BOOTSTRAP_H_
