// How a file, directory, link, pipe or device of a tree is kept as records. docs/tree-entries.md
// has the layout to the byte.
//
// One record for each entry: key = prefix + path below the tree's root ('/' between names; the root
// itself is "."), value = header + extras + content. The content of a file of more than
// kTreeChunkBytes of data is in chunks, records of their own: key = the file's key + NUL +
// generation + number. A path contains no NUL, so the two cannot meet. Further names of a file are
// entries of a kind of their own, which name the first.
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
#include "tree/extents.h"
#include "tree/file_metadata.h"

namespace sluice {

// Content bytes of each chunk but the last: with key and headers one record fits one block.
inline constexpr uint32_t kTreeChunkBytes = kMaxBlockBytes - (32 << 10);

// Generations are random numbers below this. The low bits tell apart the attempts of one import at
// a file that changes while it is read.
inline constexpr int kGenerationBits = 40;
inline constexpr int kAttemptBits = 2;

enum class TreeKind : uint8_t {
  kDirectory = 1,
  kFile = 2,
  kLink = 3,
  kChunk = 4,
  kGeneration = 5,
  kHardLink = 6,
  kPipe = 7,
  kCharacterDevice = 8,
  kBlockDevice = 9,
};

// The kind of a type. kSocket has none: what listens on it does not come back with it.
TreeKind kind_of(FileType type);
FileType type_of(TreeKind kind);

struct TreeHeader {
  static constexpr size_t kBytes = 72;

  TreeKind kind = TreeKind::kFile;
  uint16_t mode = 0;          // the twelve permission bits
  int64_t mtime_seconds = 0;  // since the Unix epoch
  uint32_t mtime_nanoseconds = 0;
  uint32_t chunk = 0;       // its number; 0 but for kChunk
  uint32_t uid = 0;         // the owner, and
  uint32_t gid = 0;         // group; 0 for kHardLink
  uint64_t generation = 0;  // of the chunks; 0 where the content is in the record itself
  uint64_t size = 0;        // of the file with its holes, or of the content of kLink and kHardLink
  uint32_t chunk_bytes =
      0;  // data bytes of the file's chunks but the last; 0 for what is not a file
  // kChunk: digest_of_content(). kFile: XXH3-128 over the 16-byte digests of all chunks in order.
  // kLink: of the target. kHardLink: the digest of the entry that it names. Otherwise zero.
  Digest128 digest;

  // Where a file has holes, its content is its data alone and the extras say where it lies.
  bool sparse = false;
  uint32_t sparse_chunks = 0;  // of a sparse file of several

  uint64_t chunks() const {
    if (sparse) return sparse_chunks == 0 ? 1 : sparse_chunks;
    return size == 0 || chunk_bytes == 0 ? 1 : (size - 1) / chunk_bytes + 1;
  }
  // Content bytes of chunk `number` of a file without holes.
  uint64_t chunk_size(uint64_t number) const;
};

// What most entries have little of.
struct TreeExtras {
  std::string user;  // names of the owner and group; empty where there were none
  std::string group;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  // Of a sparse kChunk, and of a sparse kFile that has no chunks: where the content lies.
  std::vector<Extent> extents;
  bool changed = false;  // the file changed while this was read
  // Of a kHardLink: bytes of its own path below the tree's root. Its content is the path of the
  // name that has the content, below the same root.
  uint32_t own_path_bytes = 0;
  bool linked = false;  // kHardLink entries name this one
  // Of a kHardLink, and of what these name: tells the file from others that had the name. 0 where
  // an earlier version wrote it.
  uint64_t file_number = 0;
  std::vector<ExtendedAttribute> attributes;
};

// Header and extras as they begin a value; the content follows. Entries that need nothing of a
// later layout are written as an earlier one, which earlier versions read.
std::string encode_tree_entry(const TreeHeader& header, const TreeExtras& extras = {});

// Whole values. Of what is not a file; further names will name it where it has a file_number. The
// digest is set where it is not null.
std::string encode_special(const FileMetadata& metadata, uint64_t file_number, Digest128* digest);
// A further name of the entry at `first`, which has this digest.
std::string encode_hard_link(std::string_view path, std::string_view first, const Digest128& digest,
                             uint64_t file_number);

struct TreeEntry {
  TreeHeader header;
  TreeExtras extras;
  std::string_view content;  // points into the value
  uint8_t version = 0;       // of the layout
};

// Whether a value that begins so is an entry of something in a file system: neither a chunk nor a
// generation, nor another record.
inline constexpr size_t kTreeHeadBytes = 6;
bool is_named_entry(std::string_view head);
bool is_hard_link(std::string_view head);

// The entry that keeps `metadata`, without content, size and digest.
void set_metadata(const FileMetadata& metadata, TreeHeader* header, TreeExtras* extras);
FileMetadata metadata_of(const TreeEntry& entry);

// NOT_FOUND when the value is no tree entry at all, FAILED_PRECONDITION for a later version of the
// layout, DATA_LOSS when it begins like one and breaks the layout.
absl::StatusOr<TreeEntry> parse_tree_entry(std::string_view value);
// The same of what stands before the content: the entry has none.
absl::StatusOr<TreeEntry> parse_tree_head(std::string_view head);

// Of a chunk's content and of where it lies.
Digest128 digest_of_content(const std::vector<Extent>& extents, std::string_view content);
// The digest a file's header carries, from those of its chunks.
Digest128 digest_of_chunks(const std::vector<Digest128>& chunks);

// Whether a chunk is the given one of a file.
bool is_chunk_of(const TreeHeader& chunk, const TreeHeader& file, uint32_t number);
// Where the content of a file's record, or of a chunk's, lies in the file.
std::vector<Extent> extents_of(const TreeEntry& entry);

// 9 bytes longer than the file's key; 10 from chunk 2^24 on.
std::string tree_chunk_key(std::string_view file_key, uint64_t generation, uint32_t chunk);
// In a backup of a tree where it is, the key of a file's own record where chunks come before it:
// behind those of all generations, which are below 2^40 - 1 there.
std::string own_record_key(std::string_view path);
// The key as it is without chunks before it: the path, of such a key; any other one itself.
std::string_view entry_key(std::string_view key);
// False when it is not the key of a chunk.
bool split_chunk_key(std::string_view key, std::string_view* file_key, uint64_t* generation,
                     uint32_t* chunk);

// All generation records of a prefix begin with generation_prefix(prefix), and nothing else does.
std::string generation_prefix(std::string_view prefix);
std::string generation_key(std::string_view prefix, std::string_view path, uint64_t generation);
// Splits a key of generation_key() without generation_prefix(). False when it is not one.
bool split_generation_key(std::string_view rest, std::string_view* path, uint64_t* generation);

// The key of the entry that a kHardLink names, and its path where the link's is `path`; the path is
// empty where it is outside of what `path` is below of. DATA_LOSS where the link cannot have that
// key.
struct HardLinkTarget {
  std::string key;
  std::string path;
};
absl::StatusOr<HardLinkTarget> target_of(std::string_view key, std::string_view path,
                                         const TreeEntry& link);

// Whether a path read from a record may be created below an export's directory: relative, no empty,
// "." or ".." name, no NUL, no name over 255 bytes. INVALID_ARGUMENT with why not.
absl::Status check_tree_path(std::string_view path);

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_ENTRY_H_
