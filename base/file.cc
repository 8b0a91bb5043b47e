#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include <cerrno>

#include "base/defect.h"
#include "base/descriptor.h"
#include "base/parallel.h"
#include "base/random.h"
#include "base/status.h"

namespace sluice {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0 && fd_ != fd) close(fd_);
  fd_ = fd;
}

std::string parent_folder(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::StatusOr<Unsynced> create_file(const std::string& path, std::string_view content) {
  Unsynced file{UniqueFd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)), path};
  if (!file.fd) return errno_status(errno, fmt::format("create {}", path));
  if (const int error = write_all(file.fd.get(), content); error != 0) {
    unlink(path.c_str());
    return errno_status(error, fmt::format("write {}", path));
  }
  return file;
}

absl::StatusOr<Unsynced> open_folder(const std::string& path) {
  Unsynced folder{UniqueFd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), path};
  if (!folder.fd) return errno_status(errno, fmt::format("open directory {}", path));
  return folder;
}

absl::Status sync_together(const std::vector<Unsynced>& open) {
  std::vector<int> errors(open.size());
  parallel_for(open.size(), [&](size_t i) {
    if (fsync(open[i].fd.get()) != 0) errors[i] = errno;
  });
  for (size_t i = 0; i < open.size(); ++i) {
    if (errors[i] != 0) return errno_status(errors[i], fmt::format("fsync {}", open[i].path));
  }
  return absl::OkStatus();
}

absl::Status write_file_durably(const std::string& path, std::string_view content) {
  return write_files_durably({{path, std::string(content)}});
}

absl::Status write_files_durably(const std::vector<NewFile>& files) {
  std::vector<Unsynced> asides;
  absl::Status status;
  for (size_t i = 0; i < files.size() && status.ok(); ++i) {
    auto aside =
        create_file(fmt::format("{}.{:x}.tmp", files[i].path, entropy()), files[i].content);
    status = aside.status();
    if (status.ok()) asides.push_back(*std::move(aside));
  }
  if (status.ok() && !defect(Defect::kRenamedBeforeSync)) status = sync_together(asides);
  for (size_t i = 0; i < files.size() && status.ok(); ++i) {
    if (rename(asides[i].path.c_str(), files[i].path.c_str()) != 0) {
      status = errno_status(errno, fmt::format("rename {} to {}", asides[i].path, files[i].path));
    }
  }
  if (!status.ok()) {
    for (const Unsynced& aside : asides) unlink(aside.path.c_str());
    return status;
  }
  return files.empty() ? status : sync_folder(parent_folder(files[0].path));
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

absl::Status remove_file(const std::string& path) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return errno_status(errno, fmt::format("remove {}", path));
  }
  return absl::OkStatus();
}

absl::Status sync_folder(const std::string& path) {
  if (defect(Defect::kNamesAreNotSynced)) return absl::OkStatus();
  std::vector<Unsynced> folder(1);
  SLUICE_ASSIGN_OR_RETURN(folder[0], open_folder(path));
  return sync_together(folder);
}

absl::Status make_folders(const std::string& path) {
  const std::string parent = parent_folder(path);
  struct stat info {};
  if (stat(path.c_str(), &info) == 0) {
    if (!S_ISDIR(info.st_mode)) {
      return invalid_argument("{} exists and is not a directory", path);
    }
    // Whoever made it may have been killed before its name was durable. In a directory that this
    // process may not read, or that cannot be synced, others have made it.
    const absl::Status synced =
        defect(Defect::kFoundDirectoryIsDurable) ? absl::OkStatus() : sync_folder(parent);
    const bool is_others = absl::IsPermissionDenied(synced) || absl::IsInvalidArgument(synced);
    return is_others ? absl::OkStatus() : synced;
  }
  if (parent != path) SLUICE_RETURN_IF_ERROR(make_folders(parent));
  if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    return errno_status(errno, fmt::format("mkdir {}", path));
  }
  return sync_folder(parent);
}

absl::StatusOr<uint64_t> free_bytes_at(const std::string& path) {
  struct statvfs info {};
  if (statvfs(path.c_str(), &info) != 0) {
    return errno_status(errno, fmt::format("asking for the free space of {}", path));
  }
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

}  // namespace sluice
