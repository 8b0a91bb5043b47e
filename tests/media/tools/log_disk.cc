// A file for a loop device that remembers each write and each flush in their order, so that what a
// disk may hold when its power fails can be made afterwards, for any moment of the run.
//
//   log_disk MOUNT_POINT IMAGE LOG      stays in the foreground until the directory is unmounted
//
// MOUNT_POINT/disk has the content of IMAGE, which is changed in place. Writing a name to
// MOUNT_POINT/mark notes it in LOG. LOG consists of entries: kind, offset and length (three
// little-endian 64-bit numbers), then `length` bytes: what a write wrote, or a mark's name.
// The kernel hands a write over before the writer goes on (no write-back cache), and a loop device
// turns a flush into an fsync, so a write that LOG has behind the last flush is one that a disk
// with a volatile cache may lose.
#define FUSE_USE_VERSION 31
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

enum class Kind : uint64_t { kWrite = 0, kFlush = 1, kMark = 2 };

int image = -1;
int log_file = -1;
off_t image_bytes = 0;

bool is_disk(const char* path) { return std::string_view(path) == "/disk"; }
bool is_mark(const char* path) { return std::string_view(path) == "/mark"; }

// What is not in the log would be taken for lost.
void require_all(ssize_t done, size_t wanted) {
  if (done == static_cast<ssize_t>(wanted)) return;
  std::perror("log_disk: write");
  std::abort();
}

void note(Kind kind, uint64_t offset, const char* data, size_t size) {
  const std::array<uint64_t, 3> head{static_cast<uint64_t>(kind), offset, size};
  require_all(write(log_file, head.data(), sizeof head), sizeof head);
  if (size > 0) require_all(write(log_file, data, size), size);
}

int get_attributes(const char* path, struct stat* info, fuse_file_info*) {
  std::memset(info, 0, sizeof *info);
  info->st_nlink = 1;
  if (std::string_view(path) == "/") {
    info->st_mode = S_IFDIR | 0755;
  } else if (is_disk(path) || is_mark(path)) {
    info->st_mode = S_IFREG | 0600;
    info->st_size = is_disk(path) ? image_bytes : 0;
  } else {
    return -ENOENT;
  }
  return 0;
}

int open_file(const char* path, fuse_file_info*) {
  return is_disk(path) || is_mark(path) ? 0 : -ENOENT;
}

int truncate_file(const char* path, off_t, fuse_file_info*) { return is_mark(path) ? 0 : -EPERM; }

int read_file(const char* path, char* into, size_t size, off_t offset, fuse_file_info*) {
  if (!is_disk(path)) return 0;
  const ssize_t got = pread(image, into, size, offset);
  return got < 0 ? -errno : static_cast<int>(got);
}

int write_file(const char* path, const char* data, size_t size, off_t offset, fuse_file_info*) {
  if (is_mark(path)) {
    note(Kind::kMark, 0, data, size);
  } else {
    require_all(pwrite(image, data, size, offset), size);
    note(Kind::kWrite, static_cast<uint64_t>(offset), data, size);
  }
  return static_cast<int>(size);
}

int flush_file(const char* path, int, fuse_file_info*) {
  if (is_disk(path)) note(Kind::kFlush, 0, nullptr, 0);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: log_disk MOUNT_POINT IMAGE LOG\n");
    return 2;
  }
  image = open(arguments[2], O_RDWR | O_CLOEXEC);
  log_file = open(arguments[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  struct stat info {};
  if (image < 0 || log_file < 0 || fstat(image, &info) != 0) {
    std::perror("log_disk");
    return 1;
  }
  image_bytes = info.st_size;
  fuse_operations operations{};
  operations.getattr = get_attributes;
  operations.open = open_file;
  operations.truncate = truncate_file;
  operations.read = read_file;
  operations.write = write_file;
  operations.fsync = flush_file;
  // One thread: the log's order is the order of the disk.
  std::array<char*, 4> own{arguments[0], const_cast<char*>("-f"), const_cast<char*>("-s"),
                           arguments[1]};
  return fuse_main(static_cast<int>(own.size()), own.data(), &operations, nullptr);
}
