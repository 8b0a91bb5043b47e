#include "control/cli/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

}  // namespace

std::string folder_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::open(const std::string& path) {
  std::string aside;
  UniqueFd fd;
  struct stat info {};
  if (path == "-") {
    fd.reset(dup(STDOUT_FILENO));
  } else if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    if (S_ISDIR(info.st_mode)) return invalid_argument("{} is a folder; name a file", path);
    fd.reset(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  } else {
    aside = fmt::format("{}.{:x}.tmp", path, entropy());
    fd.reset(::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  }
  if (!fd)
    return errno_status(errno, fmt::format("open {} for writing", aside.empty() ? path : aside));
  return std::unique_ptr<OutputFile>(new OutputFile(path, std::move(aside), std::move(fd)));
}

OutputFile::~OutputFile() {
  if (!aside_.empty()) unlink(aside_.c_str());
}

absl::Status OutputFile::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(fd_.get(), bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) {
      reader_gone_ = errno == EPIPE;
      return errno_status(errno, fmt::format("write {}", path_ == "-" ? "stdout" : path_));
    }
    bytes.remove_prefix(static_cast<size_t>(done));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::flush() {
  SLUICE_RETURN_IF_ERROR(write_all(buffer_));
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status OutputFile::write(std::string_view bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) SLUICE_RETURN_IF_ERROR(flush());
  if (bytes.size() > kBufferBytes) return write_all(bytes);
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
  return sync_folder(folder_of(path_));
}

}  // namespace sluice
