// Schedule documents in the cluster block: made, found, changed under their fencing number, and
// erased. Threads: as the block. Errors of the block are passed on.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_STORE_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_STORE_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/backup/documents.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice {

struct StoredBackup {
  BackupHead head;
  Revision revision = 0;
};

// Stores a new backup's head and its name. ALREADY_EXISTS when the name is taken.
absl::StatusOr<StoredBackup> create_backup(ClusterBlock& block, const BackupHead& head);
// The same as part of another commit, which is ABORTED when the name is taken: check_name_is_free()
// then tells.
std::vector<ClusterOp> creation_of(const BackupHead& head);
// ALREADY_EXISTS, naming the backup that has it and what can be done about that.
absl::Status check_name_is_free(ClusterBlock& block, const std::string& name);
// By name or UUID. NOT_FOUND naming it.
absl::StatusOr<StoredBackup> load_backup(ClusterBlock& block, std::string_view name_or_uuid);

// The UUID of the backup of this name, though its head may be damaged; a UUID finds itself.
// NOT_FOUND naming it.
absl::StatusOr<std::string> find_backup(ClusterBlock& block, std::string_view name_or_uuid);

// A head that cannot be decoded; the others are listed all the same.
struct UnreadableBackup {
  std::string uuid;
  std::string name;     // empty when no name leads to it
  absl::Status status;  // DATA_LOSS
};
struct BackupList {
  std::vector<StoredBackup> backups;  // oldest first
  std::vector<UnreadableBackup> unreadable;
};
absl::StatusOr<BackupList> list_backups(ClusterBlock& block);

// Stores `head` over the revision it was loaded at. ABORTED when somebody changed it since, or has
// a higher attempt; FAILED_PRECONDITION for an illegal transition, INVALID_ARGUMENT for a lower
// attempt than the stored one. On OK `stored` is the new state. `with` (a lock's fence, chunks of a
// plan) is part of the commit: ABORTED when one of its comparisons fails. `try_again` as for
// swap_document().
absl::Status update_backup(
    ClusterBlock& block, StoredBackup& stored, const BackupHead& head,
    const std::vector<ClusterOp>& with = {},
    const std::function<bool()>& try_again = [] { return false; });

// Stores the plan's chunks under its attempt, but for those of a small plan, which fit into the
// commit of the head that names them (plan_chunks, plan_attempt): these are returned, for
// update_backup(). `try_again` as for swap_document(). ABORTED
// when somebody changed the head since `stored`, or one of `checks` fails: another coordinator's
// plan is not written over.
struct PlanChunks {
  uint32_t count = 0;                // of the whole plan
  std::vector<ClusterOp> with_head;  // not stored yet
};
absl::StatusOr<PlanChunks> store_plan(
    ClusterBlock& block, const StoredBackup& stored, uint64_t attempt, const Plan& plan,
    const std::vector<ClusterOp>& checks = {},
    const std::function<bool()>& try_again = [] { return false; });
// The plan that the head names. FAILED_PRECONDITION when it names none.
absl::StatusOr<Plan> load_plan(ClusterBlock& block, const BackupHead& head);
// As much of it as one node needs: all nodes, and at least the slots that it sends or receives.
absl::StatusOr<Plan> load_plan_of(ClusterBlock& block, const BackupHead& head,
                                  std::string_view node);

// ABORTED, and nothing stored, when the stored progress or the head is of a higher attempt.
absl::Status store_progress(ClusterBlock& block, std::string_view uuid,
                            const NodeProgress& progress);
// Unreadable ones fail the call with DATA_LOSS naming the key.
absl::StatusOr<std::vector<NodeProgress>> load_progress(ClusterBlock& block, std::string_view uuid);

// Erases what nodes said of earlier attempts: nothing of it counts for a backup that is begun anew.
// ABORTED when somebody changed the head since `stored`, or one of `checks` fails.
absl::Status erase_progress(ClusterBlock& block, const StoredBackup& stored,
                            const std::vector<ClusterOp>& checks = {});

// Erases all documents of a backup, its head and name last. Unfinished ones too: the caller
// decides. NOT_FOUND for an unknown one.
absl::Status erase_backup(ClusterBlock& block, std::string_view uuid);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_STORE_H_
