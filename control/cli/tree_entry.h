// How a file, folder or symbolic link of a tree is kept as records. docs/tree-entries.md has the
// layout to the byte.
//
// One record for each entry: key = prefix + path below the tree's root ('/' between names; the root
// itself is
// "."), value = header + content. A file of more than kTreeChunkBytes has its first chunk in that
// record, and each further chunk in a record of its own with key = the file's key + NUL + its
// number as 8 hex digits: a path contains no NUL, so the two cannot meet.
#ifndef SLUICE_CONTROL_CLI_TREE_ENTRY_H_
#define SLUICE_CONTROL_CLI_TREE_ENTRY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/arena.h"
#include "base/checksum.h"

namespace sluice {

// Content bytes of each chunk but the last: with key and headers one record fits one block.
inline constexpr uint32_t kTreeChunkBytes = kMaxBlockBytes - (32 << 10);

enum class TreeKind : uint8_t { kFolder = 1, kFile = 2, kLink = 3, kChunk = 4 };

struct TreeHeader {
  static constexpr size_t kBytes = 56;

  TreeKind kind = TreeKind::kFile;
  uint16_t mode = 0;          // the twelve permission bits
  int64_t mtime_seconds = 0;  // since the Unix epoch
  uint32_t mtime_nanoseconds = 0;
  uint32_t chunk = 0;        // its number; 0 but for kChunk
  uint64_t size = 0;         // of the file's whole content, or of the link's target
  uint32_t chunk_bytes = 0;  // of the file's chunks but the last; 0 for folders and links
  // kChunk: of its content. kFile: XXH3-128 over the 16-byte digests of all chunks in order. kLink:
  // of the target. Zero for a folder.
  Digest128 digest;

  uint64_t chunks() const {
    return size == 0 || chunk_bytes == 0 ? 1 : (size - 1) / chunk_bytes + 1;
  }
  // Content bytes of chunk `number` of a file.
  uint64_t chunk_size(uint64_t number) const;

  std::string encode() const;
};

struct TreeEntry {
  TreeHeader header;
  std::string_view content;  // points into the value
};

// NOT_FOUND when the value is no tree entry at all, FAILED_PRECONDITION for a later version of the
// layout, DATA_LOSS when it begins like one and breaks the layout.
absl::StatusOr<TreeEntry> parse_tree_entry(std::string_view value);

// The digest a file's header carries, from those of its chunks.
Digest128 digest_of_chunks(const std::vector<Digest128>& chunks);

std::string tree_chunk_key(std::string_view file_key, uint32_t chunk);
// Splits a key below the prefix into path and chunk number; `chunk` is 0 for a key without NUL.
// False when what follows the NUL is no chunk number.
bool split_tree_key(std::string_view key, std::string_view* path, uint32_t* chunk);

// Whether a path read from a record may be created below an export's folder: relative, no empty,
// "." or ".." name, no NUL, no name over 255 bytes. INVALID_ARGUMENT with why not.
absl::Status check_tree_path(std::string_view path);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_TREE_ENTRY_H_
