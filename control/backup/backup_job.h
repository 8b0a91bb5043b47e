// A backup as a job of the cluster: one at a time, bound to its coordinator's lease. When the
// coordinator dies the lock goes, and another node may take over.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_JOB_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_JOB_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "control/job/job.h"
#include "control/peers/node_context.h"

namespace sluice {

// Its value is "UUID NODE NAME".
inline constexpr char kBackupLockKey[] = "backup-lock";

// How long a backup's coordinator waits for the cluster block to take a commit, and to renew its
// lease.
struct BackupPatience {
  int64_t block_ms = 120'000;  // longer than any one call of a block
  int64_t lease_ms = 120'000;
};

// ALREADY_EXISTS naming the backup that runs, and its coordinator. `with` is part of the commit
// that takes the lock; ABORTED when nobody has the lock, and a comparison of `with` may have
// failed.
absl::StatusOr<std::unique_ptr<Job>> take_backup_job(const NodeContext& context,
                                                     const std::string& uuid,
                                                     const std::string& name,
                                                     const BackupPatience& patience = {},
                                                     const std::vector<ClusterOp>& with = {});

// Whether a backup's document knows the attempt: FAILED_PRECONDITION if it names another one,
// NOT_FOUND without such a backup. A dry run has no document; it holds the lock. A damaged document
// tells nothing: it is erased by whoever has the lock.
absl::Status check_attempt(ClusterBlock& block, const std::string& backup, uint64_t attempt);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_JOB_H_
