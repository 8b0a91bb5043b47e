// How a backup goes: its head leaves `completed` for good before the first part is removed, each
// holder strikes itself off once its part is gone, and the documents go with the last part. Each
// step is durable and may be repeated, by anybody. Threads: as the block. Errors of the block are
// passed on.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_DELETION_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_DELETION_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/backup/backup_store.h"

namespace sluice {

// FAILED_PRECONDITION, saying what it is instead, unless the backup is completed: only then its
// archive may be verified and restored.
absl::Status check_completed(const BackupHead& head);

// Marks the head, under a higher attempt. OK where it is marked already. ABORTED when somebody
// changed it since `stored`.
absl::Status begin_deletion(ClusterBlock& block, StoredBackup& stored, int64_t now_ms);

// The node's part is gone. Erases the backup's documents with the last part; OK where they are gone
// already.
absl::Status strike_part(ClusterBlock& block, std::string_view uuid, std::string_view node);

// A part of a deleted backup that its holder, which could not be reached, removes when it returns.
struct OrphanedPart {
  std::string backup;  // UUID
  std::string name;    // of the backup
  std::string node;
  std::string path;  // empty: not known
  Digest128 manifest_digest;
  int64_t created_ms = 0;
};
// Oldest first; what does not decode is left out.
absl::StatusOr<std::vector<OrphanedPart>> list_orphans(ClusterBlock& block);
// Strikes the part off, as strike_part(), and remembers in the same commit that it is left.
absl::Status abandon_part(ClusterBlock& block, const BackupHead& head, std::string_view node,
                          int64_t now_ms);
// The part is gone.
absl::Status forget_orphan(ClusterBlock& block, const OrphanedPart& orphan);

// Ends an attempt at deletion. OK when nothing remains (the documents are erased). ABORTED naming
// the nodes whose parts remain, with their reasons: the head then says the same.
absl::Status end_deletion(ClusterBlock& block, std::string_view uuid,
                          const std::map<std::string, std::string>& reasons, int64_t now_ms);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_DELETION_H_
