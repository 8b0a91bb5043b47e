// Files and directories below kRoot: in place of the C library's functions, which they are for all
// other paths and descriptors and outside of a run. (mounts.h, open_files.h)
#include <dirent.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/random.h"
#include "tests/simulation/open_files.h"
#include "tests/simulation/scheduler.h"
#include "tests/simulation/system_calls.h"

namespace sluice::simulation {
namespace {

constexpr uint64_t kBlockBytes = FileContent::kPageBytes;
constexpr uint64_t kFirstDevice = 0x5100;
// Files of the system's that differ from run to run. One boot of the machine for a whole run: what
// names a lock does so by the boot and by the file, and a disk that lost its power has other files.
constexpr std::string_view kBootIdPath = "/proc/sys/kernel/random/boot_id";
constexpr std::string_view kBootId = "5e1f0000-0000-4000-8000-000000000000\n";
constexpr std::string_view kUuidPath = "/proc/sys/kernel/random/uuid";

// 0 or -1 and errno, as the C library answers.
int answer(int error) {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

int open_place(const Place& place, int flags, mode_t mode) {
  if (place.is_root) return answer(EACCES);
  int fd = -1;
  const int error = open_at(place, flags, mode, &fd);
  return error == 0 ? fd : answer(error);
}

int describe(const Disk& disk, const Inode& inode, struct stat* info) {
  *info = {};
  info->st_dev = kFirstDevice + disk.number();
  info->st_ino = inode.number;
  info->st_nlink = inode.is_directory ? 2 : inode.links;
  info->st_mode = (inode.is_directory ? S_IFDIR : S_IFREG) | inode.mode;
  info->st_blksize = kBlockBytes;
  info->st_size = static_cast<off_t>(inode.is_directory ? kBlockBytes : inode.content.size());
  info->st_blocks = static_cast<blkcnt_t>(inode.content.pages() * kBlockBytes / 512);
  info->st_mtim = {inode.changed_ns / 1'000'000'000, inode.changed_ns % 1'000'000'000};
  info->st_atim = info->st_ctim = info->st_mtim;
  return 0;
}

int find(const Place& place, InodePtr* inode) {
  if (place.mount == nullptr) return ENOENT;
  const int error = begin_call(*place.mount, FileCall::kRead, place.path);
  return error != 0 ? error : place.find(inode);
}

int describe_place(const Place& place, struct stat* info) {
  InodePtr inode;
  if (const int error = find(place, &inode); error != 0) return answer(error);
  return describe(place.mount->disk, *inode, info);
}

int describe_file(int fd, struct stat* info) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  if (const int error = begin_call(*file, FileCall::kRead); error != 0) return answer(error);
  return describe(file->mount.disk, *file->inode, info);
}

int describe_room(const Disk& disk, struct statvfs* info) {
  *info = {};
  info->f_bsize = info->f_frsize = kBlockBytes;
  info->f_blocks = disk.capacity_bytes() / kBlockBytes;
  info->f_bfree = info->f_bavail = disk.free_bytes() / kBlockBytes;
  info->f_files = info->f_ffree = info->f_favail = 1 << 30;
  info->f_fsid = kFirstDevice + disk.number();
  info->f_namemax = 255;
  return 0;
}

int describe_room(const Disk& disk, struct statfs* info) {
  *info = {};
  info->f_type = 0xEF53;  // ext4's
  info->f_bsize = info->f_frsize = kBlockBytes;
  info->f_blocks = disk.capacity_bytes() / kBlockBytes;
  info->f_bfree = info->f_bavail = disk.free_bytes() / kBlockBytes;
  info->f_files = info->f_ffree = 1 << 30;
  info->f_namelen = 255;
  return 0;
}

template <typename Info>
int describe_room_of(int fd, Info* info) {
  const OpenFilePtr file = open_file(fd);
  return file == nullptr ? answer(EBADF) : describe_room(file->mount.disk, info);
}

ssize_t read_at(int fd, void* into, size_t bytes, uint64_t offset) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  size_t done = 0;
  const int error = read_file(*file, offset, into, bytes, &done);
  return error == 0 ? static_cast<ssize_t>(done) : answer(error);
}

ssize_t read_next(int fd, void* into, size_t bytes) {
  const OpenFilePtr file = open_file(fd);
  const ssize_t done = read_at(fd, into, bytes, file == nullptr ? 0 : file->offset);
  if (done > 0) file->offset += static_cast<uint64_t>(done);
  return done;
}

ssize_t write_at(int fd, const void* from, size_t bytes, uint64_t offset) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  const int error = write_file(*file, offset, from, bytes);
  return error == 0 ? static_cast<ssize_t>(bytes) : answer(error);
}

