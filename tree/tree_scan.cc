#include "tree/tree_scan.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/status.h"
#include "tree/beneath.h"

namespace sluice {
namespace {

constexpr size_t kBatch = size_t{256} << 10;
constexpr size_t kOpenLevels = 64;

// As the kernel lays it out.
struct DirectoryEntry {
  uint64_t inode;
  int64_t offset;
  uint16_t bytes;
  uint8_t type;
  char name[];
};

struct Name {
  std::string name;
  uint8_t type = DT_UNKNOWN;
};

size_t max_open_levels() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 2;
  return std::clamp<size_t>(limit.rlim_cur / 8, 2, kOpenLevels);
}

std::vector<Name> names_in(const char* batch, size_t bytes) {
  std::vector<Name> names;
  for (size_t at = 0; at < bytes;) {
    const auto* entry = reinterpret_cast<const DirectoryEntry*>(batch + at);
    at += entry->bytes;
    const std::string_view name = entry->name;
    if (name != "." && name != "..") names.push_back({std::string(name), entry->type});
  }
  std::sort(names.begin(), names.end(),
            [](const Name& a, const Name& b) { return a.name < b.name; });
  return names;
}

std::string text_of(int error) { return std::strerror(error); }

}  // namespace

struct TreeScanner::Level {
  size_t parent_bytes = 0;  // of path_ above it
  UniqueFd fd;              // not open: what was open last is read from `offset` on
  off_t offset = 0;
  std::pair<uint64_t, uint64_t> identity;
  bool read = false;                 // to its end
  std::vector<std::string> pending;  // directories of the last batch, the next one last
};

TreeScanner::TreeScanner(int root, const TreeScanOptions& options, OwnerNames& names,
                         TreeScanHandler& handler)
    : root_(root),
      options_(options),
      names_(names),
      handler_(handler),
      max_open_(max_open_levels()),
      buffer_(kBatch) {}

TreeScanner::~TreeScanner() = default;

std::string TreeScanner::path_of(const std::string& name) const {
  return path_.empty() ? name : path_ + "/" + name;
}

absl::Status TreeScanner::run() {
  struct stat info {};
  if (fstat(root_, &info) != 0) return errno_status(errno, "read the root's metadata");
  root_device_ = info.st_dev;
  if (!handler_.stopped()) enter(".");
  while (!levels_.empty() && !handler_.stopped()) {
    Level& level = *levels_.back();
    if (!level.pending.empty()) {
      const std::string name = std::move(level.pending.back());
      level.pending.pop_back();
      enter(name);
    } else if (!level.read) {
      read_batch();
    } else {
      leave();
    }
  }
  return absl::OkStatus();
}

void TreeScanner::enter(const std::string& name) {
  const bool root = levels_.empty();
  if (!root && !reopen()) return leave();
  const int parent = root ? root_ : levels_.back()->fd.get();
  const std::string path = root ? "." : path_of(name);
  constexpr int kFlags = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  UniqueFd fd(openat(parent, name.c_str(), O_RDONLY | kFlags));
  const int error = errno;
  // One that cannot be read is told of as such, without what is in it.
  const UniqueFd place(fd ? -1 : openat(parent, name.c_str(), O_PATH | kFlags));
  struct stat info {};
  if ((!fd && !place) || fstat(fd ? fd.get() : place.get(), &info) != 0)
    return handler_.on_failed(path, text_of(errno));
  ScannedEntry entry{path, metadata_of(info), identity_of(info)};
  names_.name(&entry.metadata);
  auto attributes = fd ? read_attributes(fd.get()) : read_attributes_at(parent, name);
  if (attributes.ok()) {
    entry.metadata.attributes = *std::move(attributes);
  } else {
    handler_.on_failed(path, std::string(message_of(attributes.status())));
  }
  if (!handler_.on_entry(std::move(entry))) return;
  if (!fd) return handler_.on_failed(path, text_of(error));
  const std::pair<uint64_t, uint64_t> identity(info.st_dev, info.st_ino);
  if (!root && options_.one_file_system && info.st_dev != root_device_)
    return handler_.on_left_out(path, LeftOut::kOtherFileSystem);
  if (!entered_.insert(identity).second) return handler_.on_left_out(path, LeftOut::kLoop);
  auto level = std::make_unique<Level>();
  level->parent_bytes = path_.size();
  level->fd = std::move(fd);
  level->identity = identity;
  if (!root) path_ = path;
  levels_.push_back(std::move(level));
  if (++open_levels_ > max_open_) close_outermost();
}

