#include "control/mount/file_system.h"

#define FUSE_USE_VERSION 312
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/text.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

constexpr double kForeverSeconds = 86'400;  // what is in a backup stays
constexpr double kListSeconds = 1;          // backups come and go
constexpr int kNodeBits = 40;
constexpr uint64_t kMaxNode = (uint64_t{1} << kNodeBits) - 1;
constexpr blksize_t kBlockSize = 128 << 10;
constexpr int64_t kNanosecondsOfMs = 1'000'000;
constexpr int64_t kMsOfSecond = 1'000;

// What libfuse says while it mounts, which is why that failed.
class SaidByFuse {
 public:
  SaidByFuse() {
    text().clear();
    fuse_set_log_func([](fuse_log_level, const char* format, va_list arguments) {
      char line[512];
      vsnprintf(line, sizeof line, format, arguments);
      text() += line;
    });
  }
  ~SaidByFuse() {
    fuse_set_log_func([](fuse_log_level, const char*, va_list) {});
  }
  SaidByFuse(const SaidByFuse&) = delete;
  SaidByFuse& operator=(const SaidByFuse&) = delete;
  // In one line.
  static std::string line() {
    std::string line = text();
    while (line.ends_with('\n')) line.pop_back();
    std::replace(line.begin(), line.end(), '\n', ';');
    return line;
  }

 private:
  static std::string& text() {
    static std::string said;
    return said;
  }
};

// Where a node is: of a backup, or the root of all.
struct Place {
  uint64_t backup = 0;
  uint64_t node = 0;
};
Place place_of(fuse_ino_t inode) { return {(inode >> kNodeBits) - 1, inode & kMaxNode}; }
fuse_ino_t inode_of(uint64_t backup, uint64_t node) { return (backup + 1) << kNodeBits | node; }

mode_t type_bits(EntryType type) {
  switch (type) {
    case EntryType::kPrefix:
    case EntryType::kDirectory:
      return S_IFDIR;
    case EntryType::kSymlink:
      return S_IFLNK;
    case EntryType::kPipe:
      return S_IFIFO;
    case EntryType::kCharacterDevice:
      return S_IFCHR;
    case EntryType::kBlockDevice:
      return S_IFBLK;
    case EntryType::kRecord:
    case EntryType::kFile:
    case EntryType::kHardLink:
      break;
  }
  return S_IFREG;
}

timespec time_of_ms(int64_t ms) { return {ms / kMsOfSecond, ms % kMsOfSecond * kNanosecondsOfMs}; }

// The root, and what has no metadata of its own.
struct stat plain_stat(fuse_ino_t inode, mode_t mode, int64_t created_ms) {
  struct stat info {};
  info.st_ino = inode;
  info.st_mode = mode;
  info.st_nlink = S_ISDIR(mode) ? 2 : 1;
  info.st_uid = geteuid();
  info.st_gid = getegid();
  info.st_blksize = kBlockSize;
  info.st_mtim = info.st_atim = info.st_ctim = time_of_ms(created_ms);
  return info;
}

// What readdir() hands out until its buffer is full.
class DirectoryPage {
 public:
  DirectoryPage(fuse_req_t request, size_t size, bool plus)
      : request_(request), plus_(plus), buffer_(size) {}

  // False where it does not fit. `next`: where a listing goes on behind it.
  bool add(const char* name, const fuse_entry_param& entry, off_t next) {
    const size_t room = buffer_.size() - used_;
    char* at = buffer_.data() + used_;
    const size_t size = plus_ ? fuse_add_direntry_plus(request_, at, room, name, &entry, next)
                              : fuse_add_direntry(request_, at, room, name, &entry.attr, next);
    if (size > room) return false;
    used_ += size;
    return true;
  }
  void reply() { fuse_reply_buf(request_, buffer_.data(), used_); }

 private:
  const fuse_req_t request_;
  const bool plus_;
  std::vector<char> buffer_;
  size_t used_ = 0;
};