ssize_t write_next(int fd, const void* from, size_t bytes) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  if ((file->flags & O_APPEND) != 0) file->offset = file->inode->content.size();
  const ssize_t done = write_at(fd, from, bytes, file->offset);
  if (done > 0) file->offset += static_cast<uint64_t>(done);
  return done;
}

template <typename Transfer>
ssize_t transfer_parts(const iovec* parts, int count, Transfer transfer) {
  ssize_t all = 0;
  for (int i = 0; i < count; ++i) {
    const ssize_t done = transfer(parts[i], all);
    if (done < 0) return all > 0 ? all : done;
    all += done;
    if (static_cast<size_t>(done) < parts[i].iov_len) break;
  }
  return all;
}

off_t seek(int fd, off_t offset, int from) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  Scheduler::active()->step();
  off_t begin = 0;
  if (from == SEEK_CUR) begin = static_cast<off_t>(file->offset);
  if (from == SEEK_END) begin = static_cast<off_t>(file->inode->content.size());
  if (from > SEEK_END || begin + offset < 0) return answer(EINVAL);
  file->offset = static_cast<uint64_t>(begin + offset);
  return begin + offset;
}

int sync(int fd) {
  const OpenFilePtr file = open_file(fd);
  return answer(file == nullptr ? EBADF : sync_file(*file));
}

int resize(int fd, off_t bytes) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  return answer(bytes < 0 ? EINVAL : resize_file(*file, static_cast<uint64_t>(bytes)));
}

// An error number. Room is not kept: it is asked for when it is written to.
int allocate(int fd, int mode, off_t offset, off_t bytes) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return EBADF;
  if ((mode & ~FALLOC_FL_KEEP_SIZE) != 0) return EOPNOTSUPP;
  const auto end = static_cast<uint64_t>(offset + bytes);
  if (static_cast<uint64_t>(bytes) > file->mount.disk.free_bytes()) return ENOSPC;
  if ((mode & FALLOC_FL_KEEP_SIZE) != 0 || end <= file->inode->content.size()) {
    return begin_call(*file, FileCall::kWrite);
  }
  return resize_file(*file, end);
}

// Of the whole file, as all who use it here ask for.
int lock_for_process(OpenFile& file, const struct flock& asked, bool wait) {
  const Process* const owner = &Process::current();
  if (asked.l_type == F_UNLCK) {
    unlock_file(file, owner);
    return 0;
  }
  if (asked.l_type != F_WRLCK || asked.l_start != 0 || asked.l_len != 0) return EINVAL;
  const int error = lock_file(file, owner, wait);
  return error == EWOULDBLOCK ? EAGAIN : error;
}

int control(int fd, int command, void* argument) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  const auto number = static_cast<int>(reinterpret_cast<intptr_t>(argument));
  switch (command) {
    case F_GETFD:
      return FD_CLOEXEC;
    case F_SETFD:
      return 0;
    case F_GETFL:
      return file->flags;
    case F_SETFL:
      file->flags = (file->flags & ~O_APPEND) | (number & O_APPEND);
      return 0;
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
      return add_descriptor(file);
    case F_SETLK:
    case F_SETLKW:
      return answer(lock_for_process(*file, *static_cast<const struct flock*>(argument),
                                     command == F_SETLKW));
    default:
      return answer(EINVAL);
  }
}

int lock_for_file(int fd, int operation) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  switch (operation & ~LOCK_NB) {
    case LOCK_UN:
      unlock_file(*file, file.get());
      return 0;
    case LOCK_EX:
      return answer(lock_file(*file, file.get(), (operation & LOCK_NB) == 0));
    default:
      return answer(EINVAL);
  }
}

int set_mode(const Place& place, mode_t mode) {
  InodePtr inode;
  if (const int error = find(place, &inode); error != 0) return answer(error);
  if (!is_void()) inode->mode = mode & 07777;
  return 0;
}

int check_access(const Place& place) {
  InodePtr inode;
  return answer(find(place, &inode));
}

int remove_at(const Place& place) {
  InodePtr inode;
  const bool directory = place.find(&inode) == 0 && inode->is_directory;
  return answer(remove_name(place, directory));
}

