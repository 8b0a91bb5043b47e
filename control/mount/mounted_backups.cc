#include "control/mount/mounted_backups.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status.h"

namespace sluice {

namespace {

constexpr int64_t kListedNs = 1'000 * kMs;
constexpr int64_t kFailedNs = 5'000 * kMs;

int64_t now_ns() { return system_clock().monotonic_ns(); }

}  // namespace

absl::Status MountedBackups::refresh_locked() {
  if (listed_ns_.has_value() && now_ns() - *listed_ns_ < kListedNs) return absl::OkStatus();
  absl::StatusOr<std::vector<MountableBackup>> backups = source_.list();
  if (!backups.ok()) {
    // What was there stays in sight: it may be another node that does not answer.
    log_once(fmt::format("cannot list backups: {}", message_of(backups.status())));
    if (!listed_ns_.has_value()) return backups.status();
    listed_ns_ = now_ns();
    return absl::OkStatus();
  }
  std::sort(backups->begin(), backups->end(),
            [](const MountableBackup& a, const MountableBackup& b) { return a.name < b.name; });
  const std::vector<uint64_t> before = std::exchange(listed_, {});
  for (MountableBackup& backup : *backups) {
    const auto [known, added] = numbers_.try_emplace(backup.id, all_.size());
    if (added) all_.push_back(std::make_shared<Mounted>(std::move(backup)));
    listed_.push_back(known->second);
  }
  for (const uint64_t number : before) {
    if (std::find(listed_.begin(), listed_.end(), number) != listed_.end()) continue;
    const MutexLock lock(all_[number]->mutex);
    all_[number]->open.reset();
  }
  listed_ns_ = now_ns();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint64_t>> MountedBackups::list() {
  const MutexLock lock(mutex_);
  SLUICE_RETURN_IF_ERROR(refresh_locked());
  return listed_;
}

std::shared_ptr<MountedBackups::Mounted> MountedBackups::mounted(uint64_t number) {
  const MutexLock lock(mutex_);
  return number < all_.size() ? all_[number] : nullptr;
}

MountableBackup MountedBackups::backup(uint64_t number) {
  const auto found = mounted(number);
  return found == nullptr ? MountableBackup() : found->backup;
}

absl::StatusOr<std::shared_ptr<const OpenBackup>> MountedBackups::build(
    const MountableBackup& backup) {
  auto open = std::make_shared<OpenBackup>();
  SLUICE_ASSIGN_OR_RETURN(open->contents, source_.open(backup));
  SLUICE_ASSIGN_OR_RETURN(
      open->index, BackupIndex::build(*open->contents, [&](const absl::Status& damage) {
        log_once(
            fmt::format("backup {}: entries may be missing: {}", backup.name, message_of(damage)));
      }));
  if (open->index->left_out() > 0) {
    log_once(fmt::format(
        "backup {}: {} keys are not shown: no file can have such a path, or another one has it",
        backup.name, open->index->left_out()));
  }
  return open;
}

absl::StatusOr<std::shared_ptr<const OpenBackup>> MountedBackups::open(uint64_t number) {
  const auto found = mounted(number);
  if (found == nullptr) return not_found("no backup has number {}", number);
  const MutexLock lock(found->mutex);
  if (found->open != nullptr) return found->open;
  if (!found->failed.ok() && now_ns() - found->failed_ns < kFailedNs) return found->failed;
  auto open = build(found->backup);
  if (open.ok()) {
    found->open = *open;
    return open;
  }
  found->failed = open.status();
  found->failed_ns = now_ns();
  log_once(fmt::format("backup {}: {}", found->backup.name, message_of(open.status())));
  return open.status();
}

absl::StatusOr<std::unique_ptr<FileReader>> MountedBackups::open_file(uint64_t number,
                                                                      const OpenBackup& backup,
                                                                      uint64_t node) {
  const BackupIndex& index = *backup.index;
  const IndexNode& link = index.node(node);
  if (link.type == EntryType::kHardLink && link.linked == IndexNode::kNone) {
    return data_loss("its content, which '{}' had, is not in the backup", index.target(link));
  }
  const uint64_t file = link.type == EntryType::kHardLink ? link.linked : node;
  return FileReader::open(*backup.contents, cache_, std::to_string(number), index.key(file));
}

void MountedBackups::log_once(const std::string& line) {
  const MutexLock lock(log_mutex_);
  if (logged_.size() == kLines) logged_.clear();
  if (logged_.insert(line).second) log_(line);
}

}  // namespace sluice