// A file that is open, or a listing of the root.
struct Handle {
  std::shared_ptr<const OpenBackup> backup;
  std::unique_ptr<FileReader> file;
  std::vector<uint64_t> listed;
  std::string path;
};

class FuseFileSystem final : public BackupFileSystem {
 public:
  FuseFileSystem(BackupSource& source, MountedBackups::Log log)
      : backups_(source, std::move(log)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~FuseFileSystem() override {
    if (session_ == nullptr) return;
    if (mounted_) fuse_session_unmount(session_);
    fuse_session_destroy(session_);
  }

  absl::Status open(const MountOptions& options);
  absl::Status serve() override;
  void stop() override {
    stopped_ = true;
    const uint64_t one = 1;
    (void)!write(wake_.get(), &one, sizeof one);
  }

  void lookup(fuse_req_t request, fuse_ino_t parent, std::string_view name);
  void getattr(fuse_req_t request, fuse_ino_t inode);
  void readlink(fuse_req_t request, fuse_ino_t inode);
  void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info);
  void read(fuse_req_t request, size_t size, off_t offset, const fuse_file_info* info);
  void lseek(fuse_req_t request, off_t offset, int whence, const fuse_file_info* info);
  void release(fuse_req_t request, const fuse_file_info* info);
  void opendir(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info);
  void readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
               const fuse_file_info* info, bool plus);
  void getxattr(fuse_req_t request, fuse_ino_t inode, std::string_view name, size_t size);
  void listxattr(fuse_req_t request, fuse_ino_t inode, size_t size);

 private:
  using Opened = std::shared_ptr<const OpenBackup>;
  void run();
  // Null, with the request answered, where the backup cannot be looked into.
  Opened opened(fuse_req_t request, fuse_ino_t inode);
  fuse_entry_param entry_of(uint64_t backup, const OpenBackup& opened, uint64_t node);
  fuse_entry_param root_of(uint64_t backup, const MountableBackup& mountable);
  void list_root(fuse_req_t request, const Handle& handle, off_t offset, DirectoryPage page);
  uint64_t add_handle(std::shared_ptr<Handle> handle);
  std::shared_ptr<Handle> handle(uint64_t number);
  void fail(fuse_req_t request, const std::string& path, const absl::Status& status);
  std::string path_of(uint64_t backup, const OpenBackup& opened, uint64_t node) {
    return backups_.backup(backup).name + "/" + opened.index->key(node);
  }

  MountedBackups backups_;
  const UniqueFd wake_;
  fuse_session* session_ = nullptr;
  bool mounted_ = false;
  std::atomic<bool> stopped_{false};
  Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<Handle>> handles_ SLUICE_GUARDED_BY(mutex_);
  uint64_t next_handle_ SLUICE_GUARDED_BY(mutex_) = 1;
};

// ---- what is asked for

void FuseFileSystem::fail(fuse_req_t request, const std::string& path, const absl::Status& status) {
  backups_.log_once(fmt::format("{}: {}", printable(path, 2 * kMaxKeyBytes), message_of(status)));
  fuse_reply_err(request, EIO);
}

FuseFileSystem::Opened FuseFileSystem::opened(fuse_req_t request, fuse_ino_t inode) {
  const Place place = place_of(inode);
  auto opened = backups_.open(place.backup);
  if (!opened.ok()) {
    // It is logged already.
    fuse_reply_err(request, absl::IsNotFound(opened.status()) ? ENOENT : EIO);
    return nullptr;
  }
  if (place.node >= (*opened)->index->nodes()) {
    fuse_reply_err(request, ENOENT);
    return nullptr;
  }
  return *std::move(opened);
}

