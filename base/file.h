// Files that are there whole or not at all.
#ifndef SLUICE_BASE_FILE_H_
#define SLUICE_BASE_FILE_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice {

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// Writes beside the path, syncs, renames over it, syncs the folder. After OK the content is
// durable; after an error or a crash the path holds what it held before.
absl::Status write_file_durably(const std::string& path, std::string_view content);
struct NewFile {
  std::string path;
  std::string content;
};
// The same for several files of one directory, in as many rounds of syncs as for one. After an
// error or a crash each of them is new or as it was.
absl::Status write_files_durably(const std::vector<NewFile>& files);
// NOT_FOUND where there is none; RESOURCE_EXHAUSTED when it is longer than `limit` bytes.
absl::StatusOr<std::string> read_file(const std::string& path, size_t limit);
// Also OK where there is none. Durable once its folder is synced.
absl::Status remove_file(const std::string& path);
absl::Status sync_folder(const std::string& path);
// A file or directory that is open, and not durable yet.
struct Unsynced {
  UniqueFd fd;
  std::string path;
};
// Makes the file, which must not be there.
absl::StatusOr<Unsynced> create_file(const std::string& path, std::string_view content);
absl::StatusOr<Unsynced> open_folder(const std::string& path);
// All at once: what the disk takes in one round costs little more than one of them.
absl::Status sync_together(const std::vector<Unsynced>& open);
// Of a path with or without directories; "." and "/" at the end.
std::string parent_folder(const std::string& path);
// Makes the folder and its parents, durably.
absl::Status make_folders(const std::string& path);
// What a user without privileges can still write to the file system that the path is on.
absl::StatusOr<uint64_t> free_bytes_at(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_BASE_FILE_H_
