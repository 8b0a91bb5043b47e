#include "control/backup/backup_store.h"

#include <algorithm>
#include <utility>

#include "base/defect.h"
#include "base/status.h"
#include "base/text.h"
#include "control/backup/plan_reader.h"
#include "control/cluster_block/checks.h"

namespace sluice {
namespace {

constexpr int kSwapTries = 16;
// What a commit has room for beside a head and its lock.
constexpr size_t kChunksWithHead = 16;
constexpr size_t kChunkBytesWithHead = ClusterBlock::kMaxCommitBytes / 4;

absl::StatusOr<StoredBackup> load_head(ClusterBlock& block, std::string_view uuid) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(backup_head_key(uuid)));
  if (!entry) return not_found("no backup {}", printable(uuid));
  SLUICE_ASSIGN_OR_RETURN(BackupHead head, decode_backup_head(entry->key, entry->value));
  return StoredBackup{std::move(head), entry->revision};
}

// Erases keys in commits of the size that the block takes.
absl::Status erase_all(ClusterBlock& block, std::string_view prefix) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(prefix));
  std::vector<ClusterOp> ops;
  for (size_t i = 0; i < listing.entries.size(); ++i) {
    ops.push_back(ClusterOp::erase(listing.entries[i].key));
    if (ops.size() < ClusterBlock::kMaxOps && i + 1 < listing.entries.size()) continue;
    SLUICE_RETURN_IF_ERROR(block.commit(ops).status());
    ops.clear();
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<ClusterOp> creation_of(const BackupHead& head) {
  return {ClusterOp::put(backup_name_key(head.name), head.uuid, 0),
          ClusterOp::put(backup_head_key(head.uuid), encode(head), 0)};
}

absl::StatusOr<StoredBackup> create_backup(ClusterBlock& block, const BackupHead& head) {
  SLUICE_RETURN_IF_ERROR(check_backup_name(head.name));
  const auto revision = block.commit(creation_of(head));
  if (revision.ok()) return StoredBackup{head, *revision};
  if (!absl::IsAborted(revision.status())) return revision.status();
  SLUICE_RETURN_IF_ERROR(check_name_is_free(block, head.name));
  return revision.status();
}

absl::Status check_name_is_free(ClusterBlock& block, const std::string& name) {
  SLUICE_ASSIGN_OR_RETURN(const auto taken, block.get(backup_name_key(name)));
  if (!taken) return absl::OkStatus();
  const auto there = load_backup(block, name);
  if (there.ok() && there->head.deleting) {
    return already_exists("there is a backup named '{}' already: {}", name, there->head.error);
  }
  if (!there.ok() || there->head.state == BackupState::kCompleted) {
    return already_exists("there is a backup named '{}' already; choose another name", name);
  }
  const BackupState state = there->head.state;
  return already_exists(
      "there is a backup named '{}' already, which is {}; {}delete it ('sluice backup delete {}'), "
      "or choose another name",
      name, name_of(state),
      state == BackupState::kFailed ? fmt::format("resume it ('sluice backup resume {}'), ", name)
                                    : "",
      name);
}

absl::StatusOr<std::string> find_backup(ClusterBlock& block, std::string_view name_or_uuid) {
  if (name_or_uuid.empty() || name_or_uuid.size() > 128) {
    return not_found("no backup '{}'", printable(name_or_uuid));
  }
  SLUICE_ASSIGN_OR_RETURN(const auto named, block.get(backup_name_key(name_or_uuid)));
  if (!named) {
    SLUICE_ASSIGN_OR_RETURN(const auto head, block.get(backup_head_key(name_or_uuid)));
    if (!head) return not_found("no backup {}", printable(name_or_uuid));
    return std::string(name_or_uuid);
  }
  if (named->value.empty() || named->value.size() > 64) {
    return data_loss("document at key '{}' is damaged: it is no backup's UUID", named->key);
  }
  return named->value;
}

absl::StatusOr<StoredBackup> load_backup(ClusterBlock& block, std::string_view name_or_uuid) {
  SLUICE_ASSIGN_OR_RETURN(const std::string uuid, find_backup(block, name_or_uuid));
  return load_head(block, uuid);
}

absl::StatusOr<BackupList> list_backups(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(kBackupsPrefix));
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing names, block.list(kBackupNamesPrefix));
  BackupList list;
  for (const ClusterEntry& entry : listing.entries) {
    auto head = decode_backup_head(entry.key, entry.value);
    if (head.ok()) {
      list.backups.push_back({*std::move(head), entry.revision});
    } else {
      UnreadableBackup& bad = list.unreadable.emplace_back();
      bad.uuid = entry.key.substr(sizeof(kBackupsPrefix) - 1);
      bad.status = head.status();
      for (const ClusterEntry& name : names.entries) {
        if (name.value == bad.uuid) bad.name = name.key.substr(sizeof(kBackupNamesPrefix) - 1);
      }
    }
  }
  std::stable_sort(list.backups.begin(), list.backups.end(),
                   [](const StoredBackup& a, const StoredBackup& b) {
                     return a.head.created_ms < b.head.created_ms;
                   });
  return list;
}

