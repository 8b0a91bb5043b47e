// One backup at a time in a cluster: a lock bound to its coordinator's lease. When the coordinator
// dies the lock goes, and another node may take over.
#ifndef SLUICE_CONTROL_SERVICE_BACKUP_LOCK_H_
#define SLUICE_CONTROL_SERVICE_BACKUP_LOCK_H_

#include <memory>
#include <string_view>
#include <vector>

#include "control/client/lease_lock.h"

namespace sluice {

// Its value is "UUID NODE NAME".
inline constexpr char kBackupLockKey[] = "backup-lock";

// ALREADY_EXISTS naming the backup that runs, and its coordinator. `with` is part of the commit
// that takes the lock; ABORTED when nobody has the lock, and a comparison of `with` may have
// failed.
absl::StatusOr<std::unique_ptr<LeaseLock>> take_backup_lock(
    ClusterBlock& block, std::string_view uuid, std::string_view node, std::string_view name,
    const std::vector<ClusterOp>& with = {});

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_BACKUP_LOCK_H_
