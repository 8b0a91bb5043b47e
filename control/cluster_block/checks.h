// What every cluster block checks before it touches its storage. Internal to control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_CHECKS_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_CHECKS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice::cluster_block {

absl::Status check_key(std::string_view key);
absl::Status check_prefix(std::string_view prefix);
absl::Status check_ops(const std::vector<ClusterOp>& ops);
absl::Status check_ttl(int64_t ttl_ms);

// The ABORTED of a comparison that failed. `actual` 0: the key is not there.
absl::Status revision_mismatch(std::string_view key, Revision actual, Revision expected);
absl::Status lease_ended(LeaseId lease);

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_CHECKS_H_