// A hard link is the file that it names, where that is known.
fuse_entry_param FuseFileSystem::entry_of(uint64_t backup, const OpenBackup& opened,
                                          uint64_t number) {
  const BackupIndex& index = *opened.index;
  const IndexNode& found = index.node(number);
  const uint64_t shown = found.linked != IndexNode::kNone ? found.linked : number;
  const IndexNode& node = index.node(shown);
  fuse_entry_param entry{};
  entry.ino = inode_of(backup, shown);
  entry.attr_timeout = entry.entry_timeout = kForeverSeconds;
  const mode_t type = type_bits(node.type);
  if (node.type == EntryType::kPrefix || node.type == EntryType::kRecord) {
    entry.attr = plain_stat(entry.ino, type | (S_ISDIR(type) ? 0555 : 0444),
                            backups_.backup(backup).created_ms);
  } else {
    entry.attr = plain_stat(entry.ino, type | node.mode, 0);
    entry.attr.st_uid = node.uid;
    entry.attr.st_gid = node.gid;
    entry.attr.st_rdev = makedev(node.device_major, node.device_minor);
    const timespec time = {node.mtime_seconds, node.mtime_nanoseconds};
    entry.attr.st_mtim = entry.attr.st_atim = entry.attr.st_ctim = time;
  }
  entry.attr.st_nlink = node.links;
  if (!S_ISDIR(type)) {
    entry.attr.st_size = static_cast<off_t>(node.size);
    entry.attr.st_blocks = static_cast<blkcnt_t>((node.data_bytes + 511) / 512);
  }
  return entry;
}

// A backup's directory before it is looked into: so that a listing of all backups builds no index.
fuse_entry_param FuseFileSystem::root_of(uint64_t backup, const MountableBackup& mountable) {
  fuse_entry_param entry{};
  entry.ino = inode_of(backup, BackupIndex::kRoot);
  entry.attr_timeout = entry.entry_timeout = kListSeconds;
  entry.attr = plain_stat(entry.ino, S_IFDIR | 0755, mountable.created_ms);
  return entry;
}

void FuseFileSystem::lookup(fuse_req_t request, fuse_ino_t parent, std::string_view name) {
  if (parent == FUSE_ROOT_ID) {
    const auto listed = backups_.list();
    if (!listed.ok()) return void(fuse_reply_err(request, EIO));
    for (const uint64_t number : *listed) {
      const MountableBackup backup = backups_.backup(number);
      if (backup.name != name) continue;
      const fuse_entry_param entry = root_of(number, backup);
      fuse_reply_entry(request, &entry);
      return;
    }
    fuse_reply_err(request, ENOENT);
    return;
  }
  const Opened backup = opened(request, parent);
  if (backup == nullptr) return;
  const Place place = place_of(parent);
  const auto found = backup->index->find(place.node, name);
  if (!found.has_value()) {
    fuse_reply_err(request, backup->index->damaged() ? EIO : ENOENT);
    return;
  }
  const fuse_entry_param entry = entry_of(place.backup, *backup, *found);
  fuse_reply_entry(request, &entry);
}

void FuseFileSystem::getattr(fuse_req_t request, fuse_ino_t inode) {
  if (inode == FUSE_ROOT_ID) {
    const struct stat info = plain_stat(inode, S_IFDIR | 0755, 0);
    fuse_reply_attr(request, &info, kListSeconds);
    return;
  }
  const Place place = place_of(inode);
  if (place.node == BackupIndex::kRoot) {
    const fuse_entry_param entry = root_of(place.backup, backups_.backup(place.backup));
    fuse_reply_attr(request, &entry.attr, kListSeconds);
    return;
  }
  const Opened backup = opened(request, inode);
  if (backup == nullptr) return;
  const fuse_entry_param entry = entry_of(place.backup, *backup, place.node);
  fuse_reply_attr(request, &entry.attr, kForeverSeconds);
}

void FuseFileSystem::readlink(fuse_req_t request, fuse_ino_t inode) {
  if (inode == FUSE_ROOT_ID) return void(fuse_reply_err(request, EINVAL));
  const Opened backup = opened(request, inode);
  if (backup == nullptr) return;
  const IndexNode& node = backup->index->node(place_of(inode).node);
  if (node.type != EntryType::kSymlink) return void(fuse_reply_err(request, EINVAL));
  fuse_reply_readlink(request, std::string(backup->index->target(node)).c_str());
}

