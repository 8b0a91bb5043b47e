// The backups that a mount shows: which there are, and what is in those that are looked into.
//
// Thread-safe. An index is built when its backup is first looked into, by the thread that does;
// others that want the same wait. Indexes of backups that are no longer listed are given up.
#ifndef SLUICE_CONTROL_MOUNT_MOUNTED_BACKUPS_H_
#define SLUICE_CONTROL_MOUNT_MOUNTED_BACKUPS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/contents/backup_contents.h"
#include "control/contents/file_reader.h"
#include "control/mount/backup_index.h"

namespace sluice {

struct MountableBackup {
  std::string name;  // of its directory
  std::string id;    // distinguishes it from others, of other times too
  int64_t created_ms = 0;
};

// Where backups are: a cluster, or directories. Thread-safe.
class BackupSource {
 public:
  virtual ~BackupSource() = default;
  // Complete ones.
  virtual absl::StatusOr<std::vector<MountableBackup>> list() = 0;
  virtual absl::StatusOr<std::unique_ptr<BackupContents>> open(const MountableBackup& backup) = 0;
};

// Archives in these directories, one for each part, by the names of their backups.
// FAILED_PRECONDITION where parts of one are missing, or two have one name.
absl::StatusOr<std::unique_ptr<BackupSource>> open_local_source(
    const std::vector<std::string>& directories);

// A backup that is looked into.
struct OpenBackup {
  std::unique_ptr<BackupContents> contents;
  std::unique_ptr<BackupIndex> index;
};

class MountedBackups {
 public:
  static constexpr size_t kCachedBytes = size_t{64} << 20;  // of content, all files together
  static constexpr size_t kLines = 4096;  // that are remembered not to be repeated

  // Each line that is logged is logged once. `log` may be called by any thread.
  using Log = std::function<void(const std::string& line)>;
  MountedBackups(BackupSource& source, Log log) : source_(source), log_(std::move(log)) {}

  // Numbers of the backups that there are now, by name; a second old at most. A number stays with
  // its backup.
  absl::StatusOr<std::vector<uint64_t>> list();
  MountableBackup backup(uint64_t number);
  // NOT_FOUND for a number that never was. What failed lately fails again for five seconds.
  absl::StatusOr<std::shared_ptr<const OpenBackup>> open(uint64_t number);
  // Of the node, which is a file, a record, or a hard link to a file.
  absl::StatusOr<std::unique_ptr<FileReader>> open_file(uint64_t number, const OpenBackup& backup,
                                                        uint64_t node);
  void log_once(const std::string& line);

 private:
  struct Mounted {
    explicit Mounted(MountableBackup mountable) : backup(std::move(mountable)) {}
    const MountableBackup backup;
    Mutex mutex;
    std::shared_ptr<const OpenBackup> open SLUICE_GUARDED_BY(mutex);
    absl::Status failed SLUICE_GUARDED_BY(mutex);
    int64_t failed_ns SLUICE_GUARDED_BY(mutex) = 0;
  };
  absl::Status refresh_locked() SLUICE_REQUIRES(mutex_);
  std::shared_ptr<Mounted> mounted(uint64_t number);
  absl::StatusOr<std::shared_ptr<const OpenBackup>> build(const MountableBackup& backup);

  BackupSource& source_;
  const Log log_;
  ValueCache cache_{kCachedBytes};
  Mutex mutex_;
  std::vector<std::shared_ptr<Mounted>> all_ SLUICE_GUARDED_BY(mutex_);  // by number
  std::map<std::string, uint64_t> numbers_ SLUICE_GUARDED_BY(mutex_);    // by id
  std::vector<uint64_t> listed_ SLUICE_GUARDED_BY(mutex_);
  std::optional<int64_t> listed_ns_ SLUICE_GUARDED_BY(mutex_);
  Mutex log_mutex_;
  std::unordered_set<std::string> logged_ SLUICE_GUARDED_BY(log_mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_MOUNT_MOUNTED_BACKUPS_H_
