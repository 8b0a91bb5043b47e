#include "control/backup/backup_details.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/status.h"
#include "control/backup/backup_store.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"

namespace sluice {
namespace {

constexpr char kTargetsFormat[] = "sluice.targets.1";
constexpr char kPartFormat[] = "sluice.archive.1";
constexpr char kStagesFormat[] = "sluice.stages.1";
constexpr size_t kMaxText = 4096;

std::string targets_key(std::string_view uuid) { return backup_folder_key(uuid) + "targets"; }
std::string stages_key(std::string_view uuid) { return backup_folder_key(uuid) + "stages"; }
std::string parts_prefix(std::string_view uuid) { return backup_folder_key(uuid) + "parts/"; }
std::string part_key(std::string_view uuid, std::string_view node) {
  return parts_prefix(uuid).append(node);
}

absl::StatusOr<ArchivePart> decode_part(const ClusterEntry& entry, std::string_view uuid) {
  v1::ArchivePart document;
  SLUICE_RETURN_IF_ERROR(decode_document(entry.key, entry.value, kPartFormat, &document));
  if (entry.key != part_key(uuid, document.node()) || document.path().size() > kMaxText) {
    return damaged_document(entry.key, "it belongs to another node, or its path is too long");
  }
  return ArchivePart{document.node(), document.path(), document.stored_bytes()};
}

absl::StatusOr<std::vector<StageReport>> load_stages(ClusterBlock& block, std::string_view uuid) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(stages_key(uuid)));
  if (!entry.has_value()) return std::vector<StageReport>{};
  v1::BackupStages document;
  SLUICE_RETURN_IF_ERROR(decode_document(entry->key, entry->value, kStagesFormat, &document));
  if (document.stages_size() > static_cast<int>(kMaxStagesOfBackup)) {
    return damaged_document(entry->key, "it has too many stages");
  }
  return stages_of(document.stages());
}

}  // namespace

BackupDetails details_of(const v1::BackupDetails& from) {
  BackupDetails details;
  for (const auto& node : from.planned()) {
    details.planned.push_back({node.name(), node.send_bytes(), node.receive_bytes()});
  }
  for (const auto& part : from.archives()) details.archives.push_back({part.node(), part.path()});
  details.stages = stages_of(from.stages());
  details.trees.assign(from.trees().begin(), from.trees().end());
  return details;
}

void put(const BackupDetails& details, v1::BackupDetails* to) {
  for (const PlannedNode& node : details.planned) {
    auto* planned = to->add_planned();
    planned->set_name(node.name);
    planned->set_send_bytes(node.send_bytes);
    planned->set_receive_bytes(node.receive_bytes);
  }
  for (const ArchivePart& part : details.archives) {
    auto* archive = to->add_archives();
    archive->set_node(part.node);
    archive->set_path(part.path);
  }
  put(details.stages, to->mutable_stages());
  for (const v1::BackupTree& tree : details.trees) *to->add_trees() = tree;
}

std::vector<PlannedNode> planned_nodes(const Plan& plan) {
  std::vector<PlannedNode> planned;
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    planned.push_back({plan.nodes[i].name, plan.loads[i].send_bytes, plan.loads[i].receive_bytes});
  }
  return planned;
}

absl::StatusOr<BackupDetails> load_details(ClusterBlock& block, const BackupHead& head) {
  BackupDetails details;
  if (head.plan_chunks > 0) {
    SLUICE_ASSIGN_OR_RETURN(const Plan plan, load_plan_nodes(block, head));
    details.planned = planned_nodes(plan);
  }
  SLUICE_ASSIGN_OR_RETURN(details.archives, load_parts(block, head.uuid));
  SLUICE_ASSIGN_OR_RETURN(details.stages, load_stages(block, head.uuid));
  SLUICE_ASSIGN_OR_RETURN(details.trees, load_trees(block, head.uuid));
  return details;
}

absl::StatusOr<std::vector<ClusterOp>> targets_put(std::string_view uuid,
                                                   const std::vector<std::string>& targets) {
  if (targets.empty()) return std::vector<ClusterOp>{};
  v1::BackupTargets document;
  for (const std::string& target : targets) document.add_targets(target);
  std::string text = encode_document(kTargetsFormat, document);
  if (text.size() > ClusterBlock::kMaxValueBytes / 2) {
    return invalid_argument("{} targets, whose names have {} bytes, are too many to name",
                            targets.size(), text.size());
  }
  return std::vector<ClusterOp>{ClusterOp::put(targets_key(uuid), std::move(text), 0)};
}

