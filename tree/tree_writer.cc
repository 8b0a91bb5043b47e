#include "tree/tree_writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/descriptor.h"
#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr size_t kOpenParents = 256;
constexpr mode_t kWorkMode =
    0700;  // of directories until the end, so that files can be made in them
constexpr uint64_t kCopyBytes = uint64_t{1} << 20;

// Connections and the writer's own files need descriptors too.
size_t max_open_parents() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
  return std::clamp<size_t>(limit.rlim_cur / 8, 1, kOpenParents);
}

// "." is shorter than any of its children, but not than all names.
bool deeper_first(const std::string& a, const std::string& b) {
  const bool a_root = a == ".";
  const bool b_root = b == ".";
  if (a_root != b_root) return b_root;
  return a.size() != b.size() ? a.size() > b.size() : a > b;
}

mode_t type_bits(FileType type) {
  switch (type) {
    case FileType::kPipe:
      return S_IFIFO;
    case FileType::kCharacterDevice:
      return S_IFCHR;
    default:
      return S_IFBLK;
  }
}

void drop_lists(int fd) {
  for (const char* name : {"system.posix_acl_default", "system.posix_acl_access"})
    fremovexattr(fd, name);
}

void count_removed(uint8_t type, Removed* removed) {
  ++(type == DT_REG ? removed->files : type == DT_DIR ? removed->directories : removed->others);
}

}  // namespace

TreeWriter::TreeWriter(const TreeWriterOptions& options, AskAbout in_the_way)
    : options_(options), in_the_way_(std::move(in_the_way)), max_parents_(max_open_parents()) {}

TreeWriter::~TreeWriter() {
  remove_staging();
  close_directories();
}

absl::StatusOr<std::unique_ptr<TreeWriter>> TreeWriter::open(const TreeWriterOptions& options,
                                                             AskAbout in_the_way) {
  std::unique_ptr<TreeWriter> writer(new TreeWriter(options, std::move(in_the_way)));
  SLUICE_RETURN_IF_ERROR(writer->open_target());
  return writer;
}

