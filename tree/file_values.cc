#include "tree/file_values.h"

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace sluice {
namespace {

// Content behind room for header and extras, whose digest is not known yet: a copy of each byte
// less.
absl::StatusOr<bool> read_value(const TreeFile& file, const std::vector<Extent>& places,
                                size_t before, std::string* value) {
  value->resize(before + bytes_of(places));
  SLUICE_ASSIGN_OR_RETURN(const bool whole,
                          read_extents(file.fd(), places, value->data() + before));
  SLUICE_ASSIGN_OR_RETURN(const bool changed, file.changed());
  return whole && !changed;
}

size_t bytes_before_content(const FileEntry& entry) {
  return encode_tree_entry(entry.header, entry.extras).size();
}

// Whether there is no data behind what was counted before. Which ranges of a file are data may
// change without a change of the file: what was allocated and never written becomes data when it is
// read.
absl::StatusOr<bool> is_at_end(ExtentReader& pieces) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<Extent> more, pieces.next());
  return more.empty();
}

// Once the digest is known; it does not change how many bytes they are.
void set_header(const FileEntry& entry, std::string* value) {
  const std::string encoded = encode_tree_entry(entry.header, entry.extras);
  value->replace(0, encoded.size(), encoded);
}

}  // namespace

absl::StatusOr<FileEntry> describe(const TreeFile& file) {
  FileEntry entry;
  TreeHeader& header = entry.header;
  set_metadata(file.metadata(), &header, &entry.extras);
  header.size = file.metadata().size;
  header.chunk_bytes = kTreeChunkBytes;
  header.sparse = file.sparse();
  if (!header.sparse) return entry;
  SLUICE_ASSIGN_OR_RETURN(const uint64_t pieces,
                          count_pieces(file.fd(), header.size, kTreeChunkBytes));
  if (pieces > UINT32_MAX) return invalid_argument("it has {} chunks of data", pieces);
  header.sparse_chunks = pieces > 1 ? static_cast<uint32_t>(pieces) : 0;
  return entry;
}

void mark_changed(FileEntry* entry, std::string* value) {
  const size_t before = bytes_before_content(*entry);
  entry->extras.changed = true;
  value->replace(0, before, encode_tree_entry(entry->header, entry->extras));
}

absl::StatusOr<bool> read_whole(const TreeFile& file, FileEntry* entry, std::string* value) {
  TreeHeader& header = entry->header;
  std::vector<Extent> places = {{0, header.size}};
  bool all = true;
  if (header.sparse) {
    ExtentReader pieces(file.fd(), header.size, header.chunk_bytes);
    SLUICE_ASSIGN_OR_RETURN(places, pieces.next());
    entry->extras.extents = places;
    SLUICE_ASSIGN_OR_RETURN(all, is_at_end(pieces));
  }
  const size_t before = bytes_before_content(*entry);
  SLUICE_ASSIGN_OR_RETURN(const bool same, read_value(file, places, before, value));
  header.digest = digest_of_chunks(
      {digest_of_content(entry->extras.extents, std::string_view(*value).substr(before))});
  set_header(*entry, value);
  return same && all;
}

absl::StatusOr<bool> ChunkReader::next(std::string* value) {
  FileEntry chunk;
  chunk.header = entry_.header;
  chunk.header.kind = TreeKind::kChunk;
  chunk.header.chunk = number();
  std::vector<Extent> places = {
      {uint64_t{number()} * chunk.header.chunk_bytes, chunk.header.chunk_size(number())}};
  bool found = true;
  if (chunk.header.sparse) {
    SLUICE_ASSIGN_OR_RETURN(places, pieces_.next());
    chunk.extras.extents = places;
    found = !places.empty();
  }
  const size_t before = bytes_before_content(chunk);
  SLUICE_ASSIGN_OR_RETURN(const bool same, read_value(file_, places, before, value));
  chunk.header.digest =
      digest_of_content(chunk.extras.extents, std::string_view(*value).substr(before));
  digests_.push_back(chunk.header.digest);
  set_header(chunk, value);
  if (done() && chunk.header.sparse) {
    SLUICE_ASSIGN_OR_RETURN(const bool all, is_at_end(pieces_));
    found = found && all;
  }
  return same && found;
}

}  // namespace sluice