absl::StatusOr<std::vector<std::string>> load_targets(ClusterBlock& block, std::string_view uuid) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(targets_key(uuid)));
  if (!entry.has_value()) return std::vector<std::string>{};
  v1::BackupTargets document;
  SLUICE_RETURN_IF_ERROR(decode_document(entry->key, entry->value, kTargetsFormat, &document));
  return std::vector<std::string>(document.targets().begin(), document.targets().end());
}

absl::StatusOr<std::vector<ArchivePart>> load_parts(ClusterBlock& block, std::string_view uuid) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(parts_prefix(uuid)));
  std::vector<ArchivePart> parts;
  for (const ClusterEntry& entry : listing.entries) {
    SLUICE_ASSIGN_OR_RETURN(ArchivePart part, decode_part(entry, uuid));
    parts.push_back(std::move(part));
  }
  return parts;
}

absl::StatusOr<std::vector<ArchivePart>> load_all_parts(ClusterBlock& block,
                                                        const BackupHead& head) {
  SLUICE_ASSIGN_OR_RETURN(auto parts, load_parts(block, head.uuid));
  if (parts.size() == head.parts) return parts;
  const auto now = load_backup(block, head.uuid);
  if (absl::IsNotFound(now.status()) || (now.ok() && now->head.deleting)) {
    return failed_precondition("backup {} is being deleted", head.name);
  }
  SLUICE_RETURN_IF_ERROR(now.status());
  return data_loss("backup {} has {} parts, and {} of them are known", head.name, head.parts,
                   parts.size());
}

absl::StatusOr<std::vector<std::string>> load_holders(ClusterBlock& block, std::string_view uuid) {
  const std::string prefix = parts_prefix(uuid);
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(prefix));
  std::vector<std::string> holders;
  for (const ClusterEntry& entry : listing.entries) {
    holders.push_back(entry.key.substr(prefix.size()));
  }
  return holders;
}

absl::StatusOr<bool> is_holder(ClusterBlock& block, std::string_view uuid, std::string_view node) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(part_key(uuid, node)));
  return entry.has_value();
}

absl::StatusOr<std::optional<ArchivePart>> load_part(ClusterBlock& block, std::string_view uuid,
                                                     std::string_view node) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(part_key(uuid, node)));
  if (!entry.has_value()) return std::optional<ArchivePart>{};
  SLUICE_ASSIGN_OR_RETURN(ArchivePart part, decode_part(*entry, uuid));
  return std::optional<ArchivePart>(std::move(part));
}

absl::StatusOr<std::vector<ClusterOp>> part_changes(ClusterBlock& block, std::string_view uuid,
                                                    const std::vector<ArchivePart>& parts) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(parts_prefix(uuid)));
  std::map<std::string, std::string> wanted;
  for (const ArchivePart& part : parts) {
    v1::ArchivePart document;
    document.set_node(part.node);
    document.set_path(part.path);
    document.set_stored_bytes(part.stored_bytes);
    wanted[part_key(uuid, part.node)] = encode_document(kPartFormat, document);
  }
  std::vector<ClusterOp> changes;
  for (const ClusterEntry& entry : listing.entries) {
    if (!wanted.contains(entry.key)) changes.push_back(ClusterOp::erase(entry.key));
  }
  for (auto& [key, document] : wanted) {
    changes.push_back(ClusterOp::put(key, std::move(document)));
  }
  return changes;
}

ClusterOp part_erasure(std::string_view uuid, std::string_view node) {
  return ClusterOp::erase(part_key(uuid, node));
}

ClusterOp stages_put(std::string_view uuid, std::vector<StageReport> stages) {
  if (stages.size() > kMaxStagesOfBackup) {
    std::stable_sort(stages.begin(), stages.end(), [](const StageReport& a, const StageReport& b) {
      return a.busy_share() > b.busy_share();
    });
    stages.resize(kMaxStagesOfBackup);
  }
  v1::BackupStages document;
  put(stages, document.mutable_stages());
  return ClusterOp::put(stages_key(uuid), encode_document(kStagesFormat, document));
}

}  // namespace sluice
