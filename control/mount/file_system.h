// Backups as a file system of the kernel's, read-only, by FUSE: BACKUP/PATH.
//
// Low-level FUSE: the kernel asks by inode number, and an index knows its entries by number, so
// nothing is kept for what the kernel has seen. What is in a backup does not change: the kernel may
// keep it as long as it likes; the list of backups it asks for again each second.
//
// An entry that is damaged, or whose holder does not answer, is EIO, and logged once; names that
// damage may have hidden are EIO as well. Memory: MountedBackups, the files that are open
// (FileReader), and a mebibyte for each thread that serves.
#ifndef SLUICE_CONTROL_MOUNT_FILE_SYSTEM_H_
#define SLUICE_CONTROL_MOUNT_FILE_SYSTEM_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/mount/mounted_backups.h"

namespace sluice {

struct MountOptions {
  std::string directory;
  // Also for others than the user who mounts; modes and owners then decide who reads what.
  // Otherwise that user reads all.
  bool allow_other = false;
};

class BackupFileSystem {
 public:
  static constexpr int kThreads = 8;

  // Mounts at once; what is asked for waits until serve(). The source outlives it. Errors name the
  // directory, and what is missing: /dev/fuse, or a privilege. One in a process at a time.
  static absl::StatusOr<std::unique_ptr<BackupFileSystem>> mount(BackupSource& source,
                                                                 const MountOptions& options,
                                                                 MountedBackups::Log log);
  // Unmounts: at once, though files may still be open.
  virtual ~BackupFileSystem() = default;

  // Serves until stop(), or until somebody else unmounts it. Called once.
  virtual absl::Status serve() = 0;
  // From any thread; does not wait.
  virtual void stop() = 0;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_MOUNT_FILE_SYSTEM_H_
