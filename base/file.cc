#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <cerrno>

#include "base/descriptor.h"
#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

std::string parent_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

void UniqueFd::reset(int fd) {
  if (fd_ >= 0 && fd_ != fd) close(fd_);
  fd_ = fd;
}

absl::Status write_file_durably(const std::string& path, std::string_view content) {
  const std::string aside = fmt::format("{}.{:x}.tmp", path, entropy());
  UniqueFd fd(open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return errno_status(errno, fmt::format("create {}", aside));
  const int error = write_all(fd.get(), content);
  absl::Status status =
      error == 0 ? absl::OkStatus() : errno_status(error, fmt::format("write {}", aside));
  if (status.ok() && fsync(fd.get()) != 0)
    status = errno_status(errno, fmt::format("fsync {}", aside));
  if (status.ok() && rename(aside.c_str(), path.c_str()) != 0) {
    status = errno_status(errno, fmt::format("rename {} to {}", aside, path));
  }
  if (!status.ok()) {
    unlink(aside.c_str());
    return status;
  }
  return sync_folder(parent_of(path));
}

absl::StatusOr<std::string> read_file(const std::string& path, size_t limit) {
  // A pipe in a file's place must not keep its reader waiting.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return errno_status(errno, fmt::format("open {}", path));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return errno_status(errno, fmt::format("stat {}", path));
  if (!S_ISREG(info.st_mode)) {
    return invalid_argument("{} is not a regular file", path);
  }
  if (static_cast<uint64_t>(info.st_size) > limit) {
    return resource_exhausted("{} has {} bytes; the limit is {}", path, info.st_size, limit);
  }
  std::string content(static_cast<size_t>(info.st_size), '\0');
  size_t at = 0;
  while (at < content.size()) {
    const ssize_t got = read_some(fd.get(), content.data() + at, content.size() - at);
    if (got < 0) return errno_status(static_cast<int>(-got), fmt::format("read {}", path));
    if (got == 0) break;
    at += static_cast<size_t>(got);
  }
  content.resize(at);
  return content;
}

absl::Status sync_folder(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno_status(errno, fmt::format("open directory {}", path));
  if (fsync(fd.get()) != 0) return errno_status(errno, fmt::format("fsync directory {}", path));
  return absl::OkStatus();
}

absl::Status make_folders(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return absl::OkStatus();
    return invalid_argument("{} exists and is not a directory", path);
  }
  const std::string parent = parent_of(path);
  if (parent != path) SLUICE_RETURN_IF_ERROR(make_folders(parent));
  if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    return errno_status(errno, fmt::format("mkdir {}", path));
  }
  return sync_folder(parent);
}

}  // namespace sluice
