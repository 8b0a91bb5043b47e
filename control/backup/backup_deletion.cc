#include "control/backup/backup_deletion.h"

#include <utility>

#include "base/status.h"
#include "control/backup/backup_details.h"

namespace sluice {
namespace {

constexpr int kTries = 32;
constexpr size_t kNamed = 16;

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
                    "backup delete {}' tries again",
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