DIR* open_listing(int fd) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr || !file->inode->is_directory) {
    errno = file == nullptr ? EBADF : ENOTDIR;
    return nullptr;
  }
  return reinterpret_cast<DIR*>(add_directory(fd));
}

dirent* next_name(OpenDirectory* directory) {
  Scheduler::active()->step();
  return directory->next < directory->names.size() ? &directory->names[directory->next++] : nullptr;
}

// A file of text that the program reads through the system's functions.
FILE* open_text(std::string_view text) {
  const int fd = memfd_create("text", MFD_CLOEXEC);
  if (fd < 0) return nullptr;
  if (SLUICE_SYSTEM(pwrite)(fd, text.data(), text.size(), 0) < 0) return nullptr;
  return fdopen(fd, "r");
}

int descriptor_of(void* cookie) { return static_cast<int>(reinterpret_cast<intptr_t>(cookie)); }

// A stream of the C library over a descriptor: nobody is preempted while the library holds the
// stream's lock.
FILE* stream_over(int fd, const char* mode) {
  cookie_io_functions_t functions{};
  functions.read = [](void* cookie, char* into, size_t bytes) {
    const NoSwitch scope;
    return read_next(descriptor_of(cookie), into, bytes);
  };
  functions.write = [](void* cookie, const char* from, size_t bytes) {
    const NoSwitch scope;
    return write_next(descriptor_of(cookie), from, bytes);
  };
  functions.seek = [](void* cookie, off64_t* offset, int from) {
    const NoSwitch scope;
    *offset = seek(descriptor_of(cookie), *offset, from);
    return *offset < 0 ? -1 : 0;
  };
  functions.close = [](void* cookie) { return answer(close_descriptor(descriptor_of(cookie))); };
  return fopencookie(reinterpret_cast<void*>(static_cast<intptr_t>(fd)), mode, functions);
}

FILE* open_stream(const char* path, const char* mode, FILE* (*system)(const char*, const char*)) {
  if (Scheduler::active() != nullptr && path == kBootIdPath) return open_text(kBootId);
  if (Scheduler::active() != nullptr && path == kUuidPath) return open_text(make_uuid() + "\n");
  if (!place_of(AT_FDCWD, path)) return system(path, mode);
  // std::ifstream and its like ask the stream for a descriptor, which it does not have.
  errno = ENOTSUP;
  return nullptr;
}

mode_t mode_argument(int flags, va_list list) {
  return (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;
}

struct stat* as_stat(struct stat64* info) {
  static_assert(sizeof(struct stat) == sizeof(struct stat64));
  return reinterpret_cast<struct stat*>(info);
}

}  // namespace
}  // namespace sluice::simulation

using namespace sluice::simulation;  // NOLINT: what follows has the C library's names

