#include "control/contents/content_reader.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/text.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

constexpr size_t kZerosAtOnce = size_t{1} << 20;

// Checks a file's pieces, and hands out what they hold in order.
class FileData {
 public:
  FileData(const TreeHeader& file, const DataPiece& piece) : file_(file), piece_(piece) {}

  // The content of the file's record, or of its next chunk, whose digest is its header's.
  absl::Status add(const TreeEntry& entry) {
    const bool chunk = entry.header.kind == TreeKind::kChunk;
    digests_.push_back(chunk ? entry.header.digest
                             : digest_of_content(entry.extras.extents, entry.content));
    // Nothing is handed out of a file of one piece that is not what it should be.
    if (!chunk) SLUICE_RETURN_IF_ERROR(finish());
    std::string_view content = entry.content;
    for (const Extent& extent : extents_of(entry)) {
      if (extent.offset < at_ || extent.length > content.size()) {
        return data_loss("its chunks overlap");
      }
      at_ = extent.offset + extent.length;
      if (at_ > file_.size) return data_loss("its chunks have more bytes than the file");
      if (extent.length > 0) {
        SLUICE_RETURN_IF_ERROR(piece_(extent.offset, content.substr(0, extent.length)));
      }
      content.remove_prefix(extent.length);
    }
    return absl::OkStatus();
  }
  absl::Status finish() const {
    if (digest_of_chunks(digests_) == file_.digest) return absl::OkStatus();
    return data_loss("its content does not have the digest of its entry");
  }

 private:
  const TreeHeader& file_;
  const DataPiece& piece_;
  uint64_t at_ = 0;
  std::vector<Digest128> digests_;
};

// Writes zeros where there is no data.
class FilledContent {
 public:
  explicit FilledContent(const ContentPiece& piece) : piece_(piece) {}

  absl::Status write(uint64_t offset, std::string_view bytes) {
    SLUICE_RETURN_IF_ERROR(fill_up_to(offset));
    at_ += bytes.size();
    return piece_(bytes);
  }
  absl::Status fill_up_to(uint64_t end) {
    if (at_ >= end) return absl::OkStatus();
    if (zeros_.empty()) zeros_.assign(std::min<uint64_t>(kZerosAtOnce, end - at_), '\0');
    while (at_ < end) {
      const size_t size = std::min<uint64_t>(zeros_.size(), end - at_);
      at_ += size;
      SLUICE_RETURN_IF_ERROR(piece_(std::string_view(zeros_).substr(0, size)));
    }
    return absl::OkStatus();
  }
  uint64_t bytes() const { return at_; }

 private:
  const ContentPiece& piece_;
  uint64_t at_ = 0;
  std::string zeros_;
};

absl::StatusOr<uint64_t> read_file(BackupContents& contents, const std::string& key,
                                   const TreeEntry& entry, const ContentPiece& piece) {
  FilledContent content(piece);
  SLUICE_RETURN_IF_ERROR(read_file_data(
      contents, key, entry,
      [&](uint64_t offset, std::string_view bytes) { return content.write(offset, bytes); }));
  SLUICE_RETURN_IF_ERROR(content.fill_up_to(entry.header.size));
  return content.bytes();
}

absl::Status has_no_content(const TreeEntry& entry) {
  switch (entry.header.kind) {
    case TreeKind::kDirectory:
      return failed_precondition("a directory: 'sluice backup ls' lists it");
    case TreeKind::kLink:
      return failed_precondition("a symbolic link to '{}'", printable(entry.content, 4096));
    case TreeKind::kPipe:
      return failed_precondition("a pipe, which has no content");
    case TreeKind::kCharacterDevice:
    case TreeKind::kBlockDevice:
      return failed_precondition("a device, which has no content");
    case TreeKind::kChunk:
    case TreeKind::kGeneration:
      return not_found("part of a file, and not an entry of its own");
    case TreeKind::kFile:
    case TreeKind::kHardLink:
      break;
  }
  return absl::OkStatus();
}

// The name that has the content.
absl::StatusOr<uint64_t> read_linked(BackupContents& contents, const std::string& key,
                                     const TreeEntry& link, const ContentPiece& piece) {
  SLUICE_ASSIGN_OR_RETURN(const HardLinkTarget target, target_of(key, key, link));
  SLUICE_ASSIGN_OR_RETURN(const BackupContents::Values values, contents.read({target.key}));
  const auto gone = [&] {
    return data_loss("its content, which '{}' had, is not in the backup",
                     printable(target.key, 4096));
  };
  if (!values.at(0).has_value()) return gone();
  const auto entry = parse_tree_entry(*values[0]);
  if (!entry.ok() || !is_linked_by(*entry, link.header)) return gone();
  SLUICE_RETURN_IF_ERROR(has_no_content(*entry));
  return read_file(contents, target.key, *entry, piece);
}

