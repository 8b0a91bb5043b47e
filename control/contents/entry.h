// What a backup holds, as somebody who looks into it sees it: records whose values are tree entries
// (tree/tree_entry.h) as what they are in a file system, all others as records.
//
// Paths are keys. The root of a tree that was imported with a prefix such as "docs/" has the key
// "docs/." and is shown as the directory "docs". Chunks and generations of files are never shown:
// they are part of their file. Nor are deleted records.
#ifndef SLUICE_CONTROL_CONTENTS_ENTRY_H_
#define SLUICE_CONTROL_CONTENTS_ENTRY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checksum.h"
#include "control/proto/sluice.pb.h"
#include "dataplane/archive/record_reader.h"
#include "tree/tree_entry.h"
#include "tree/tree_extras.h"

namespace sluice {

// Numbers travel.
enum class EntryType : uint8_t {
  kPrefix = 0,  // what several keys begin with, up to a '/', and that is not an entry itself
  kRecord = 1,
  kDirectory = 2,
  kFile = 3,
  kSymlink = 4,
  kHardLink = 5,  // a further name of a file
  kPipe = 6,
  kCharacterDevice = 7,
  kBlockDevice = 8,
};
inline constexpr uint32_t kEntryTypes = 9;
// "prefix", "record", "directory", "file", "symlink", "hardlink", "pipe", "chardev", "blockdev".
std::string_view name_of(EntryType type);
std::optional<EntryType> entry_type_named(std::string_view name);

struct BackupEntry {
  std::string path;
  EntryType type = EntryType::kRecord;
  uint64_t size = 0;     // of a file with its holes, of a symlink's target, of a record's value
  uint32_t mode = 0;     // permission bits; of tree entries
  int64_t mtime_ns = 0;  // since the Unix epoch; of tree entries
  // Of a symlink what it says; of a hard link the path of the file that it is a name of.
  std::string target;
  std::string node;  // whose part holds it; of a prefix: one of those that do
  // Of what it says, without the generation of its chunks: two imports of one file have the same.
  Digest128 digest;
  bool itself = false;  // the entry at the path that was asked for
  // Of a hard link until the file that it names is known: size, mode and time are that file's.
  bool unresolved = false;
  bool linked = false;  // hard links name it; known where the archive is read
  // Of a tree entry where it was asked for: its value, or what stands before its content. Links and
  // whatever has no content are always whole, as are files of several chunks.
  std::string value;
  bool whole = false;

  // Whether mode and time are known.
  bool has_metadata() const {
    return type != EntryType::kPrefix && type != EntryType::kRecord && !unresolved;
  }
};

// Values of tree entries are not longer.
inline constexpr size_t kMaxTreeEntryBytes =
    TreeHeader::kBytes + kMaxTreeExtrasBytes + kTreeChunkBytes;

// What entries come with.
struct EntryParts {
  bool digests = false;
  bool heads = false;        // values of tree entries, up to their content
  size_t content_bytes = 0;  // with heads: content up to this length
};
// nullopt for what is not shown. The record's value is needed where it has at most
// kMaxTreeEntryBytes. The node is the caller's to fill in.
std::optional<BackupEntry> entry_of(const ArchivedRecord& record, const EntryParts& parts);

// Sorts paths as a file system is walked: a directory right before all that is below it, as a '/'
// counts less than any other byte. The root of a tree that was imported without a prefix, ".", is
// before all.
std::string walk_key(std::string_view path);
// Whether an entry's path may be one in a file system, below a directory or, with a '/' at its
// begin, below the root: names that are neither empty, "." nor "..", of at most 255 bytes, without
// a NUL byte.
bool is_file_path(const BackupEntry& entry);

void put(const BackupEntry& entry, v1::ContentsEntry* out);
// DATA_LOSS for what no node sends. The node is the caller's to fill in.
absl::StatusOr<BackupEntry> decode_entry(v1::ContentsEntry& in);

void put(const Digest128& digest, std::string* out);
// False unless it has 16 bytes.
bool get(std::string_view bytes, Digest128* digest);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_ENTRY_H_