void TreeScanner::close_outermost() {
  for (const auto& level : levels_) {
    if (!level->fd) continue;
    level->offset = lseek(level->fd.get(), 0, SEEK_CUR);
    level->fd.reset();
    --open_levels_;
    return;
  }
}

bool TreeScanner::reopen() {
  Level& level = *levels_.back();
  if (level.fd) return true;
  const std::string path = path_.empty() ? "." : path_;
  level.fd = open_beneath(root_, path, O_RDONLY | O_DIRECTORY);
  struct stat info {};
  if (!level.fd || fstat(level.fd.get(), &info) != 0) {
    handler_.on_failed(path, text_of(errno));
  } else if (level.identity != std::pair<uint64_t, uint64_t>(info.st_dev, info.st_ino)) {
    handler_.on_failed(path, "another directory took its place while it was read");
  } else if (lseek(level.fd.get(), level.offset, SEEK_SET) < 0) {
    handler_.on_failed(path, text_of(errno));
  } else {
    ++open_levels_;
    return true;
  }
  level.fd.reset();
  return false;
}

void TreeScanner::leave() {
  const Level& level = *levels_.back();
  if (level.fd) --open_levels_;
  entered_.erase(level.identity);
  path_.resize(level.parent_bytes);
  levels_.pop_back();
}

void TreeScanner::read_batch() {
  if (!reopen()) return leave();
  Level& level = *levels_.back();
  const long got = syscall(SYS_getdents64, level.fd.get(), buffer_.data(), buffer_.size());
  if (got < 0) {
    level.read = true;
    // ENOENT: it was removed; what was told of it stays true until then.
    return handler_.on_failed(path_.empty() ? "." : path_, text_of(errno));
  }
  if (got == 0) {
    level.read = true;
    return;
  }
  for (const Name& name : names_in(buffer_.data(), static_cast<size_t>(got))) {
    if (handler_.stopped()) return;
    visit(name.name, name.type);
  }
  std::reverse(level.pending.begin(), level.pending.end());
}

void TreeScanner::visit(const std::string& name, uint8_t type) {
  Level& level = *levels_.back();
  const std::string path = path_of(name);
  struct stat info {};
  const bool known = type != DT_UNKNOWN;
  const auto excluded = [&](bool directory) {
    if (options_.exclude.empty() || !options_.exclude.excludes(path, directory)) return false;
    handler_.on_left_out(path, LeftOut::kExcluded);
    return true;
  };
  if (known && excluded(type == DT_DIR)) return;
  if (type == DT_DIR) return level.pending.push_back(name);
  if (fstatat(level.fd.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0)
    return handler_.on_failed(path, text_of(errno));
  if (!known && excluded(S_ISDIR(info.st_mode))) return;
  if (S_ISDIR(info.st_mode)) return level.pending.push_back(name);
  if (S_ISSOCK(info.st_mode)) return handler_.on_left_out(path, LeftOut::kSocket);
  if (options_.one_file_system && info.st_dev != root_device_)
    return handler_.on_left_out(path, LeftOut::kOtherFileSystem);
  tell(name, info);
}

void TreeScanner::tell(const std::string& name, const struct stat& info) {
  ScannedEntry entry{path_of(name), metadata_of(info), identity_of(info)};
  if (!S_ISREG(info.st_mode)) {
    auto metadata = read_special(levels_.back()->fd.get(), name, info, names_);
    if (!metadata.ok())
      return handler_.on_failed(entry.path, std::string(message_of(metadata.status())));
    entry.metadata = *std::move(metadata);
  }
  handler_.on_entry(std::move(entry));
}

}  // namespace sluice
