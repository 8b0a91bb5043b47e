// A directory whose files are those of another one, and whose calls fail on request.
//
//   fault_files MOUNT_POINT DIRECTORY      stays in the foreground until it is unmounted
//
// The extended attribute user.fault of MOUNT_POINT sets the rule: "CALLS TEXT FIRST ERROR
// FOR_GOOD". CALLS is read, write, sync, open, make (create, mkdir, link, symlink), rename, remove,
// resize (truncate, fallocate), any, change (all but read and open) or none; TEXT is in the path,
// from "/"; of such calls the FIRST, counted from 1 when the rule is set, fails, and with FOR_GOOD
// 1 all after it. ERROR is an errno; 0: a write or read that ends in the middle. user.counts is
// "CALLS FAILED".
#define FUSE_USE_VERSION 31
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>

namespace {

constexpr int kNoError = -1;

struct Rule {
  std::string calls = "none";
  std::string text;
  uint64_t first = 1;
  int error = EIO;
  bool for_good = false;
  uint64_t seen = 0;
  uint64_t failed = 0;
};

std::mutex mutex;
Rule rule;
std::string root;

std::string behind(const char* path) { return root + path; }

bool concerns(std::string_view call) {
  if (rule.calls == "any") return true;
  if (rule.calls == "change") return call != "read" && call != "open";
  return rule.calls == call;
}

// The error that this call fails with, kNoError, or 0 where it ends in the middle. `path` is null
// for an open file that has been removed.
int fault(std::string_view call, const char* path) {
  const std::lock_guard lock(mutex);
  if (!concerns(call) || path == nullptr) return kNoError;
  if (std::strstr(path, rule.text.c_str()) == nullptr) return kNoError;
  ++rule.seen;
  if (rule.seen < rule.first || (rule.seen > rule.first && !rule.for_good)) return kNoError;
  ++rule.failed;
  return rule.error;
}

int answer(int result) { return result < 0 ? -errno : 0; }

// What calls that only succeed or fail do.
template <typename Call>
int passed_on(std::string_view kind, const char* path, Call call) {
  const int error = fault(kind, path);
  return error > 0 ? -error : answer(call());
}

int descriptor(const fuse_file_info* file) { return static_cast<int>(file->fh); }

int get_attributes(const char* path, struct stat* info, fuse_file_info* file) {
  return answer(file != nullptr ? fstat(descriptor(file), info)
                                : lstat(behind(path).c_str(), info));
}

// What processes share by mapping it. The system writes it at moments of its own; a disk's file
// system keeps it in memory where that fails, and nobody notices. FUSE may drop it then, and show
// what was written last: so these writes do not fail.
bool is_mapped(const char* path) {
  const std::string_view name(path == nullptr ? "" : path);
  return name.ends_with("-shm") || name.ends_with("-leases");
}

// Writes past the page cache arrive as any others; they are not aligned to anything here.
int open_file(const char* path, fuse_file_info* file) {
  const int error = fault("open", path);
  if (error > 0) return -error;
  const int fd = open(behind(path).c_str(), (file->flags & ~(O_DIRECT | O_APPEND)) | O_CLOEXEC);
  if (fd < 0) return -errno;
  file->fh = static_cast<uint64_t>(fd);
  return 0;
}

int create_file(const char* path, mode_t mode, fuse_file_info* file) {
  const int error = fault("make", path);
  if (error > 0) return -error;
  const int flags = (file->flags & ~(O_DIRECT | O_APPEND)) | O_CREAT | O_CLOEXEC;
  const int fd = open(behind(path).c_str(), flags, mode);
  if (fd < 0) return -errno;
  file->fh = static_cast<uint64_t>(fd);
  return 0;
}

int release_file(const char*, fuse_file_info* file) { return answer(close(descriptor(file))); }

int read_file(const char* path, char* into, size_t size, off_t at, fuse_file_info* file) {
  const int error = fault("read", path);
  if (error > 0) return -error;
  const ssize_t got = pread(descriptor(file), into, error == 0 ? size / 2 : size, at);
  return got < 0 ? -errno : static_cast<int>(got);
}

int write_file(const char* path, const char* data, size_t size, off_t at, fuse_file_info* file) {
  const int error = is_mapped(path) ? kNoError : fault("write", path);
  if (error > 0) return -error;
  const ssize_t put = pwrite(descriptor(file), data, error == 0 ? (size + 1) / 2 : size, at);
  return put < 0 ? -errno : static_cast<int>(put);
}

int sync_file(const char* path, int, fuse_file_info* file) {
  return passed_on("sync", path, [&] { return fdatasync(descriptor(file)); });
}

int sync_directory(const char* path, int, fuse_file_info*) {
  return passed_on("sync", path, [] { return 0; });
}

int read_directory(const char* path, void* into, fuse_fill_dir_t fill, off_t, fuse_file_info*,
                   fuse_readdir_flags) {
  DIR* directory = opendir(behind(path).c_str());
  if (directory == nullptr) return -errno;
  while (const dirent* entry = readdir(directory))
    fill(into, entry->d_name, nullptr, 0, fuse_fill_dir_flags{});
  closedir(directory);
  return 0;
}

int make_directory(const char* path, mode_t mode) {
  return passed_on("make", path, [&] { return mkdir(behind(path).c_str(), mode); });
}
int make_symlink(const char* target, const char* path) {
  return passed_on("make", path, [&] { return symlink(target, behind(path).c_str()); });
}
int make_link(const char* from, const char* path) {
  return passed_on("make", path, [&] { return link(behind(from).c_str(), behind(path).c_str()); });
}
int read_link(const char* path, char* into, size_t size) {
  const ssize_t got = readlink(behind(path).c_str(), into, size - 1);
  if (got < 0) return -errno;
  into[got] = '\0';
  return 0;
}
int rename_file(const char* from, const char* to, unsigned flags) {
  return passed_on("rename", to, [&] {
    return renameat2(AT_FDCWD, behind(from).c_str(), AT_FDCWD, behind(to).c_str(), flags);
  });
}
int remove_file(const char* path) {
  return passed_on("remove", path, [&] { return unlink(behind(path).c_str()); });
}
int remove_directory(const char* path) {
  return passed_on("remove", path, [&] { return rmdir(behind(path).c_str()); });
}
int truncate_file(const char* path, off_t size, fuse_file_info* file) {
  return passed_on("resize", path, [&] {
    return file != nullptr ? ftruncate(descriptor(file), size)
                           : truncate(behind(path).c_str(), size);
  });
}
int allocate(const char* path, int mode, off_t at, off_t size, fuse_file_info* file) {
  return passed_on("resize", path, [&] { return fallocate(descriptor(file), mode, at, size); });
}
int change_mode(const char* path, mode_t mode, fuse_file_info*) {
  return answer(chmod(behind(path).c_str(), mode));
}
int change_owner(const char* path, uid_t user, gid_t group, fuse_file_info*) {
  return answer(lchown(behind(path).c_str(), user, group));
}
int change_times(const char* path, const timespec times[2], fuse_file_info*) {
  return answer(utimensat(AT_FDCWD, behind(path).c_str(), times, AT_SYMLINK_NOFOLLOW));
}
int file_system(const char* path, struct statvfs* into) {
  return answer(statvfs(behind(path).c_str(), into));
}

int set_attribute(const char* path, const char* name, const char* value, size_t size, int) {
  if (std::string_view(path) != "/" || std::string_view(name) != "user.fault") return -ENOTSUP;
  Rule set;
  std::istringstream text(std::string(value, size));
  if (!(text >> set.calls >> set.text >> set.first >> set.error >> set.for_good)) return -EINVAL;
  const std::lock_guard lock(mutex);
  rule = set;
  return 0;
}

int get_attribute(const char* path, const char* name, char* into, size_t size) {
  if (std::string_view(path) != "/" || std::string_view(name) != "user.counts") return -ENODATA;
  const std::lock_guard lock(mutex);
  const std::string text = std::to_string(rule.seen) + " " + std::to_string(rule.failed);
  if (size == 0) return static_cast<int>(text.size());
  if (size < text.size()) return -ERANGE;
  std::memcpy(into, text.data(), text.size());
  return static_cast<int>(text.size());
}

// Files that are removed while they are open are gone at once, and hard links are one file.
void* set_up(fuse_conn_info*, fuse_config* config) {
  config->hard_remove = 1;
  config->use_ino = 1;
  return nullptr;
}

fuse_operations all_operations() {
  fuse_operations calls{};
  calls.init = set_up;
  calls.getattr = get_attributes;
  calls.open = open_file;
  calls.create = create_file;
  calls.release = release_file;
  calls.read = read_file;
  calls.write = write_file;
  calls.fsync = sync_file;
  calls.fsyncdir = sync_directory;
  calls.readdir = read_directory;
  calls.mkdir = make_directory;
  calls.symlink = make_symlink;
  calls.link = make_link;
  calls.readlink = read_link;
  calls.rename = rename_file;
  calls.unlink = remove_file;
  calls.rmdir = remove_directory;
  calls.truncate = truncate_file;
  calls.fallocate = allocate;
  calls.chmod = change_mode;
  calls.chown = change_owner;
  calls.utimens = change_times;
  calls.statfs = file_system;
  calls.setxattr = set_attribute;
  calls.getxattr = get_attribute;
  return calls;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: fault_files MOUNT_POINT DIRECTORY\n");
    return 2;
  }
  root = arguments[2];
  umask(0);
  const fuse_operations operations = all_operations();
  std::array<char*, 3> own{arguments[0], const_cast<char*>("-f"), arguments[1]};
  return fuse_main(static_cast<int>(own.size()), own.data(), &operations, nullptr);
}
