// Where the data of a file lies, and how it is cut into pieces that holes cost nothing in.
#ifndef SLUICE_TREE_EXTENTS_H_
#define SLUICE_TREE_EXTENTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

// Bytes of a file that are data; what no extent covers is a hole, and reads as zeros.
struct Extent {
  uint64_t offset = 0;
  uint64_t length = 0;
  friend bool operator==(const Extent&, const Extent&) = default;
};

// More are not needed for pieces of a mebibyte, as holes are file system blocks.
inline constexpr size_t kMaxExtents = 4096;

uint64_t bytes_of(const std::vector<Extent>& extents);

// Hands out the data of an open file below `size`, in order. Memory is that of one piece, whatever
// the file's. Moves the file's offset. Confined to one thread.
class ExtentReader {
 public:
  ExtentReader(int fd, uint64_t size, uint64_t piece_bytes)
      : fd_(fd), size_(size), piece_bytes_(piece_bytes) {}
  // Extents of at most piece_bytes together, not touching each other; none at the end.
  absl::StatusOr<std::vector<Extent>> next();

 private:
  absl::StatusOr<bool> find_data();

  const int fd_;
  const uint64_t size_;
  const uint64_t piece_bytes_;
  uint64_t at_ = 0;   // everything below is handed out, or a hole
  uint64_t end_ = 0;  // of the data at at_; not above at_ where it is not known
};

// Whether the file has holes that its file system tells of.
bool has_holes(int fd, uint64_t size, uint64_t allocated_bytes);
// Pieces that an ExtentReader would hand out.
absl::StatusOr<uint64_t> count_pieces(int fd, uint64_t size, uint64_t piece_bytes);
// Reads the extents' bytes one after another. Where the file ends before, what is missing is zeros,
// and false.
absl::StatusOr<bool> read_extents(int fd, const std::vector<Extent>& extents, char* into);

}  // namespace sluice

#endif  // SLUICE_TREE_EXTENTS_H_