absl::Status check_change(const BackupHead& before, const BackupHead& after) {
  if (after.uuid != before.uuid || after.name != before.name) {
    return invalid_argument("backup {} cannot become backup {}", before.uuid, after.uuid);
  }
  if (after.attempt < before.attempt) {
    return invalid_argument("backup '{}' is at attempt {}; attempt {} is over", before.name,
                            before.attempt, after.attempt);
  }
  SLUICE_RETURN_IF_ERROR(check_transition(before.state, after.state));
  if (before.state == BackupState::kFailed && after.state != BackupState::kFailed &&
      after.state != BackupState::kCancelled && after.attempt == before.attempt) {
    return failed_precondition("backup '{}' failed; to resume it takes a higher attempt than {}",
                               before.name, before.attempt);
  }
  return absl::OkStatus();
}

absl::Status update_backup(ClusterBlock& block, StoredBackup& stored, const BackupHead& head) {
  SLUICE_RETURN_IF_ERROR(check_change(stored.head, head));
  SLUICE_ASSIGN_OR_RETURN(stored.revision, block.compare_and_swap(backup_head_key(head.uuid),
                                                                  encode(head), stored.revision));
  stored.head = head;
  return absl::OkStatus();
}

PlanChunks cut_plan(std::string_view uuid, uint64_t attempt, const Plan& plan) {
  std::vector<std::string> chunks = encode_plan(plan, uuid, attempt);
  PlanChunks result;
  result.count = static_cast<uint32_t>(chunks.size());
  size_t bytes = 0;
  for (const std::string& chunk : chunks) bytes += chunk.size();
  const bool small = chunks.size() <= kChunksWithHead && bytes <= kChunkBytesWithHead;
  std::vector<ClusterOp>& puts = small ? result.with_head : result.before_head;
  for (uint32_t i = 0; i < result.count; ++i) {
    puts.push_back(ClusterOp::put(backup_plan_key(uuid, attempt, i), std::move(chunks[i])));
  }
  return result;
}

namespace {

// A document of a backup's plan as its head was read: both may have been deleted since.
absl::Status why_missing(ClusterBlock& block, const BackupHead& head, const std::string& key) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(backup_head_key(head.uuid)));
  if (!entry) return not_found("backup '{}' was deleted", head.name);
  SLUICE_ASSIGN_OR_RETURN(const BackupHead now, decode_backup_head(entry->key, entry->value));
  if (now.deleting) return not_found("backup '{}' is being deleted", head.name);
  if (now.plan_attempt != head.plan_attempt) {
    return aborted("backup '{}' was planned again meanwhile", head.name);
  }
  return data_loss("document at key '{}' is missing", key);
}

absl::Status read_chunk(ClusterBlock& block, const BackupHead& head, uint32_t chunk,
                        PlanReader& reader) {
  const std::string key = backup_plan_key(head.uuid, head.plan_attempt, chunk);
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(key));
  if (!entry) return why_missing(block, head, key);
  return reader.read(chunk, key, entry->value);
}

absl::Status check_has_plan(const BackupHead& head) {
  if (head.plan_chunks > 0) return absl::OkStatus();
  return failed_precondition("backup '{}' has no plan yet (state {})", head.name,
                             name_of(head.state));
}

}  // namespace

absl::StatusOr<Plan> load_plan(ClusterBlock& block, const BackupHead& head) {
  SLUICE_RETURN_IF_ERROR(check_has_plan(head));
  PlanReader reader(head.uuid, head.plan_attempt, head.plan_chunks);
  for (uint32_t i = 0; i < head.plan_chunks; ++i) {
    SLUICE_RETURN_IF_ERROR(read_chunk(block, head, i, reader));
  }
  return reader.take(true);
}

namespace {

absl::StatusOr<PlanReader> read_plan_nodes(ClusterBlock& block, const BackupHead& head) {
  SLUICE_RETURN_IF_ERROR(check_has_plan(head));
  PlanReader reader(head.uuid, head.plan_attempt, head.plan_chunks);
  SLUICE_RETURN_IF_ERROR(read_chunk(block, head, 0, reader));
  for (uint32_t i = 1; i < reader.node_chunks(); ++i) {
    SLUICE_RETURN_IF_ERROR(read_chunk(block, head, i, reader));
  }
  return reader;
}

}  // namespace

