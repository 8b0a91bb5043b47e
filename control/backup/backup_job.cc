#include "control/backup/backup_job.h"

#include <string>

#include "base/status.h"
#include "control/backup/documents.h"

namespace sluice {

absl::StatusOr<std::unique_ptr<Job>> take_backup_job(const NodeContext& context,
                                                     const std::string& uuid,
                                                     const std::string& name,
                                                     const BackupPatience& patience,
                                                     const std::vector<ClusterOp>& with) {
  ClusterBlock& block = *context.block;
  auto job =
      Job::take(block, {fmt::format("backup {}", name), backup_head_key(uuid), kBackupLockKey},
                fmt::format("{} {} {}", uuid, context.name, name),
                {fmt::format("the coordinator {}", context.name), context.clock, patience.block_ms,
                 patience.lease_ms},
                with);
  if (job.ok() || !absl::IsAborted(job.status())) return job;
  std::string running = "another backup";
  const auto holder = block.get(kBackupLockKey);
  if (holder.ok() && !holder->has_value() && !with.empty()) return job;
  if (holder.ok() && holder->has_value()) {
    const std::string& value = (*holder)->value;
    const size_t first = value.find(' ');
    const size_t second = first == std::string::npos ? first : value.find(' ', first + 1);
    if (second != std::string::npos) {
      running = fmt::format("backup {} (coordinator {})", value.substr(second + 1),
                            value.substr(first + 1, second - first - 1));
    }
  }
  return already_exists("{} is running; one backup runs at a time", running);
}

absl::Status check_attempt(ClusterBlock& block, const std::string& backup, uint64_t attempt) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(backup_head_key(backup)));
  if (!entry.has_value()) {
    SLUICE_ASSIGN_OR_RETURN(const auto holder, block.get(kBackupLockKey));
    if (holder.has_value() && holder->value.starts_with(backup + " ")) return absl::OkStatus();
    return not_found("backup {} does not exist, or was deleted", backup);
  }
  const auto head = decode_backup_head(entry->key, entry->value);
  if (!head.ok() || head->attempt == attempt) return absl::OkStatus();
  return failed_precondition("backup {} is at attempt {}; attempt {} is {}", head->name,
                             head->attempt, attempt,
                             attempt < head->attempt ? "over" : "not begun");
}

}  // namespace sluice