uint64_t FuseFileSystem::add_handle(std::shared_ptr<Handle> added) {
  const MutexLock lock(mutex_);
  handles_[next_handle_] = std::move(added);
  return next_handle_++;
}

std::shared_ptr<Handle> FuseFileSystem::handle(uint64_t number) {
  const MutexLock lock(mutex_);
  const auto found = handles_.find(number);
  return found == handles_.end() ? nullptr : found->second;
}

void FuseFileSystem::open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  if ((info->flags & O_ACCMODE) != O_RDONLY) return void(fuse_reply_err(request, EROFS));
  const Opened backup = opened(request, inode);
  if (backup == nullptr) return;
  const Place place = place_of(inode);
  auto made = std::make_shared<Handle>();
  made->backup = backup;
  made->path = path_of(place.backup, *backup, place.node);
  auto file = backups_.open_file(place.backup, *backup, place.node);
  if (!file.ok()) return fail(request, made->path, file.status());
  made->file = *std::move(file);
  info->fh = add_handle(std::move(made));
  info->keep_cache = 1;
  if (fuse_reply_open(request, info) != 0) {
    const MutexLock lock(mutex_);
    handles_.erase(info->fh);
  }
}

void FuseFileSystem::read(fuse_req_t request, size_t size, off_t offset,
                          const fuse_file_info* info) {
  const std::shared_ptr<Handle> file = handle(info->fh);
  if (file == nullptr || file->file == nullptr) return void(fuse_reply_err(request, EBADF));
  const auto bytes = file->file->read(static_cast<uint64_t>(offset), size);
  if (!bytes.ok()) return fail(request, file->path, bytes.status());
  fuse_reply_buf(request, bytes->data(), bytes->size());
}

// Of holes and data alone: the kernel sees to the others.
void FuseFileSystem::lseek(fuse_req_t request, off_t offset, int whence,
                           const fuse_file_info* info) {
  const std::shared_ptr<Handle> file = handle(info->fh);
  if (file == nullptr || file->file == nullptr) return void(fuse_reply_err(request, EBADF));
  FileReader& reader = *file->file;
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return void(fuse_reply_err(request, EINVAL));
  const auto from = static_cast<uint64_t>(offset);
  const bool data = whence == SEEK_DATA;
  if (offset < 0 || from >= reader.size()) return void(fuse_reply_err(request, ENXIO));
  const auto found = data ? reader.find_data(from) : reader.find_hole(from);
  if (!found.ok()) return fail(request, file->path, found.status());
  if (data && *found == reader.size()) return void(fuse_reply_err(request, ENXIO));
  fuse_reply_lseek(request, static_cast<off_t>(*found));
}

void FuseFileSystem::release(fuse_req_t request, const fuse_file_info* info) {
  std::shared_ptr<Handle> released;
  {
    const MutexLock lock(mutex_);
    const auto found = handles_.find(info->fh);
    if (found != handles_.end()) {
      released = std::move(found->second);
      handles_.erase(found);
    }
  }
  fuse_reply_err(request, 0);
}

// The root's listing is that of one moment.
void FuseFileSystem::opendir(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  if (inode == FUSE_ROOT_ID) {
    const auto listed = backups_.list();
    if (!listed.ok()) return void(fuse_reply_err(request, EIO));
    auto made = std::make_shared<Handle>();
    made->listed = *listed;
    info->fh = add_handle(std::move(made));
  } else {
    if (opened(request, inode) == nullptr) return;
    info->fh = 0;
    info->keep_cache = 1;
    info->cache_readdir = 1;
  }
  fuse_reply_open(request, info);
}

void FuseFileSystem::list_root(fuse_req_t request, const Handle& listing, off_t offset,
                               DirectoryPage page) {
  fuse_entry_param itself{};
  itself.attr = plain_stat(FUSE_ROOT_ID, S_IFDIR | 0755, 0);
  for (auto at = static_cast<size_t>(offset); at < listing.listed.size() + 2; ++at) {
    const auto next = static_cast<off_t>(at + 1);
    bool added = false;
    if (at < 2) {
      added = page.add(at == 0 ? "." : "..", itself, next);
    } else {
      const uint64_t number = listing.listed[at - 2];
      const MountableBackup backup = backups_.backup(number);
      added = page.add(backup.name.c_str(), root_of(number, backup), next);
    }
    if (!added) break;
  }
  page.reply();
  (void)request;
}

