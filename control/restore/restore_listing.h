// What is on a restore's retry lists: how many records, why, and which.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_LISTING_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_LISTING_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/peers/cluster_connection.h"
#include "control/restore/restore_store.h"
#include "control/restore/results.h"

namespace sluice {

struct FailedCounts {
  uint64_t units = 0;
  uint64_t records = 0;
  uint64_t deletions = 0;
  std::vector<RestoreCause> causes;   // each node once, and the archive of each node
  std::vector<DamagedBlock> damaged;  // the first kDamagedNamed of them
  uint64_t damaged_units = 0;
  static constexpr size_t kDamagedNamed = 1000;
};
// Of the lists that the head names.
absl::StatusOr<FailedCounts> count_failed(ClusterBlock& block, const RestoreHead& head);

// Hands out every record of the lists. Those whose keys cannot be read come as one entry without a
// key for each unit, with their number: the sum is what count_failed() says.
absl::Status list_failed(ClusterConnection& cluster, const RestoreHead& head,
                         const FailedCallback& visit);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_LISTING_H_