absl::StatusOr<ContentResult> read_value(BackupContents& contents, const std::string& key,
                                         const std::string& value, const ContentPiece& piece) {
  ContentResult result;
  const auto entry = parse_tree_entry(value);
  if (!entry.ok()) {
    // A record that is not a tree entry, or one that this version does not know.
    result.bytes = value.size();
    SLUICE_RETURN_IF_ERROR(piece(value));
    return result;
  }
  SLUICE_RETURN_IF_ERROR(has_no_content(*entry));
  if (entry->header.kind == TreeKind::kHardLink) {
    result.type = EntryType::kHardLink;
    SLUICE_ASSIGN_OR_RETURN(result.bytes, read_linked(contents, key, *entry, piece));
    return result;
  }
  result.type = EntryType::kFile;
  SLUICE_ASSIGN_OR_RETURN(result.bytes, read_file(contents, key, *entry, piece));
  return result;
}

}  // namespace

bool is_linked_by(const TreeEntry& entry, const TreeHeader& link) {
  switch (entry.header.kind) {
    case TreeKind::kHardLink:
    case TreeKind::kDirectory:
    case TreeKind::kChunk:
    case TreeKind::kGeneration:
      return false;
    default:
      return entry.header.digest == link.digest || entry.extras.linked;
  }
}

absl::StatusOr<TreeEntry> parse_chunk(const TreeHeader& file, uint64_t number,
                                      const std::optional<std::string>& value) {
  if (!value.has_value()) {
    return data_loss("chunk {} of its {} chunks is missing", number, file.chunks());
  }
  absl::StatusOr<TreeEntry> entry = parse_tree_entry(*value);
  if (!entry.ok() || !is_chunk_of(entry->header, file, static_cast<uint32_t>(number))) {
    return data_loss("chunk {} of its {} chunks is another record", number, file.chunks());
  }
  if (digest_of_content(entry->extras.extents, entry->content) != entry->header.digest) {
    return data_loss("chunk {} does not have the digest of its header", number);
  }
  return entry;
}

absl::Status read_file_data(BackupContents& contents, const std::string& key,
                            const TreeEntry& entry, const DataPiece& piece) {
  const TreeHeader& file = entry.header;
  FileData data(file, piece);
  if (file.chunks() == 1) return data.add(entry);
  std::vector<std::string> keys;
  for (uint64_t first = 0; first < file.chunks(); first += keys.size()) {
    keys.clear();
    for (uint64_t number = first; number < file.chunks() && keys.size() < kChunksAtOnce; ++number) {
      keys.push_back(tree_chunk_key(key, file.generation, static_cast<uint32_t>(number)));
    }
    SLUICE_ASSIGN_OR_RETURN(const BackupContents::Values values, contents.read(keys));
    for (size_t i = 0; i < keys.size(); ++i) {
      SLUICE_ASSIGN_OR_RETURN(const TreeEntry chunk, parse_chunk(file, first + i, values.at(i)));
      SLUICE_RETURN_IF_ERROR(data.add(chunk));
    }
  }
  return data.finish();
}

absl::StatusOr<ContentResult> read_content(BackupContents& contents, const std::string& path,
                                           const ContentPiece& piece) {
  // A directory may be the root of a tree that was imported with a prefix.
  std::string root = path;
  if (!root.ends_with('/')) root += '/';
  root += '.';
  std::vector<std::string> keys = {path};
  if (root.size() <= kMaxKeyBytes) keys.push_back(root);
  SLUICE_ASSIGN_OR_RETURN(const BackupContents::Values values, contents.read(keys));
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].has_value()) continue;
    // What the callback returns is not about the entry.
    absl::Status written;
    const auto result = read_value(contents, keys[i], *values[i], [&](std::string_view bytes) {
      written = piece(bytes);
      return written;
    });
    SLUICE_RETURN_IF_ERROR(written);
    if (result.ok()) return result;
    return with_context(result.status(),
                        fmt::format("'{}' in {}", printable(path, 4096), contents.description()));
  }
  return not_found("'{}' is not in {}", printable(path, 4096), contents.description());
}

}  // namespace sluice