extern "C" {

// --- Opening ---

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_argument(flags, list);
  va_end(list);
  const auto place = place_of(AT_FDCWD, path);
  return place ? open_place(*place, flags, mode) : SLUICE_SYSTEM(open)(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_argument(flags, list);
  va_end(list);
  return open(path, flags, mode);
}

int openat(int at, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_argument(flags, list);
  va_end(list);
  const auto place = place_of(at, path);
  return place ? open_place(*place, flags, mode) : SLUICE_SYSTEM(openat)(at, path, flags, mode);
}

int openat64(int at, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_argument(flags, list);
  va_end(list);
  return openat(at, path, flags, mode);
}

int close(int fd) {
  if (!is_simulated(fd)) return SLUICE_SYSTEM(close)(fd);
  Scheduler::active()->step();
  return answer(close_descriptor(fd));
}

int dup(int fd) noexcept {
  return is_simulated(fd) ? control(fd, F_DUPFD, nullptr) : SLUICE_SYSTEM(dup)(fd);
}

FILE* fdopen(int fd, const char* mode) noexcept {
  return is_simulated(fd) ? stream_over(fd, mode) : SLUICE_SYSTEM(fdopen)(fd, mode);
}

FILE* fopen(const char* path, const char* mode) {
  return open_stream(path, mode, SLUICE_SYSTEM(fopen));
}

FILE* fopen64(const char* path, const char* mode) {
  return open_stream(path, mode, SLUICE_SYSTEM(fopen64));
}

// --- Content ---

ssize_t read(int fd, void* into, size_t bytes) {
  return is_simulated(fd) ? read_next(fd, into, bytes) : SLUICE_SYSTEM(read)(fd, into, bytes);
}

ssize_t pread(int fd, void* into, size_t bytes, off_t offset) {
  return is_simulated(fd) ? read_at(fd, into, bytes, static_cast<uint64_t>(offset))
                          : SLUICE_SYSTEM(pread)(fd, into, bytes, offset);
}

ssize_t pread64(int fd, void* into, size_t bytes, off64_t offset) {
  return pread(fd, into, bytes, offset);
}

ssize_t write(int fd, const void* from, size_t bytes) {
  return is_simulated(fd) ? write_next(fd, from, bytes) : SLUICE_SYSTEM(write)(fd, from, bytes);
}

ssize_t pwrite(int fd, const void* from, size_t bytes, off_t offset) {
  return is_simulated(fd) ? write_at(fd, from, bytes, static_cast<uint64_t>(offset))
                          : SLUICE_SYSTEM(pwrite)(fd, from, bytes, offset);
}

ssize_t pwrite64(int fd, const void* from, size_t bytes, off64_t offset) {
  return pwrite(fd, from, bytes, offset);
}

ssize_t readv(int fd, const iovec* parts, int count) {
  if (!is_simulated(fd)) return SLUICE_SYSTEM(readv)(fd, parts, count);
  return transfer_parts(parts, count, [fd](const iovec& part, ssize_t) {
    return read_next(fd, part.iov_base, part.iov_len);
  });
}

ssize_t preadv(int fd, const iovec* parts, int count, off_t offset) {
  if (!is_simulated(fd)) return SLUICE_SYSTEM(preadv)(fd, parts, count, offset);
  return transfer_parts(parts, count, [fd, offset](const iovec& part, ssize_t done) {
    return read_at(fd, part.iov_base, part.iov_len, static_cast<uint64_t>(offset + done));
  });
}

ssize_t writev(int fd, const iovec* parts, int count) {
  if (!is_simulated(fd)) return SLUICE_SYSTEM(writev)(fd, parts, count);
  return transfer_parts(parts, count, [fd](const iovec& part, ssize_t) {
    return write_next(fd, part.iov_base, part.iov_len);
  });
}

ssize_t pwritev(int fd, const iovec* parts, int count, off_t offset) {
  if (!is_simulated(fd)) return SLUICE_SYSTEM(pwritev)(fd, parts, count, offset);
  return transfer_parts(parts, count, [fd, offset](const iovec& part, ssize_t done) {
    return write_at(fd, part.iov_base, part.iov_len, static_cast<uint64_t>(offset + done));
  });
}

off_t lseek(int fd, off_t offset, int from) noexcept {
  return is_simulated(fd) ? seek(fd, offset, from) : SLUICE_SYSTEM(lseek)(fd, offset, from);
}

off64_t lseek64(int fd, off64_t offset, int from) noexcept { return lseek(fd, offset, from); }

int fsync(int fd) { return is_simulated(fd) ? sync(fd) : SLUICE_SYSTEM(fsync)(fd); }

int fdatasync(int fd) { return is_simulated(fd) ? sync(fd) : SLUICE_SYSTEM(fdatasync)(fd); }

// Makes nothing durable, as the manual says.
int sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags) {
  return is_simulated(fd) ? 0 : SLUICE_SYSTEM(sync_file_range)(fd, offset, bytes, flags);
}

int ftruncate(int fd, off_t bytes) noexcept {
  return is_simulated(fd) ? resize(fd, bytes) : SLUICE_SYSTEM(ftruncate)(fd, bytes);
}

int ftruncate64(int fd, off64_t bytes) noexcept { return ftruncate(fd, bytes); }

int truncate(const char* path, off_t bytes) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  if (!place) return SLUICE_SYSTEM(truncate)(path, bytes);
  const int fd = open_place(*place, O_WRONLY, 0);
  if (fd < 0) return -1;
  const int result = resize(fd, bytes);
  close_descriptor(fd);
  return result;
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  return is_simulated(fd) ? answer(allocate(fd, mode, offset, bytes))
                          : SLUICE_SYSTEM(fallocate)(fd, mode, offset, bytes);
}

int posix_fallocate(int fd, off_t offset, off_t bytes) {
  return is_simulated(fd) ? allocate(fd, 0, offset, bytes)
                          : SLUICE_SYSTEM(posix_fallocate)(fd, offset, bytes);
}

