#include "control/backup/backup_deletion.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "control/backup/backup_details.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"

namespace sluice {
namespace {

constexpr int kTries = 32;
constexpr size_t kNamed = 16;
constexpr char kOrphansPrefix[] = "orphans/";
constexpr char kOrphanFormat[] = "sluice.orphan.1";

std::string orphan_key(std::string_view backup, std::string_view node) {
  return fmt::format("{}{}/{}", kOrphansPrefix, backup, node);
}

std::string unfinished_text(const BackupHead& head,
                            const std::map<std::string, std::string>& reasons) {
  std::string text = "its deletion is unfinished";
  size_t named = 0;
  for (const auto& [node, reason] : reasons) {
    if (++named > kNamed) break;
    text += fmt::format("{}{}", named == 1 ? ": " : "; ", reason);
  }
  if (reasons.size() > kNamed) text += fmt::format("; and {} more", reasons.size() - kNamed);
  return text + fmt::format(
                    ". A node that was away removes its part when it returns; 'sluice "
                    "backup delete {0}' tries again, and 'sluice backup delete {0} --force' does "
                    "not wait for nodes that are gone",
                    head.name);
}

}  // namespace

absl::Status check_completed(const BackupHead& head) {
  if (head.state == BackupState::kCompleted) return absl::OkStatus();
  if (head.deleting) {
    return failed_precondition("backup {} is being deleted, and parts of it remain", head.name);
  }
  return failed_precondition("backup {} is {}, not completed", head.name, name_of(head.state));
}

absl::Status begin_deletion(ClusterBlock& block, StoredBackup& stored, int64_t now_ms) {
  if (stored.head.deleting) return absl::OkStatus();
  BackupHead head = stored.head;
  head.state = BackupState::kCancelled;
  head.deleting = true;
  ++head.attempt;
  head.changed_ms = now_ms;
  head.error = unfinished_text(head, {});
  // completed is left by this way alone, so update_backup() does not allow it.
  SLUICE_ASSIGN_OR_RETURN(stored.revision, block.compare_and_swap(backup_head_key(head.uuid),
                                                                  encode(head), stored.revision));
  stored.head = std::move(head);
  return absl::OkStatus();
}

namespace {

// Erases the documents of a backup of which nothing remains.
absl::Status erase_deleted(ClusterBlock& block, std::string_view uuid) {
  const auto stored = load_backup(block, uuid);
  if (absl::IsNotFound(stored.status())) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(stored.status());
  if (!stored->head.deleting) {
    return failed_precondition("backup {} is {}: it is not being deleted", stored->head.name,
                               name_of(stored->head.state));
  }
  const absl::Status status = erase_backup(block, uuid);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

}  // namespace

absl::Status strike_part(ClusterBlock& block, std::string_view uuid, std::string_view node) {
  SLUICE_RETURN_IF_ERROR(block.commit({part_erasure(uuid, node)}).status());
  SLUICE_ASSIGN_OR_RETURN(const auto holders, load_holders(block, uuid));
  return holders.empty() ? erase_deleted(block, uuid) : absl::OkStatus();
}

absl::StatusOr<std::vector<OrphanedPart>> list_orphans(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(kOrphansPrefix));
  std::vector<OrphanedPart> orphans;
  for (const ClusterEntry& entry : listing.entries) {
    v1::OrphanDocument document;
    OrphanedPart orphan;
    if (!decode_document(entry.key, entry.value, kOrphanFormat, &document).ok() ||
        !read_digest(document.manifest_digest(), &orphan.manifest_digest) ||
        entry.key != orphan_key(document.backup(), document.node())) {
      continue;
    }
    orphan.backup = document.backup();
    orphan.name = document.name();
    orphan.node = document.node();
    orphan.path = document.path();
    orphan.created_ms = document.created_ms();
    orphans.push_back(std::move(orphan));
  }
  std::stable_sort(orphans.begin(), orphans.end(),
                   [](const auto& a, const auto& b) { return a.created_ms < b.created_ms; });
  return orphans;
}

absl::Status abandon_part(ClusterBlock& block, const BackupHead& head, std::string_view node,
                          int64_t now_ms) {
  v1::OrphanDocument document;
  document.set_backup(head.uuid);
  document.set_name(head.name);
  document.set_node(node.data(), node.size());
  document.set_manifest_digest(digest_bytes(head.manifest_digest));
  document.set_created_ms(now_ms);
  // Where its path cannot be read, the node looks for it in its archive directory.
  const auto part = load_part(block, head.uuid, node);
  if (part.ok() && part->has_value()) document.set_path((*part)->path);
  SLUICE_RETURN_IF_ERROR(block
                             .commit({ClusterOp::put(orphan_key(head.uuid, node),
                                                     encode_document(kOrphanFormat, document)),
                                      part_erasure(head.uuid, node)})
                             .status());
  SLUICE_ASSIGN_OR_RETURN(const auto holders, load_holders(block, head.uuid));
  return holders.empty() ? erase_deleted(block, head.uuid) : absl::OkStatus();
}

absl::Status forget_orphan(ClusterBlock& block, const OrphanedPart& orphan) {
  return block.commit({ClusterOp::erase(orphan_key(orphan.backup, orphan.node))}).status();
}

absl::Status end_deletion(ClusterBlock& block, std::string_view uuid,
                          const std::map<std::string, std::string>& reasons, int64_t now_ms) {
  for (int i = 0; i < kTries; ++i) {
    SLUICE_ASSIGN_OR_RETURN(const auto holders, load_holders(block, uuid));
    if (holders.empty()) return erase_deleted(block, uuid);
    auto stored = load_backup(block, uuid);
    if (absl::IsNotFound(stored.status())) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(stored.status());
    BackupHead head = stored->head;
    std::map<std::string, std::string> remaining;
    for (const std::string& node : holders) {
      const auto reason = reasons.find(node);
      remaining[node] = reason == reasons.end() ? node : reason->second;
    }
    head.error = unfinished_text(head, remaining);
    head.changed_ms = now_ms;
    const absl::Status status = update_backup(block, *stored, head);
    if (absl::IsAborted(status)) continue;
    SLUICE_RETURN_IF_ERROR(status);
    return aborted("backup {}: {}", head.name, head.error);
  }
  return unavailable("backup {} could not be changed: others change it all the time", uuid);
}

}  // namespace sluice