absl::StatusOr<Plan> load_plan_nodes(ClusterBlock& block, const BackupHead& head) {
  SLUICE_ASSIGN_OR_RETURN(PlanReader reader, read_plan_nodes(block, head));
  return reader.take(false);
}

absl::StatusOr<Plan> load_plan_of(ClusterBlock& block, const BackupHead& head,
                                  std::string_view node) {
  SLUICE_ASSIGN_OR_RETURN(PlanReader reader, read_plan_nodes(block, head));
  for (const uint32_t i : reader.chunks_of(node)) {
    SLUICE_RETURN_IF_ERROR(read_chunk(block, head, i, reader));
  }
  return reader.take(false);
}

absl::Status store_progress(ClusterBlock& block, std::string_view uuid,
                            const NodeProgress& progress) {
  const std::string key = backup_progress_key(uuid, progress.node);
  for (int i = 0; i < kSwapTries; ++i) {
    SLUICE_ASSIGN_OR_RETURN(const StoredBackup backup, load_head(block, uuid));
    if (backup.head.attempt > progress.attempt) {
      return aborted("backup '{}' is at attempt {}; attempt {} is over", backup.head.name,
                     backup.head.attempt, progress.attempt);
    }
    SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(key));
    if (entry) {
      // What cannot be read is replaced: it is this node's own document.
      const auto before = decode_node_progress(key, entry->value);
      if (before.ok() && before->attempt > progress.attempt) {
        return aborted("node '{}' is at attempt {}; attempt {} is over", progress.node,
                       before->attempt, progress.attempt);
      }
    }
    const absl::Status status =
        block
            .commit({ClusterOp::put(key, encode(progress), entry ? entry->revision : 0),
                     ClusterOp::check(backup_head_key(uuid), backup.revision)})
            .status();
    if (!absl::IsAborted(status)) return status;
  }
  return unavailable("the progress of node '{}' could not be stored: others change it all the time",
                     progress.node);
}

absl::StatusOr<std::optional<NodeProgress>> load_progress_of(ClusterBlock& block,
                                                             std::string_view uuid,
                                                             std::string_view node) {
  const std::string key = backup_progress_key(uuid, node);
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(key));
  if (!entry.has_value()) return std::optional<NodeProgress>{};
  SLUICE_ASSIGN_OR_RETURN(NodeProgress progress, decode_node_progress(key, entry->value));
  return std::optional<NodeProgress>(std::move(progress));
}

absl::StatusOr<std::vector<NodeProgress>> load_progress(ClusterBlock& block,
                                                        std::string_view uuid) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(backup_progress_prefix(uuid)));
  std::vector<NodeProgress> all;
  for (const ClusterEntry& entry : listing.entries) {
    SLUICE_ASSIGN_OR_RETURN(NodeProgress progress, decode_node_progress(entry.key, entry.value));
    all.push_back(std::move(progress));
  }
  return all;
}

absl::StatusOr<std::vector<ClusterOp>> progress_erasures(ClusterBlock& block,
                                                         std::string_view uuid) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(backup_progress_prefix(uuid)));
  std::vector<ClusterOp> erasures;
  for (const ClusterEntry& entry : listing.entries) {
    erasures.push_back(ClusterOp::erase(entry.key));
  }
  return erasures;
}

absl::Status erase_backup(ClusterBlock& block, std::string_view uuid) {
  for (int i = 0; i < kSwapTries; ++i) {
    SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(backup_head_key(uuid)));
    if (!entry) return not_found("no backup {}", printable(uuid));
    SLUICE_RETURN_IF_ERROR(erase_all(block, backup_folder_key(uuid)));
    if (defect(Defect::kAnyNameIsErased)) {
      SLUICE_ASSIGN_OR_RETURN(const BackupHead head, decode_backup_head(entry->key, entry->value));
      SLUICE_RETURN_IF_ERROR(block.erase(backup_name_key(head.name)));
    }
    // As they were read: when others have erased them, the name may be a later backup's.
    std::vector<ClusterOp> ops{ClusterOp::erase(entry->key, entry->revision)};
    // A head that cannot be read is erased all the same; its name is found by what it points to.
    SLUICE_ASSIGN_OR_RETURN(const ClusterListing names, block.list(kBackupNamesPrefix));
    for (const ClusterEntry& name : names.entries) {
      if (name.value == uuid) ops.push_back(ClusterOp::erase(name.key, name.revision));
    }
    const absl::Status status = block.commit(ops).status();
    if (!absl::IsAborted(status)) return status;
  }
  return unavailable("backup {} could not be erased: others change it all the time", uuid);
}

}  // namespace sluice
