#include "tree/extents.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/status.h"

namespace sluice {

uint64_t bytes_of(const std::vector<Extent>& extents) {
  uint64_t bytes = 0;
  for (const Extent& extent : extents) bytes += extent.length;
  return bytes;
}

// False when there is no more data below size_.
absl::StatusOr<bool> ExtentReader::find_data() {
  if (at_ >= size_) return false;
  const off_t data = lseek(fd_, static_cast<off_t>(at_), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return false;
  if (data < 0) return errno_status(errno, "look for data");
  if (static_cast<uint64_t>(data) >= size_) return false;
  const off_t hole = lseek(fd_, data, SEEK_HOLE);
  if (hole < 0 && errno == ENXIO) return false;  // it was cut off meanwhile
  if (hole < 0) return errno_status(errno, "look for a hole");
  at_ = static_cast<uint64_t>(data);
  end_ = std::min(static_cast<uint64_t>(hole), size_);
  return end_ > at_;
}

absl::StatusOr<std::vector<Extent>> ExtentReader::next() {
  std::vector<Extent> extents;
  uint64_t room = piece_bytes_;
  while (room > 0 && extents.size() < kMaxExtents) {
    if (at_ >= end_) {
      SLUICE_ASSIGN_OR_RETURN(const bool found, find_data());
      if (!found) break;
    }
    const uint64_t length = std::min(room, end_ - at_);
    const bool touches = !extents.empty() && extents.back().offset + extents.back().length == at_;
    if (touches) {
      extents.back().length += length;
    } else {
      extents.push_back({at_, length});
    }
    at_ += length;
    room -= length;
  }
  return extents;
}

bool has_holes(int fd, uint64_t size, uint64_t allocated_bytes) {
  // Blocks of attributes and of the file's map are among those allocated.
  constexpr uint64_t kOtherBlocks = 16 << 10;
  if (size == 0 || allocated_bytes >= size + kOtherBlocks) return false;
  const off_t hole = lseek(fd, 0, SEEK_HOLE);
  return hole >= 0 && static_cast<uint64_t>(hole) < size;
}

absl::StatusOr<uint64_t> count_pieces(int fd, uint64_t size, uint64_t piece_bytes) {
  ExtentReader reader(fd, size, piece_bytes);
  for (uint64_t pieces = 0;; ++pieces) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<Extent> extents, reader.next());
    if (extents.empty()) return pieces;
  }
}

absl::StatusOr<bool> read_extents(int fd, const std::vector<Extent>& extents, char* into) {
  bool whole = true;
  for (const Extent& extent : extents) {
    for (uint64_t done = 0; done < extent.length;) {
      const ssize_t got =
          pread(fd, into + done, extent.length - done, static_cast<off_t>(extent.offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return errno_status(errno, "read");
      if (got == 0) {
        std::memset(into + done, 0, extent.length - done);
        whole = false;
        break;
      }
      done += static_cast<uint64_t>(got);
    }
    into += extent.length;
  }
  return whole;
}

}  // namespace sluice
