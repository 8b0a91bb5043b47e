// Schedule documents in the cluster block: made, found, changed under their fencing number, and
// erased. Threads: as the block. Errors of the block are passed on.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_STORE_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_STORE_H_

#include <optional>
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

// Whether a head may take another's place: FAILED_PRECONDITION for an illegal transition,
// INVALID_ARGUMENT for a lower attempt, or another backup's. Pure.
absl::Status check_change(const BackupHead& before, const BackupHead& after);
// Stores `head` over the revision it was loaded at, without the backup's lock: to end what somebody
// else works on, under a higher attempt. ABORTED when somebody changed it since; check_change().
absl::Status update_backup(ClusterBlock& block, StoredBackup& stored, const BackupHead& head);

// A plan as it is stored under its attempt. What fits into the commit of the head that names it
// (plan_chunks, plan_attempt) is stored with that; the rest is stored before, each in a commit of
// its own. Pure.
struct PlanChunks {
  uint32_t count = 0;  // of the whole plan
  std::vector<ClusterOp> before_head;
  std::vector<ClusterOp> with_head;
};
PlanChunks cut_plan(std::string_view uuid, uint64_t attempt, const Plan& plan);
// The plan that the head names. FAILED_PRECONDITION when it names none.
absl::StatusOr<Plan> load_plan(ClusterBlock& block, const BackupHead& head);
// Its nodes alone, without slots.
absl::StatusOr<Plan> load_plan_nodes(ClusterBlock& block, const BackupHead& head);
// As much of it as one node needs: all nodes, and at least the slots that it sends or receives.
absl::StatusOr<Plan> load_plan_of(ClusterBlock& block, const BackupHead& head,
                                  std::string_view node);

// ABORTED, and nothing stored, when the stored progress or the head is of a higher attempt.
absl::Status store_progress(ClusterBlock& block, std::string_view uuid,
                            const NodeProgress& progress);
// Of one node; nullopt where it has reported nothing.
absl::StatusOr<std::optional<NodeProgress>> load_progress_of(ClusterBlock& block,
                                                             std::string_view uuid,
                                                             std::string_view node);
// Unreadable ones fail the call with DATA_LOSS naming the key.
absl::StatusOr<std::vector<NodeProgress>> load_progress(ClusterBlock& block, std::string_view uuid);

// Commits' parts that erase what nodes reported in earlier attempts: nothing of it counts for a
// backup that is restarted.
absl::StatusOr<std::vector<ClusterOp>> progress_erasures(ClusterBlock& block,
                                                         std::string_view uuid);

// Erases all documents of a backup, its head and name last. Unfinished ones too: the caller
// decides. NOT_FOUND for an unknown one.
absl::Status erase_backup(ClusterBlock& block, std::string_view uuid);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_STORE_H_
