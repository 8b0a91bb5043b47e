// The content of one entry of a backup: a record's value, or a file's bytes, put together from its
// chunks.
#ifndef SLUICE_CONTROL_CONTENTS_CONTENT_READER_H_
#define SLUICE_CONTROL_CONTENTS_CONTENT_READER_H_

#include <cstdint>
#include <functional>
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

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_CONTENT_READER_H_
