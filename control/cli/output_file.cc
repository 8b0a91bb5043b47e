#include "control/cli/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "base/descriptor.h"
#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr size_t kOutputBufferBytes = size_t{1} << 20;

// What replaces a file is no more open to others than the file was.
absl::Status take_owner_and_mode(int fd, const struct stat& replaced) {
  mode_t mode = replaced.st_mode & 0777;
  // Of another owner's file at least the group, or else nothing for a group.
  if (fchown(fd, replaced.st_uid, replaced.st_gid) != 0 &&
      fchown(fd, static_cast<uid_t>(-1), replaced.st_gid) != 0) {
    mode &= ~static_cast<mode_t>(070);
  }
  return fchmod(fd, mode) == 0 ? absl::OkStatus() : errno_status(errno, "set its mode");
}

}  // namespace

std::string directory_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::open(const std::string& path) {
  struct stat info {};
  const bool there = path != "-" && stat(path.c_str(), &info) == 0;
  if (path == "-" || (there && !S_ISREG(info.st_mode))) {
    if (there && S_ISDIR(info.st_mode))
      return invalid_argument("{} is a directory; name a file", path);
    UniqueFd fd(path == "-" ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)
                            : ::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) return errno_status(errno, fmt::format("open {} for writing", path));
    return std::unique_ptr<OutputFile>(new OutputFile(path, {}, std::move(fd)));
  }
  // A link stays one: the file that it names is replaced.
  char resolved[PATH_MAX];
  const std::string target = there && realpath(path.c_str(), resolved) != nullptr ? resolved : path;
  std::string aside = fmt::format("{}/.sluice-{:016x}.tmp", directory_of(target), entropy());
  UniqueFd fd(::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, there ? 0600 : 0644));
  if (!fd) {
    return errno_status(
        errno, fmt::format("create a file in {} to become {}", directory_of(target), target));
  }
  std::unique_ptr<OutputFile> file(new OutputFile(target, std::move(aside), std::move(fd)));
  if (there)
    SLUICE_RETURN_IF_ERROR(with_context(take_owner_and_mode(file->fd_.get(), info), target));
  return file;
}

OutputFile::~OutputFile() {
  if (!aside_.empty()) unlink(aside_.c_str());
}

absl::Status OutputFile::write_all(std::string_view bytes) {
  const int error = sluice::write_all(fd_.get(), bytes);
  if (error == 0) return absl::OkStatus();
  reader_gone_ = error == EPIPE;
  return errno_status(error, fmt::format("write {}", path_ == "-" ? "stdout" : path_));
}

absl::Status OutputFile::flush() {
  SLUICE_RETURN_IF_ERROR(write_all(buffer_));
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status OutputFile::write(std::string_view bytes) {
  if (buffer_.size() + bytes.size() > kOutputBufferBytes) SLUICE_RETURN_IF_ERROR(flush());
  if (bytes.size() > kOutputBufferBytes) return write_all(bytes);
  buffer_.append(bytes);
  return absl::OkStatus();
}

absl::Status OutputFile::commit() {
  SLUICE_RETURN_IF_ERROR(flush());
  if (aside_.empty()) return absl::OkStatus();
  if (fsync(fd_.get()) != 0) return errno_status(errno, fmt::format("fsync {}", aside_));
  if (rename(aside_.c_str(), path_.c_str()) != 0) {
    return errno_status(errno, fmt::format("rename {} to {}", aside_, path_));
  }
  aside_.clear();
  return sync_folder(directory_of(path_));
}

}  // namespace sluice
