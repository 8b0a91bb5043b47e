// Restores as jobs that others see: listing, finding and cancelling them, from any process that
// reaches the cluster block.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_JOBS_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_JOBS_H_

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "control/cluster_block/cluster_block.h"
#include "control/restore/restore_store.h"
#include "control/restore/results.h"

namespace sluice {

// Oldest first.
absl::StatusOr<std::vector<RestoreView>> view_restores(ClusterBlock& block);
absl::StatusOr<RestoreView> view_restore(ClusterBlock& block, const RestoreHead& head);
// By its id, or by the backup's name or UUID where only one restore is of that backup. NOT_FOUND;
// FAILED_PRECONDITION, naming them, where several are.
absl::StatusOr<StoredRestore> find_restore(ClusterBlock& block, std::string_view restore);
// Ends the restore, whoever drives it; waits some seconds until that process has let go of it. What
// is written stays, and it can be resumed. OK for one that is cancelled; FAILED_PRECONDITION for
// another that has ended.
absl::Status cancel_restore(ClusterBlock& block, Clock& clock, std::string_view restore);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_JOBS_H_
