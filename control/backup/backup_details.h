// What belongs to a backup beside its head: documents of their own, as they grow with the cluster
// and few processes need them. Threads: as the block. Errors of the block are passed on; what does
// not decode is DATA_LOSS naming its key.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_DETAILS_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_DETAILS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/backup/backup_trees.h"
#include "control/backup/documents.h"
#include "control/cluster_block/cluster_block.h"
#include "control/proto/sluice.pb.h"

namespace sluice {

struct ArchivePart {
  std::string node;
  std::string path;
  uint64_t stored_bytes = 0;  // of its files; 0: not known
  friend bool operator==(const ArchivePart&, const ArchivePart&) = default;
};

// A node's part in the plan, as reported to the operator.
struct PlannedNode {
  std::string name;
  uint64_t send_bytes = 0;
  uint64_t receive_bytes = 0;
  friend bool operator==(const PlannedNode&, const PlannedNode&) = default;
};

// Of thousands of nodes the busiest stages are kept: all would not fit into a document.
inline constexpr size_t kMaxStagesOfBackup = 1024;

struct BackupDetails {
  std::vector<PlannedNode> planned;
  std::vector<ArchivePart> archives;
  std::vector<StageReport> stages;
  BackupTrees trees;
};
BackupDetails details_of(const v1::BackupDetails& from);
void put(const BackupDetails& details, v1::BackupDetails* to);

// As far as they are stored.
absl::StatusOr<BackupDetails> load_details(ClusterBlock& block, const BackupHead& head);
std::vector<PlannedNode> planned_nodes(const Plan& plan);

// The nodes that were asked for; none: all. As part of the commit that creates the backup.
// INVALID_ARGUMENT where they do not fit into a document.
absl::StatusOr<std::vector<ClusterOp>> targets_put(std::string_view uuid,
                                                   const std::vector<std::string>& targets);
absl::StatusOr<std::vector<std::string>> load_targets(ClusterBlock& block, std::string_view uuid);

// The parts that stand, by node.
absl::StatusOr<std::vector<ArchivePart>> load_parts(ClusterBlock& block, std::string_view uuid);
// All parts of a completed backup. FAILED_PRECONDITION where its deletion has begun since the head
// was read.
absl::StatusOr<std::vector<ArchivePart>> load_all_parts(ClusterBlock& block,
                                                        const BackupHead& head);
// The nodes whose parts stand, also where what is stored of a part is damaged.
absl::StatusOr<std::vector<std::string>> load_holders(ClusterBlock& block, std::string_view uuid);
absl::StatusOr<bool> is_holder(ClusterBlock& block, std::string_view uuid, std::string_view node);
absl::StatusOr<std::optional<ArchivePart>> load_part(ClusterBlock& block, std::string_view uuid,
                                                     std::string_view node);
// Changes that leave these parts and no others.
absl::StatusOr<std::vector<ClusterOp>> part_changes(ClusterBlock& block, std::string_view uuid,
                                                    const std::vector<ArchivePart>& parts);
ClusterOp part_erasure(std::string_view uuid, std::string_view node);

// The busiest kMaxStagesOfBackup.
ClusterOp stages_put(std::string_view uuid, std::vector<StageReport> stages);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_DETAILS_H_
