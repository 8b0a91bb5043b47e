#include "dataplane/archive/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/status.h"
#include "dataplane/archive/manifest.h"

namespace sluice {

absl::StatusOr<std::vector<std::string>> list_folder(const std::string& folder) {
  const auto close = [](DIR* open) { closedir(open); };
  std::unique_ptr<DIR, decltype(close)> open(opendir(folder.c_str()), close);
  if (open == nullptr) return errno_status(errno, fmt::format("open directory {}", folder));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(open.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) return errno_status(errno, fmt::format("read directory {}", folder));
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<uint32_t> numbered(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  const std::string_view digits = name.substr(prefix.size());
  if (digits.size() < 5 || digits.size() > 9 || (digits.size() > 5 && digits[0] == '0')) {
    return std::nullopt;
  }
  uint32_t number = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return std::nullopt;
    number = number * 10 + static_cast<uint32_t>(digit - '0');
  }
  return number;
}

bool is_leftover(std::string_view name) {
  if (!name.ends_with(".tmp")) return false;
  const std::string_view of = name.substr(0, name.find('.'));
  return of == kManifestFile || of == kPartFile || of == kJournalFile || numbered(of, kIndexPrefix);
}

absl::StatusOr<std::vector<std::string>> left_of_writing(const std::string& folder) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<std::string> names, list_folder(folder));
  std::erase_if(names,
                [](const std::string& name) { return name != kJournalFile && !is_leftover(name); });
  return names;
}

bool is_archive_file(std::string_view name) {
  return name == kManifestFile || name == kPartFile || name == kJournalFile ||
         name == kRemovedFile || numbered(name, kSegmentPrefix) || numbered(name, kIndexPrefix) ||
         is_leftover(name);
}

absl::StatusOr<UniqueFd> open_direct(const std::string& path, int flags) {
  UniqueFd file(open(path.c_str(), flags | O_CLOEXEC | O_DIRECT, 0644));
  if (!file && errno == EINVAL) file.reset(open(path.c_str(), flags | O_CLOEXEC, 0644));
  if (!file) return errno_status(errno, fmt::format("open {}", path));
  return file;
}

absl::StatusOr<uint64_t> file_bytes(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return errno_status(errno, fmt::format("stat {}", path));
  if (!S_ISREG(info.st_mode)) return data_loss("{} is not a regular file", path);
  return static_cast<uint64_t>(info.st_size);
}

absl::StatusOr<size_t> read_at(int fd, uint64_t offset, std::span<uint8_t> into,
                               const std::string& path) {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    // A file cut in the middle of a sector: the rest of it cannot be asked for with O_DIRECT.
    if (got < 0 && errno == EINVAL && done % kBlockAlignment != 0) break;
    if (got < 0) return errno_status(errno, fmt::format("read {}", path));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

bool is_zero(std::span<const uint8_t> bytes) {
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace sluice
