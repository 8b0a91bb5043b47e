// A regular file of a tree as the values that keep it (tree_entry.h), each read into memory once,
// to where the value has it.
#ifndef SLUICE_TREE_FILE_VALUES_H_
#define SLUICE_TREE_FILE_VALUES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/checksum.h"
#include "tree/extents.h"
#include "tree/tree_entry.h"
#include "tree/tree_file.h"

namespace sluice {

// A file's own record, without its content.
struct FileEntry {
  TreeHeader header;
  TreeExtras extras;
};

// All but generation and digest. INVALID_ARGUMENT where it has more chunks than are counted.
absl::StatusOr<FileEntry> describe(const TreeFile& file);

// The value of a file of one chunk, and its digest in the entry. False where the file changed while
// it was read: *value is then what was read, with zeros where the file had become shorter.
absl::StatusOr<bool> read_whole(const TreeFile& file, FileEntry* entry, std::string* value);

// Notes in a file's own record, and in its value, that the file changed while it was read.
void mark_changed(FileEntry* entry, std::string* value);

// The chunks of a file of several, in order. Confined to one thread; file and entry outlive it.
class ChunkReader {
 public:
  ChunkReader(const TreeFile& file, const FileEntry& entry)
      : file_(file),
        entry_(entry),
        pieces_(file.fd(), entry.header.size, entry.header.chunk_bytes) {}
  bool done() const { return digests_.size() == entry_.header.chunks(); }
  // Of the next chunk.
  uint32_t number() const { return static_cast<uint32_t>(digests_.size()); }
  // As read_whole(), of the next chunk.
  absl::StatusOr<bool> next(std::string* value);
  // Of the file, once done().
  Digest128 digest() const { return digest_of_chunks(digests_); }

 private:
  const TreeFile& file_;
  const FileEntry& entry_;
  ExtentReader pieces_;
  std::vector<Digest128> digests_;
};

}  // namespace sluice

#endif  // SLUICE_TREE_FILE_VALUES_H_
