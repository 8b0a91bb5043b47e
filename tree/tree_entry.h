// How a file, folder or symbolic link of a tree is kept as records. docs/tree-entries.md has the
// layout to the byte.
//
// One record for each entry: key = prefix + path below the tree's root ('/' between names; the root
// itself is "."), value = header + content. The content of a file of more than kTreeChunkBytes is
// in chunks, records of their own: key = the file's key + NUL + generation + number. A path
// contains no NUL, so the two cannot meet.
//
// Each import of such a file makes a new generation of chunks; the file's own record names the
// generation that counts and is written when all its chunks are acknowledged. Versions of a file
// thus share no record but the one that decides between them. A generation record, written before a
// generation's first chunk and erased after its last, says which chunks to remove when they are no
// longer needed.
#ifndef SLUICE_TREE_TREE_ENTRY_H_
#define SLUICE_TREE_TREE_ENTRY_H_

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

// Generations are random numbers below this. The low bits tell apart the attempts of one import at
// a file that changes while it is read.
inline constexpr int kGenerationBits = 40;
inline constexpr int kAttemptBits = 2;

enum class TreeKind : uint8_t { kFolder = 1, kFile = 2, kLink = 3, kChunk = 4, kGeneration = 5 };

struct TreeHeader {
  static constexpr size_t kBytes = 72;

  TreeKind kind = TreeKind::kFile;
  uint16_t mode = 0;          // the twelve permission bits
  int64_t mtime_seconds = 0;  // since the Unix epoch
  uint32_t mtime_nanoseconds = 0;
  uint32_t chunk = 0;        // its number; 0 but for kChunk
  uint32_t uid = 0;          // the owner, and
  uint32_t gid = 0;          // group, of kFolder, kFile and kLink
  uint64_t generation = 0;   // of the chunks; 0 where the content is in the record itself
  uint64_t size = 0;         // of the file's whole content, or of the link's target
  uint32_t chunk_bytes = 0;  // of the file's chunks but the last; 0 for folders and links
  // kChunk: of its content. kFile: XXH3-128 over the 16-byte digests of all chunks in order. kLink:
  // of the target. Zero for a folder and a generation.
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

// 9 bytes longer than the file's key; 10 from chunk 2^24 on.
std::string tree_chunk_key(std::string_view file_key, uint64_t generation, uint32_t chunk);
// False when it is not the key of a chunk.
bool split_chunk_key(std::string_view key, std::string_view* file_key, uint64_t* generation,
                     uint32_t* chunk);

// All generation records of a prefix begin with generation_prefix(prefix), and nothing else does.
std::string generation_prefix(std::string_view prefix);
std::string generation_key(std::string_view prefix, std::string_view path, uint64_t generation);
// Splits a key of generation_key() without generation_prefix(). False when it is not one.
bool split_generation_key(std::string_view rest, std::string_view* path, uint64_t* generation);

// Whether a path read from a record may be created below an export's folder: relative, no empty,
// "." or ".." name, no NUL, no name over 255 bytes. INVALID_ARGUMENT with why not.
absl::Status check_tree_path(std::string_view path);

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_ENTRY_H_