void FuseFileSystem::readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                             const fuse_file_info* info, bool plus) {
  DirectoryPage page(request, size, plus);
  if (inode == FUSE_ROOT_ID) {
    const std::shared_ptr<Handle> listing = handle(info->fh);
    if (listing == nullptr) return void(fuse_reply_err(request, EBADF));
    return list_root(request, *listing, offset, std::move(page));
  }
  const Opened backup = opened(request, inode);
  if (backup == nullptr) return;
  const Place place = place_of(inode);
  const BackupIndex& index = *backup->index;
  const IndexNode& directory = index.node(place.node);
  fuse_entry_param above{};
  above.attr.st_mode = S_IFDIR;
  for (auto at = static_cast<uint64_t>(offset); at < directory.children + 2; ++at) {
    const auto next = static_cast<off_t>(at + 1);
    bool added = false;
    if (at < 2) {
      const bool root = at == 1 && place.node == BackupIndex::kRoot;
      above.attr.st_ino =
          root ? FUSE_ROOT_ID : inode_of(place.backup, at == 0 ? place.node : directory.parent);
      added = page.add(at == 0 ? "." : "..", above, next);
    } else {
      const uint64_t child = directory.first_child + at - 2;
      const std::string name(index.name(index.node(child)));
      added = page.add(name.c_str(), entry_of(place.backup, *backup, child), next);
    }
    if (!added) break;
  }
  page.reply();
}

void FuseFileSystem::getxattr(fuse_req_t request, fuse_ino_t inode, std::string_view name,
                              size_t size) {
  if (inode == FUSE_ROOT_ID) return void(fuse_reply_err(request, ENODATA));
  const Opened backup = opened(request, inode);
  if (backup == nullptr) return;
  const IndexNode& node = backup->index->node(place_of(inode).node);
  for (const ExtendedAttribute& attribute : backup->index->attributes(node)) {
    if (attribute.name != name) continue;
    if (size == 0) return void(fuse_reply_xattr(request, attribute.value.size()));
    if (attribute.value.size() > size) return void(fuse_reply_err(request, ERANGE));
    fuse_reply_buf(request, attribute.value.data(), attribute.value.size());
    return;
  }
  fuse_reply_err(request, ENODATA);
}

void FuseFileSystem::listxattr(fuse_req_t request, fuse_ino_t inode, size_t size) {
  std::string names;
  if (inode != FUSE_ROOT_ID) {
    const Opened backup = opened(request, inode);
    if (backup == nullptr) return;
    const IndexNode& node = backup->index->node(place_of(inode).node);
    for (const ExtendedAttribute& attribute : backup->index->attributes(node)) {
      names += attribute.name + '\0';
    }
  }
  if (size == 0) return void(fuse_reply_xattr(request, names.size()));
  if (names.size() > size) return void(fuse_reply_err(request, ERANGE));
  fuse_reply_buf(request, names.data(), names.size());
}

// ---- the session

