#include "tree/tree_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "tree/beneath.h"
#include "tree/extents.h"

namespace sluice {
namespace {

// File times advance with the kernel's timer, at most this far apart.
constexpr int64_t kTickNs = 10 * kMs;
constexpr int kTicksAwaited = 3;

UniqueFd open_to_read(int root, std::string_view path) {
  UniqueFd fd = open_beneath(root, path, O_RDONLY | O_NONBLOCK | O_NOATIME);
  if (!fd && errno == EPERM) fd = open_beneath(root, path, O_RDONLY | O_NONBLOCK);
  return fd;
}

bool changed_just_now(const struct stat& info) {
  const int64_t now_ns = system_clock().wall_ms() * kMs;
  const int64_t age_ns = now_ns - identity_of(info).ctime_ns;
  return age_ns > -kTickNs && age_ns < 2 * kTickNs;
}

}  // namespace

absl::StatusOr<TreeFile> TreeFile::open(int root, std::string_view path, OwnerNames& names) {
  TreeFile file;
  file.fd_ = open_to_read(root, path);
  if (!file.fd_) return errno_status(errno, "open");
  struct stat info {};
  if (fstat(file.fd(), &info) != 0) return errno_status(errno, "read its metadata");
  // Nothing else is read, as a pipe might give nothing and not end.
  if (!S_ISREG(info.st_mode)) return aborted("it is no longer a file");
  for (int ticks = 0; changed_just_now(info); ++ticks) {
    file.busy_ = ticks == kTicksAwaited;
    if (file.busy_) break;
    system_clock().sleep_ns(kTickNs);
    if (fstat(file.fd(), &info) != 0) return errno_status(errno, "read its metadata");
  }
  file.metadata_ = metadata_of(info);
  file.identity_ = identity_of(info);
  file.sparse_ =
      has_holes(file.fd(), file.metadata_.size, static_cast<uint64_t>(info.st_blocks) * 512);
  names.name(&file.metadata_);
  SLUICE_ASSIGN_OR_RETURN(file.metadata_.attributes, read_attributes(file.fd()));
  return file;
}

absl::StatusOr<bool> TreeFile::changed() const {
  if (busy_) return true;
  struct stat info {};
  if (fstat(fd(), &info) != 0) return errno_status(errno, "read its metadata");
  return identity_of(info) != identity_ || static_cast<uint64_t>(info.st_size) != metadata_.size ||
         info.st_mtim.tv_sec != metadata_.mtime_seconds ||
         static_cast<uint32_t>(info.st_mtim.tv_nsec) != metadata_.mtime_nanoseconds;
}

}  // namespace sluice