absl::Status TreeWriter::open_target() {
  const std::string& directory = options_.directory;
  SLUICE_RETURN_IF_ERROR(make_folders(directory));
  const UniqueFd place(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place) return errno_status(errno, fmt::format("open directory {}", directory));
  SLUICE_RETURN_IF_ERROR(with_context(make_workable(place.get(), "."), directory));
  root_.reset(openat(place.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_) return errno_status(errno, fmt::format("open directory {}", directory));
  staging_name_ = fmt::format(".sluice-export-{:016x}", entropy());
  if (mkdirat(root_.get(), staging_name_.c_str(), kWorkMode) != 0)
    return errno_status(errno, fmt::format("make a directory in {}", directory));
  staging_.reset(
      openat(root_.get(), staging_name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!staging_) return errno_status(errno, fmt::format("open a directory in {}", directory));
  // What is made in it would inherit them.
  drop_lists(staging_.get());
  return absl::OkStatus();
}

// Gives a directory, and nothing else, a mode in which its owner can move and empty it. No link is
// followed.
void make_own(int parent, const char* name) {
  const UniqueFd place(openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  // Through /proc, as such a descriptor takes no fchmod.
  if (place) chmod(fmt::format("/proc/self/fd/{}", place.get()).c_str(), kWorkMode);
}

Removed TreeWriter::purge(const std::string& staged) {
  Removed removed;
  // Directories are moved up before they are emptied, so that depth costs nothing.
  std::vector<std::string> directories = {staged};
  while (!directories.empty()) {
    const std::string name = std::move(directories.back());
    directories.pop_back();
    struct stat info {};
    if (fstatat(staging_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISDIR(info.st_mode)) {
      unlinkat(staging_.get(), name.c_str(), 0);
      count_removed(S_ISREG(info.st_mode) ? DT_REG : DT_LNK, &removed);
      continue;
    }
    make_own(staging_.get(), name.c_str());
    const int fd =
        openat(staging_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR* const directory = fd < 0 ? nullptr : fdopendir(fd);
    if (directory == nullptr) continue;
    while (const dirent* entry = readdir(directory)) {
      const std::string_view child = entry->d_name;
      if (child == "." || child == "..") continue;
      if (unlinkat(fd, entry->d_name, 0) == 0) {
        count_removed(entry->d_type, &removed);
        continue;
      }
      std::string moved = stage_name();
      // A directory takes its new parent's place in its ".." entry, for which it must be writable.
      make_own(fd, entry->d_name);
      if (renameat(fd, entry->d_name, staging_.get(), moved.c_str()) == 0)
        directories.push_back(std::move(moved));
    }
    closedir(directory);
    if (unlinkat(staging_.get(), name.c_str(), AT_REMOVEDIR) == 0) count_removed(DT_DIR, &removed);
  }
  return removed;
}

void TreeWriter::remove_staging() {
  if (!staging_) return;
  if (DIR* directory = fdopendir(dup(staging_.get())); directory != nullptr) {
    rewinddir(directory);
    std::vector<std::string> names;
    while (const dirent* entry = readdir(directory)) {
      const std::string name = entry->d_name;
      if (name != "." && name != ".." && unlinkat(staging_.get(), entry->d_name, 0) != 0)
        names.push_back(name);
    }
    closedir(directory);
    for (const std::string& name : names) purge(name);
  }
  staging_.reset();
  unlinkat(root_.get(), staging_name_.c_str(), AT_REMOVEDIR);
}

// Who is not root, or is root without its capabilities, needs rights in a directory to make
// something in it, also where it is its own. Until close_directories() it has them; an export that
// was here before may have made it read-only.
absl::Status TreeWriter::make_workable(int place, const std::string& path) {
  if (faccessat(place, ".", R_OK | W_OK | X_OK, AT_EACCESS) == 0) return absl::OkStatus();
  struct stat info {};
  if (fstat(place, &info) != 0) return errno_status(errno, "read the directory's metadata");
  if (info.st_uid != geteuid()) return absl::OkStatus();
  // Through /proc, as a descriptor without rights to read takes no fchmod.
  const std::string here = fmt::format("/proc/self/fd/{}", place);
  if (chmod(here.c_str(), (info.st_mode & 07777) | kWorkMode) != 0)
    return errno_status(errno, "make the directory writable");
  opened_.emplace(path, info.st_mode & 07777);
  return absl::OkStatus();
}

// What no entry gives a mode gets back the one it had.
void TreeWriter::close_directories() {
  // Deepest first: the way to a directory may make those above it workable once more.
  while (!opened_.empty()) {
    const auto deepest = std::min_element(
        opened_.begin(), opened_.end(),
        [](const auto& a, const auto& b) { return deeper_first(a.first, b.first); });
    const auto [path, mode] = *deepest;
    const auto fd = open_directory(path);
    opened_.erase(path);
    if (fd.ok()) fchmod(fd->get(), mode);
  }
}

// The directory of that name, made where it is not there.
absl::StatusOr<UniqueFd> TreeWriter::open_name(int parent, const std::string& name,
                                               const std::string& path) {
  constexpr int kFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  for (int attempt = 0;; ++attempt) {
    if (mkdirat(parent, name.c_str(), kWorkMode) == 0) {
      made_.insert(path);
    } else if (errno != EEXIST) {
      return errno_status(errno, fmt::format("make directory '{}'", name));
    }
    UniqueFd place(openat(parent, name.c_str(), kFlags));
    if (place) {
      SLUICE_RETURN_IF_ERROR(make_workable(place.get(), path));
      UniqueFd fd(openat(place.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!fd) return errno_status(errno, fmt::format("open directory '{}'", name));
      return fd;
    }
    if ((errno != ELOOP && errno != ENOTDIR) || attempt > 0)
      return errno_status(errno, fmt::format("open directory '{}'", name));
    const InTheWay answer = in_the_way_ ? in_the_way_(path) : InTheWay::kRefuse;
    if (answer == InTheWay::kSuperseded) return aborted("'{}' is not a directory any more", name);
    if (answer == InTheWay::kRefuse) {
      return failed_precondition("'{}' is there and is not a directory (links are not followed)",
                                 name);
    }
    if (unlinkat(parent, name.c_str(), 0) != 0 && errno != ENOENT)
      return errno_status(errno, fmt::format("remove '{}', which is not a directory", name));
  }
}

absl::StatusOr<UniqueFd> TreeWriter::open_directory(std::string_view path) {
  UniqueFd directory(fcntl(root_.get(), F_DUPFD_CLOEXEC, 0));
  if (!directory) return errno_status(errno, "open a directory");
  std::string done;
  while (!path.empty() && path != ".") {
    const size_t slash = path.find('/');
    const std::string name(path.substr(0, slash));
    path = slash == std::string_view::npos ? "" : path.substr(slash + 1);
    done += (done.empty() ? "" : "/") + name;
    SLUICE_ASSIGN_OR_RETURN(directory, open_name(directory.get(), name, done));
  }
  return directory;
}

// The descriptor stays this object's.
absl::StatusOr<int> TreeWriter::open_parent(std::string_view path, std::string* name) {
  const size_t slash = path.rfind('/');
  *name = std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
  if (slash == std::string_view::npos) return root_.get();
  const std::string parent(path.substr(0, slash));
  if (const auto found = parents_.find(parent); found != parents_.end()) return found->second.get();
  SLUICE_ASSIGN_OR_RETURN(UniqueFd directory, open_directory(parent));
  struct stat info {};
  if (fstat(directory.get(), &info) == 0 && !file_systems_.contains(info.st_dev))
    file_systems_[info.st_dev].reset(fcntl(directory.get(), F_DUPFD_CLOEXEC, 0));
  if (parents_.size() >= max_parents_) parents_.clear();
  return parents_.emplace(parent, std::move(directory)).first->second.get();
}

absl::StatusOr<UniqueFd> TreeWriter::stage(const std::string& staged) {
  UniqueFd fd(
      openat(staging_.get(), staged.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return errno_status(errno, "create a file");
  return fd;
}

void TreeWriter::discard(const std::string& staged) { unlinkat(staging_.get(), staged.c_str(), 0); }

absl::Status TreeWriter::write(int fd, const std::vector<Extent>& extents,
                               std::string_view content) {
  for (const Extent& extent : extents) {
    uint64_t offset = extent.offset;
    std::string_view left = content.substr(0, extent.length);
    content.remove_prefix(left.size());
    while (!left.empty()) {
      const ssize_t done = pwrite(fd, left.data(), left.size(), static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return errno_status(errno, "write");
      left.remove_prefix(static_cast<size_t>(done));
      offset += static_cast<uint64_t>(done);
    }
  }
  return absl::OkStatus();
}

absl::Status TreeWriter::set_metadata(const std::string& staged, const FileMetadata& metadata) {
  const UniqueFd fd(openat(staging_.get(), staged.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return errno_status(errno, "open what was made");
  return set_metadata_of(fd.get(), metadata, options_.numeric_owner ? nullptr : &names_, false,
                         &not_set_);
}

// Across file systems: the file is written once more, beside its place.
absl::Status TreeWriter::copy_beside(const std::string& staged, int parent,
                                     const std::string& name) {
  const UniqueFd from(openat(staging_.get(), staged.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!from || fstat(from.get(), &info) != 0) return errno_status(errno, "open what was made");
  if (!S_ISREG(info.st_mode))
    return unimplemented("cannot make a link, pipe or device on a file system mounted here");
  const std::string beside = staging_name_ + "-" + staged;
  const UniqueFd to(
      openat(parent, beside.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!to) return errno_status(errno, "create a file");
  drop_lists(to.get());
  const auto copy = [&]() -> absl::Status {
    ExtentReader data(from.get(), static_cast<uint64_t>(info.st_size), kCopyBytes);
    while (true) {
      SLUICE_ASSIGN_OR_RETURN(const std::vector<Extent> extents, data.next());
      if (extents.empty()) break;
      std::string content(bytes_of(extents), '\0');
      SLUICE_ASSIGN_OR_RETURN(const bool whole, read_extents(from.get(), extents, content.data()));
      if (!whole) return internal_error("a staged file became shorter");
      SLUICE_RETURN_IF_ERROR(write(to.get(), extents, content));
    }
    if (ftruncate(to.get(), info.st_size) != 0) return errno_status(errno, "set its size");
    FileMetadata metadata = sluice::metadata_of(info);
    SLUICE_ASSIGN_OR_RETURN(metadata.attributes, read_attributes(from.get()));
    SLUICE_RETURN_IF_ERROR(set_metadata_of(to.get(), metadata, nullptr, false, &not_set_));
    if (options_.sync_files && fsync(to.get()) != 0) return errno_status(errno, "sync");
    if (renameat(parent, beside.c_str(), parent, name.c_str()) != 0)
      return errno_status(errno, "rename into place");
    return absl::OkStatus();
  };
  const absl::Status status = copy();
  if (status.ok()) {
    discard(staged);
  } else {
    unlinkat(parent, beside.c_str(), 0);
  }
  return status;
}

bool TreeWriter::is_replaced(std::string_view path) const {
  if (replaced_.empty()) return false;
  for (size_t slash = path.find('/');; slash = path.find('/', slash + 1)) {
    if (replaced_.contains(std::string(path.substr(0, slash)))) return true;
    if (slash == std::string_view::npos) return false;
  }
}

absl::Status TreeWriter::replace_directory(const std::string& staged, int parent,
                                           const std::string& name, const std::string& path) {
  const bool mine = made_.contains(path);
  if (unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0) {
    if (mine) ++removed_.directories;
    if (renameat(staging_.get(), staged.c_str(), parent, name.c_str()) != 0)
      return errno_status(errno, "rename into place");
  } else {
    if (!mine && !options_.replace_directories) {
      return failed_precondition(
          "a directory that is not empty stands in its place; remove it, or use --force");
    }
    // Moving a directory changes its ".." entry.
    make_own(parent, name.c_str());
    // In one step, so that there is never nothing.
    if (renameat2(staging_.get(), staged.c_str(), parent, name.c_str(), RENAME_EXCHANGE) != 0)
      return errno_status(errno, "put it in the place of a directory");
    const Removed gone = purge(staged);
    if (mine) {
      removed_.files += gone.files;
      removed_.directories += gone.directories;
      removed_.others += gone.others;
    }
  }
  parents_.clear();
  std::erase_if(opened_, [&](const auto& one) {
    return one.first == path || one.first.starts_with(path + "/");
  });
  if (mine) replaced_.insert(path);
  made_.erase(path);
  return absl::OkStatus();
}

absl::Status TreeWriter::put_in_place(const std::string& staged, const std::string& path) {
  std::string name;
  SLUICE_ASSIGN_OR_RETURN(const int parent, open_parent(path, &name));
  if (renameat(staging_.get(), staged.c_str(), parent, name.c_str()) == 0) return absl::OkStatus();
  if (errno == EXDEV) return copy_beside(staged, parent, name);
  if (errno == EISDIR || errno == ENOTEMPTY || errno == EEXIST)
    return replace_directory(staged, parent, name, path);
  return errno_status(errno, "rename into place");
}

absl::Status TreeWriter::place(const std::string& staged, const std::string& path,
                               const FileMetadata& metadata) {
  SLUICE_ASSIGN_OR_RETURN(UniqueFd fd, stage(staged));
  return place(std::move(fd), staged, path, metadata);
}

absl::Status TreeWriter::place(UniqueFd fd, const std::string& staged, const std::string& path,
                               const FileMetadata& metadata) {
  const auto all = [&]() -> absl::Status {
    struct stat info {};
    if (fstat(fd.get(), &info) != 0) return errno_status(errno, "read its metadata");
    // Its last bytes are a hole.
    const auto size = static_cast<off_t>(metadata.size);
    if (info.st_size != size && ftruncate(fd.get(), size) != 0)
      return errno_status(errno, "set its size");
    SLUICE_RETURN_IF_ERROR(set_metadata_of(
        fd.get(), metadata, options_.numeric_owner ? nullptr : &names_, false, &not_set_));
    if (options_.sync_files && fsync(fd.get()) != 0) return errno_status(errno, "sync");
    return put_in_place(staged, path);
  };
  const absl::Status status = all();
  if (!status.ok()) discard(staged);
  return status;
}

absl::Status TreeWriter::make(const std::string& path, const FileMetadata& metadata) {
  const std::string staged = stage_name();
  int made = 0;
  if (metadata.type == FileType::kLink) {
    made = symlinkat(metadata.target.c_str(), staging_.get(), staged.c_str());
  } else {
    made = mknodat(staging_.get(), staged.c_str(), type_bits(metadata.type) | 0600,
                   makedev(metadata.device_major, metadata.device_minor));
  }
  if (made != 0 && errno == EPERM && metadata.type != FileType::kLink) {
    ++not_set_.device;
    return unimplemented("devices are made by root alone");
  }
  if (made != 0) return errno_status(errno, "make it");
  absl::Status status = set_metadata(staged, metadata);
  if (status.ok()) status = put_in_place(staged, path);
  if (!status.ok()) discard(staged);
  return status;
}

absl::Status TreeWriter::link(const std::string& target, const std::string& path) {
  std::string name;
  SLUICE_ASSIGN_OR_RETURN(const int parent, open_parent(target, &name));
  const std::string staged = stage_name();
  if (linkat(parent, name.c_str(), staging_.get(), staged.c_str(), 0) != 0)
    return errno_status(errno, "link it");
  const absl::Status status = put_in_place(staged, path);
  // Renaming one name of a file over another of it does nothing, and leaves both.
  discard(staged);
  return status;
}

absl::Status TreeWriter::make_directory(const std::string& path) {
  return open_directory(path).status();
}

absl::Status TreeWriter::finish_directory(const std::string& path, const FileMetadata& metadata) {
  parents_.clear();
  SLUICE_ASSIGN_OR_RETURN(const UniqueFd fd, open_directory(path));
  opened_.erase(path);
  // The last one: whatever is left is removed before the root has its mode and time.
  if (path == ".") remove_staging();
  return set_metadata_of(fd.get(), metadata, options_.numeric_owner ? nullptr : &names_, true,
                         &not_set_);
}

absl::Status TreeWriter::finish() {
  parents_.clear();
  remove_staging();
  close_directories();
  if (syncfs(root_.get()) != 0)
    return errno_status(errno, fmt::format("sync {}", options_.directory));
  for (const auto& [device, fd] : file_systems_) {
    if (fd && syncfs(fd.get()) != 0)
      return errno_status(errno, fmt::format("sync {}", options_.directory));
  }
  return absl::OkStatus();
}

}  // namespace sluice