FuseFileSystem& of(fuse_req_t request) {
  return *static_cast<FuseFileSystem*>(fuse_req_userdata(request));
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.lookup = [](fuse_req_t request, fuse_ino_t parent, const char* name) {
    of(request).lookup(request, parent, name);
  };
  ops.forget = [](fuse_req_t request, fuse_ino_t, uint64_t) { fuse_reply_none(request); };
  ops.forget_multi = [](fuse_req_t request, size_t, fuse_forget_data*) {
    fuse_reply_none(request);
  };
  ops.getattr = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
    of(request).getattr(request, inode);
  };
  ops.readlink = [](fuse_req_t request, fuse_ino_t inode) { of(request).readlink(request, inode); };
  ops.open = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    of(request).open(request, inode, info);
  };
  ops.read = [](fuse_req_t request, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
    of(request).read(request, size, offset, info);
  };
  ops.lseek = [](fuse_req_t request, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
    of(request).lseek(request, offset, whence, info);
  };
  ops.release = [](fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    of(request).release(request, info);
  };
  ops.opendir = [](fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    of(request).opendir(request, inode, info);
  };
  ops.readdir = [](fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                   fuse_file_info* info) {
    of(request).readdir(request, inode, size, offset, info, false);
  };
  ops.readdirplus = [](fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                       fuse_file_info* info) {
    of(request).readdir(request, inode, size, offset, info, true);
  };
  ops.releasedir = [](fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    of(request).release(request, info);
  };
  ops.getxattr = [](fuse_req_t request, fuse_ino_t inode, const char* name, size_t size) {
    of(request).getxattr(request, inode, name, size);
  };
  ops.listxattr = [](fuse_req_t request, fuse_ino_t inode, size_t size) {
    of(request).listxattr(request, inode, size);
  };
  return ops;
}

absl::Status check_mountable(const std::string& directory) {
  struct stat info {};
  if (stat(directory.c_str(), &info) != 0) {
    return errno_status(errno, fmt::format("cannot mount on {}", directory));
  }
  if (!S_ISDIR(info.st_mode)) {
    return invalid_argument("cannot mount on {}: not a directory", directory);
  }
  const UniqueFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (device) return absl::OkStatus();
  const int error = errno;
  return failed_precondition(
      "cannot mount on {}: cannot open /dev/fuse: {}; load the kernel's module fuse (modprobe "
      "fuse), or give this container the device",
      directory, std::strerror(error));
}

absl::Status FuseFileSystem::open(const MountOptions& options) {
  SLUICE_RETURN_IF_ERROR(check_mountable(options.directory));
  std::string choices = "ro,fsname=sluice,subtype=sluice";
  if (options.allow_other) choices += ",allow_other,default_permissions";
  const SaidByFuse said;
  const fuse_lowlevel_ops ops = operations();
  fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
  for (const std::string& argument : {std::string("sluice"), std::string("-o"), choices}) {
    if (fuse_opt_add_arg(&arguments, argument.c_str()) != 0) {
      return resource_exhausted("no memory for the arguments of a mount");
    }
  }
  session_ = fuse_session_new(&arguments, &ops, sizeof ops, this);
  fuse_opt_free_args(&arguments);
  mounted_ = session_ != nullptr && fuse_session_mount(session_, options.directory.c_str()) == 0;
  if (!mounted_) {
    return permission_denied(
        "cannot mount on {}: {}; mounting takes root with CAP_SYS_ADMIN, or the program "
        "fusermount3 (of the package fuse3)",
        options.directory, SaidByFuse::line());
  }
  const int fd = fuse_session_fd(session_);
  if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
    return errno_status(errno, "set up /dev/fuse");
  }
  return absl::OkStatus();
}

// One thread of serve(). Its buffer is libfuse's, as large as a request may be.
void FuseFileSystem::run() {
  fuse_buf buffer{};
  while (!stopped_) {
    pollfd waited[] = {{fuse_session_fd(session_), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (poll(waited, 2, -1) < 0 && errno != EINTR) break;
    if (stopped_) break;
    const int size = fuse_session_receive_buf(session_, &buffer);
    if (size == -EINTR || size == -EAGAIN) continue;
    if (size <= 0) break;  // it is not mounted any more
    fuse_session_process_buf(session_, &buffer);
  }
  std::free(buffer.mem);
  stop();
}

absl::Status FuseFileSystem::serve() {
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([this] { run(); });
  for (std::thread& thread : threads) thread.join();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<BackupFileSystem>> BackupFileSystem::mount(
    BackupSource& source, const MountOptions& options, MountedBackups::Log log) {
  auto system = std::make_unique<FuseFileSystem>(source, std::move(log));
  SLUICE_RETURN_IF_ERROR(system->open(options));
  return system;
}

}  // namespace sluice
