// The content of one entry of a backup: a record's value, or a file's bytes, put together from its
// chunks. Any number of threads at a time, as far as the backup's contents allow.
#ifndef SLUICE_CONTROL_CONTENTS_CONTENT_READER_H_
#define SLUICE_CONTROL_CONTENTS_CONTENT_READER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/contents/backup_contents.h"
#include "control/contents/entry.h"

namespace sluice {

struct ContentResult {
  EntryType type = EntryType::kRecord;  // of the entry at the path
  uint64_t bytes = 0;
};

// Hands out the content in order, holes as zeros, in pieces of at most a value's length; each piece
// has been checked. A hard link is followed. NOT_FOUND where the path has no entry;
// FAILED_PRECONDITION, saying what it is, for what has no content (a directory, a symbolic link);
// DATA_LOSS where chunks are missing or foreign, or the whole does not have its digest: what was
// handed out is then not the file. Ends with the callback's error. Memory: kChunksAtOnce chunks.
inline constexpr size_t kChunksAtOnce = 32;
using ContentPiece = std::function<absl::Status(std::string_view piece)>;
absl::StatusOr<ContentResult> read_content(BackupContents& contents, const std::string& path,
                                           const ContentPiece& piece);

// The data of a file whose entry is known, at ascending offsets and without its holes; `entry` is
// the whole of what stands at its key. Checks and errors as above.
using DataPiece = std::function<absl::Status(uint64_t offset, std::string_view bytes)>;
absl::Status read_file_data(BackupContents& contents, const std::string& key,
                            const TreeEntry& entry, const DataPiece& piece);

// Chunk `number` of a file as its value says it, with its digest checked. DATA_LOSS where there is
// none, or another record.
absl::StatusOr<TreeEntry> parse_chunk(const TreeHeader& file, uint64_t number,
                                      const std::optional<std::string>& value);

// Whether an entry is what a hard link names: something with content or a node of its own, as the
// link saw it. As an export does it: a name that other names are known of may have another digest
// than they say, where an import was interrupted.
bool is_linked_by(const TreeEntry& entry, const TreeHeader& link);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_CONTENT_READER_H_
