// One backup at a time in a cluster: a lock bound to its coordinator's lease. When the coordinator
// dies the lock goes, and another node may take over.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_LOCK_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_LOCK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "control/cluster_block/lease_lock.h"

namespace sluice {

// Its value is "UUID NODE NAME".
inline constexpr char kBackupLockKey[] = "backup-lock";

// ALREADY_EXISTS naming the backup that runs, and its coordinator. `with` is part of the commit
// that takes the lock; ABORTED when nobody has the lock, and a comparison of `with` may have
// failed.
absl::StatusOr<std::unique_ptr<LeaseLock>> take_backup_lock(
    ClusterBlock& block, std::string_view uuid, std::string_view node, std::string_view name,
    const std::vector<ClusterOp>& with = {});

// Whether a backup's document knows the attempt: FAILED_PRECONDITION if it names another one,
// NOT_FOUND if there is no such backup. A dry run has no document; it holds the lock. A damaged
// document tells nothing: it is erased by whoever has the lock.
absl::Status check_attempt(ClusterBlock& block, const std::string& backup, uint64_t attempt);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_LOCK_H_
