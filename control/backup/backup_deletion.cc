#include "control/backup/backup_deletion.h"

#include <functional>
#include <utility>

#include "base/status.h"

namespace sluice {
namespace {

constexpr int kTries = 32;
constexpr size_t kNamed = 16;

std::string unfinished_text(const BackupHead& head,
                            const std::map<std::string, std::string>& reasons) {
  std::string parts;
  size_t named = 0;
  for (const ArchivePart& part : head.archives) {
    if (++named > kNamed) break;
    const auto reason = reasons.find(part.node);
    parts += fmt::format("{}{}", named > 1 ? "; " : "",
                         reason == reasons.end() ? part.node : reason->second);
  }
  if (head.archives.size() > kNamed) {
    parts += fmt::format("; and {} more", head.archives.size() - kNamed);
  }
  return fmt::format(
      "its deletion is unfinished, {} of its parts remain: {}. A node that was away removes its "
      "part "
      "when it returns; 'sluice backup delete {}' tries again",
      head.archives.size(), parts, head.name);
}

// Changes a head whose deletion has begun, or erases it when nothing remains.
absl::Status change(ClusterBlock& block, std::string_view uuid,
                    const std::function<void(BackupHead&)>& edit) {
  for (int i = 0; i < kTries; ++i) {
    auto stored = load_backup(block, uuid);
    if (absl::IsNotFound(stored.status())) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(stored.status());
    BackupHead head = stored->head;
    if (!head.deleting) {
      return failed_precondition("backup {} is {}: it is not being deleted", head.name,
                                 name_of(head.state));
    }
    edit(head);
    absl::Status status = update_backup(block, *stored, head);
    if (absl::IsAborted(status)) continue;
    SLUICE_RETURN_IF_ERROR(status);
    if (!head.archives.empty()) return absl::OkStatus();
    status = erase_backup(block, uuid);
    return absl::IsNotFound(status) ? absl::OkStatus() : status;
  }
  return unavailable("backup {} could not be changed: others change it all the time", uuid);
}

}  // namespace

absl::Status check_completed(const BackupHead& head) {
  if (head.state == BackupState::kCompleted) return absl::OkStatus();
  if (head.deleting) {
    return failed_precondition("backup {} is being deleted, {} of its parts remain", head.name,
                               head.archives.size());
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

absl::Status strike_part(ClusterBlock& block, std::string_view uuid, std::string_view node,
                         int64_t now_ms) {
  return change(block, uuid, [&](BackupHead& head) {
    std::erase_if(head.archives, [&](const ArchivePart& part) { return part.node == node; });
    head.error = unfinished_text(head, {});
    head.changed_ms = now_ms;
  });
}

absl::Status end_deletion(ClusterBlock& block, std::string_view uuid,
                          const std::map<std::string, std::string>& reasons, int64_t now_ms) {
  std::string name;
  std::string error;
  bool remains = false;
  SLUICE_RETURN_IF_ERROR(change(block, uuid, [&](BackupHead& head) {
    head.error = unfinished_text(head, reasons);
    head.changed_ms = now_ms;
    name = head.name;
    error = head.error;
    remains = !head.archives.empty();
  }));
  return remains ? aborted("backup {}: {}", name, error) : absl::OkStatus();
}

}  // namespace sluice