int posix_fadvise(int fd, off_t offset, off_t bytes, int advice) noexcept {
  return is_simulated(fd) ? 0 : SLUICE_SYSTEM(posix_fadvise)(fd, offset, bytes, advice);
}

ssize_t readahead(int fd, off64_t offset, size_t bytes) noexcept {
  return is_simulated(fd) ? 0 : SLUICE_SYSTEM(readahead)(fd, offset, bytes);
}

int fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* const argument = va_arg(list, void*);
  va_end(list);
  return is_simulated(fd) ? control(fd, command, argument)
                          : SLUICE_SYSTEM(fcntl)(fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* const argument = va_arg(list, void*);
  va_end(list);
  return fcntl(fd, command, argument);
}

int flock(int fd, int operation) noexcept {
  return is_simulated(fd) ? lock_for_file(fd, operation) : SLUICE_SYSTEM(flock)(fd, operation);
}

// --- What is known of files ---

int stat(const char* path, struct stat* info) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  return place ? describe_place(*place, info) : SLUICE_SYSTEM(stat)(path, info);
}

int stat64(const char* path, struct stat64* info) noexcept { return stat(path, as_stat(info)); }

int lstat(const char* path, struct stat* info) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  return place ? describe_place(*place, info) : SLUICE_SYSTEM(lstat)(path, info);
}

int lstat64(const char* path, struct stat64* info) noexcept { return lstat(path, as_stat(info)); }

int fstat(int fd, struct stat* info) noexcept {
  return is_simulated(fd) ? describe_file(fd, info) : SLUICE_SYSTEM(fstat)(fd, info);
}

int fstat64(int fd, struct stat64* info) noexcept { return fstat(fd, as_stat(info)); }

int fstatat(int at, const char* path, struct stat* info, int flags) noexcept {
  const auto place = place_of(at, path);
  return place ? describe_place(*place, info) : SLUICE_SYSTEM(fstatat)(at, path, info, flags);
}

int fstatat64(int at, const char* path, struct stat64* info, int flags) noexcept {
  return fstatat(at, path, as_stat(info), flags);
}

int access(const char* path, int mode) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  return place ? check_access(*place) : SLUICE_SYSTEM(access)(path, mode);
}

int faccessat(int at, const char* path, int mode, int flags) noexcept {
  const auto place = place_of(at, path);
  return place ? check_access(*place) : SLUICE_SYSTEM(faccessat)(at, path, mode, flags);
}

int chmod(const char* path, mode_t mode) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  return place ? set_mode(*place, mode) : SLUICE_SYSTEM(chmod)(path, mode);
}

int fchmodat(int at, const char* path, mode_t mode, int flags) noexcept {
  const auto place = place_of(at, path);
  return place ? set_mode(*place, mode) : SLUICE_SYSTEM(fchmodat)(at, path, mode, flags);
}

int fchmod(int fd, mode_t mode) noexcept {
  if (!is_simulated(fd)) return SLUICE_SYSTEM(fchmod)(fd, mode);
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return answer(EBADF);
  if (!is_void()) file->inode->mode = mode & 07777;
  return 0;
}

int statvfs(const char* path, struct statvfs* info) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  if (!place) return SLUICE_SYSTEM(statvfs)(path, info);
  return check_access(*place) != 0 ? -1 : describe_room(place->mount->disk, info);
}

int fstatvfs(int fd, struct statvfs* info) noexcept {
  return is_simulated(fd) ? describe_room_of(fd, info) : SLUICE_SYSTEM(fstatvfs)(fd, info);
}

int statfs(const char* path, struct statfs* info) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  if (!place) return SLUICE_SYSTEM(statfs)(path, info);
  return check_access(*place) != 0 ? -1 : describe_room(place->mount->disk, info);
}

int fstatfs(int fd, struct statfs* info) noexcept {
  return is_simulated(fd) ? describe_room_of(fd, info) : SLUICE_SYSTEM(fstatfs)(fd, info);
}

// --- Names ---

int mkdir(const char* path, mode_t mode) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  return place ? answer(make_directory(*place, mode)) : SLUICE_SYSTEM(mkdir)(path, mode);
}

int rmdir(const char* path) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  return place ? answer(remove_name(*place, true)) : SLUICE_SYSTEM(rmdir)(path);
}

int unlink(const char* path) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  return place ? answer(remove_name(*place, false)) : SLUICE_SYSTEM(unlink)(path);
}

int unlinkat(int at, const char* path, int flags) noexcept {
  const auto place = place_of(at, path);
  return place ? answer(remove_name(*place, (flags & AT_REMOVEDIR) != 0))
               : SLUICE_SYSTEM(unlinkat)(at, path, flags);
}

int remove(const char* path) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  return place ? remove_at(*place) : SLUICE_SYSTEM(remove)(path);
}

int rename(const char* from, const char* to) noexcept {
  const auto old_place = place_of(AT_FDCWD, from);
  const auto new_place = place_of(AT_FDCWD, to);
  if (!old_place && !new_place) return SLUICE_SYSTEM(rename)(from, to);
  if (!old_place || !new_place) return answer(EXDEV);
  return answer(rename_file(*old_place, *new_place, /*replace=*/true));
}

int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) noexcept {
  const auto old_place = place_of(from_at, from);
  const auto new_place = place_of(to_at, to);
  if (!old_place && !new_place) return SLUICE_SYSTEM(renameat2)(from_at, from, to_at, to, flags);
  if (!old_place || !new_place) return answer(EXDEV);
  if ((flags & ~unsigned{RENAME_NOREPLACE}) != 0) return answer(EINVAL);
  return answer(rename_file(*old_place, *new_place, (flags & RENAME_NOREPLACE) == 0));
}

int renameat(int from_at, const char* from, int to_at, const char* to) noexcept {
  return renameat2(from_at, from, to_at, to, 0);
}

int link(const char* from, const char* to) noexcept {
  const auto old_place = place_of(AT_FDCWD, from);
  const auto new_place = place_of(AT_FDCWD, to);
  if (!old_place && !new_place) return SLUICE_SYSTEM(link)(from, to);
  if (!old_place || !new_place) return answer(EXDEV);
  return answer(link_file(*old_place, *new_place));
}

ssize_t readlink(const char* path, char* into, size_t bytes) noexcept {
  if (!place_of(AT_FDCWD, path)) return SLUICE_SYSTEM(readlink)(path, into, bytes);
  return answer(EINVAL);  // there are no symbolic links
}

char* realpath(const char* path, char* resolved) noexcept {
  const auto place = place_of(AT_FDCWD, path);
  if (!place) return SLUICE_SYSTEM(realpath)(path, resolved);
  if (check_access(*place) != 0) return nullptr;
  std::string normal = std::filesystem::path(path).lexically_normal().string();
  if (normal.ends_with('/')) normal.pop_back();
  return resolved == nullptr ? strdup(normal.c_str()) : std::strcpy(resolved, normal.c_str());
}

DIR* opendir(const char* path) {
  const auto place = place_of(AT_FDCWD, path);
  if (!place) return SLUICE_SYSTEM(opendir)(path);
  const int fd = open_place(*place, O_RDONLY | O_DIRECTORY, 0);
  return fd < 0 ? nullptr : open_listing(fd);
}

DIR* fdopendir(int fd) {
  return is_simulated(fd) ? open_listing(fd) : SLUICE_SYSTEM(fdopendir)(fd);
}

dirent* readdir(DIR* listing) {
  OpenDirectory* const directory = open_directory(listing);
  return directory == nullptr ? SLUICE_SYSTEM(readdir)(listing) : next_name(directory);
}

dirent64* readdir64(DIR* listing) {
  static_assert(sizeof(dirent) == sizeof(dirent64));
  return reinterpret_cast<dirent64*>(readdir(listing));
}

int dirfd(DIR* listing) noexcept {
  OpenDirectory* const directory = open_directory(listing);
  return directory == nullptr ? SLUICE_SYSTEM(dirfd)(listing) : directory->fd;
}

int closedir(DIR* listing) {
  OpenDirectory* const directory = open_directory(listing);
  if (directory == nullptr) return SLUICE_SYSTEM(closedir)(listing);
  const int fd = directory->fd;
  close_directory(directory);
  return close(fd);
}

// Writes go the way that they go where the kernel has no io_uring.
int io_uring_queue_init(unsigned entries, struct io_uring* ring, unsigned flags) {
  return Scheduler::active() == nullptr ? SLUICE_SYSTEM(io_uring_queue_init)(entries, ring, flags)
                                        : -ENOSYS;
}

}  // extern "C"
