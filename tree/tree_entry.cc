#include "tree/tree_entry.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/block/record.h"
#include "tree/tree_extras.h"

namespace sluice {
namespace {

constexpr char kMagic[] = "SLTE";
constexpr uint8_t kFirstVersion = 2;   // kinds up to kLastEarlierKind without extras
constexpr uint8_t kSecondVersion = 3;  // without a file number
constexpr uint8_t kVersion = 4;
constexpr TreeKind kLastEarlierKind = TreeKind::kGeneration;
constexpr size_t kGenerationBytes = kGenerationBits / 8;
constexpr size_t kShortSuffixBytes = 1 + kGenerationBytes + 3;  // of a chunk's key
constexpr size_t kLongSuffixBytes = kShortSuffixBytes + 1;
constexpr uint32_t kLongSuffixFrom = 1u << 24;
constexpr uint32_t kMaxMode = 07777;

static_assert(kTreeChunkBytes + TreeHeader::kBytes + kMaxKeyBytes + (16 << 10) < kMaxBlockBytes,
              "a chunk's record fits one block");

void put_big_endian(uint64_t number, size_t bytes, std::string* out) {
  for (size_t i = bytes; i-- > 0;) out->push_back(static_cast<char>(number >> (8 * i)));
}

uint64_t big_endian(std::string_view bytes) {
  uint64_t number = 0;
  for (const char byte : bytes) number = number << 8 | static_cast<uint8_t>(byte);
  return number;
}

bool is_file_kind(TreeKind kind) {
  return kind == TreeKind::kFile || kind == TreeKind::kChunk || kind == TreeKind::kGeneration;
}

absl::Status check_file(const TreeHeader& header, const TreeExtras& extras, uint64_t* expected) {
  const bool chunk = header.kind == TreeKind::kChunk;
  if (header.chunk_bytes == 0) return data_loss("a file's entry has chunks of 0 bytes");
  if (header.chunk >= header.chunks() || (!chunk && header.chunk != 0)) {
    return data_loss("chunk {} of a file of {} chunks", header.chunk, header.chunks());
  }
  if ((header.generation != 0) != (header.chunks() > 1) ||
      header.generation >> kGenerationBits != 0) {
    return data_loss("generation {} of a file of {} chunks", header.generation, header.chunks());
  }
  if (chunk && header.chunks() == 1) return data_loss("a chunk of a file that has none");
  if (header.sparse) {
    if (header.size > INT64_MAX) return data_loss("a sparse file of {} bytes", header.size);
    *expected = bytes_of(extras.extents);
    if (*expected > header.chunk_bytes) return data_loss("a chunk of {} data bytes", *expected);
    if (!extras.extents.empty() &&
        extras.extents.back().offset + extras.extents.back().length > header.size) {
      return data_loss("a file's data ends beyond the file");
    }
    return absl::OkStatus();
  }
  if (chunk) *expected = header.chunk_size(header.chunk);
  if (header.kind == TreeKind::kFile && header.chunks() == 1) *expected = header.size;
  return absl::OkStatus();
}

// `expected`: content bytes that the entry must have.
absl::Status check_entry(const TreeEntry& entry, uint64_t* expected) {
  const TreeHeader& header = entry.header;
  if (header.mode > kMaxMode || header.mtime_nanoseconds >= 1'000'000'000)
    return data_loss("a tree entry's mode or time is out of range");
  *expected = 0;
  switch (header.kind) {
    case TreeKind::kDirectory:
    case TreeKind::kPipe:
    case TreeKind::kCharacterDevice:
    case TreeKind::kBlockDevice:
      if (header.size != 0) return data_loss("the entry of a directory, pipe or device has a size");
      break;
    case TreeKind::kLink:
    case TreeKind::kHardLink:
      *expected = header.size;
      if (header.size == 0 || header.size > 4096)
        return data_loss("a link's target of {} bytes", header.size);
      break;
    case TreeKind::kFile:
    case TreeKind::kChunk:
    case TreeKind::kGeneration:
      SLUICE_RETURN_IF_ERROR(check_file(header, entry.extras, expected));
      break;
    default:
      return data_loss("a tree entry of kind {}", static_cast<int>(header.kind));
  }
  if (!is_file_kind(header.kind) &&
      (header.chunk != 0 || header.chunk_bytes != 0 || header.generation != 0)) {
    return data_loss("an entry that is not a file's has chunks");
  }
  return absl::OkStatus();
}

// The earliest that has what the entry needs.
uint8_t version_of(const TreeHeader& header, const TreeExtras& extras, bool any_extras) {
  if (extras.file_number != 0) return kVersion;
  return any_extras || header.kind > kLastEarlierKind ? kSecondVersion : kFirstVersion;
}

// `expected`: content bytes that belong to it.
absl::StatusOr<TreeEntry> parse(std::string_view value, uint64_t* expected) {
  ByteReader in(value);
  std::string_view magic;
  TreeEntry entry;
  if (!in.get_bytes(4, &magic) || magic != std::string_view(kMagic, 4) || !in.get(&entry.version)) {
    return not_found("not a tree entry");
  }
  if (entry.version < kFirstVersion || entry.version > kVersion) {
    return failed_precondition("a tree entry of layout version {}: this program knows {} to {}",
                               entry.version, kFirstVersion, kVersion);
  }
  TreeHeader& header = entry.header;
  uint8_t kind = 0;
  uint64_t seconds = 0;
  uint32_t extras_bytes = 0;
  if (!in.get(&kind) || !in.get(&header.mode) || !in.get(&seconds) ||
      !in.get(&header.mtime_nanoseconds) || !in.get(&header.chunk) || !in.get(&header.size) ||
      !in.get(&header.chunk_bytes) || !in.get(&header.uid) || !in.get(&header.gid) ||
      !in.get(&extras_bytes) || !in.get(&header.generation) || !in.get(&header.digest.low) ||
      !in.get(&header.digest.high)) {
    return data_loss("a tree entry of {} bytes: its header alone has {}", value.size(),
                     TreeHeader::kBytes);
  }
  header.kind = static_cast<TreeKind>(kind);
  header.mtime_seconds = static_cast<int64_t>(seconds);
  std::string_view extras;
  if (extras_bytes > kMaxTreeExtrasBytes || !in.get_bytes(extras_bytes, &extras))
    return data_loss("a tree entry of {} bytes with {} of extras", value.size(), extras_bytes);
  SLUICE_RETURN_IF_ERROR(decode_tree_extras(extras, &header, &entry.extras));
  if (entry.version != version_of(header, entry.extras, !extras.empty()))
    return data_loss("a tree entry of a layout version that it does not need");
  entry.content = value.substr(TreeHeader::kBytes + extras.size());
  SLUICE_RETURN_IF_ERROR(check_entry(entry, expected));
  return entry;
}

}  // namespace

uint64_t TreeHeader::chunk_size(uint64_t number) const {
  const uint64_t begin = number * chunk_bytes;
  return begin >= size ? 0 : std::min<uint64_t>(chunk_bytes, size - begin);
}

std::string encode_tree_entry(const TreeHeader& header, const TreeExtras& extras) {
  const std::string more = encode_tree_extras(header, extras);
  std::string bytes;
  bytes.reserve(TreeHeader::kBytes + more.size());
  ByteWriter out(&bytes);
  out.put_bytes({kMagic, 4});
  out.put(version_of(header, extras, !more.empty()));
  out.put(static_cast<uint8_t>(header.kind));
  out.put(header.mode);
  out.put(static_cast<uint64_t>(header.mtime_seconds));
  out.put(header.mtime_nanoseconds);
  out.put(header.chunk);
  out.put(header.size);
  out.put(header.chunk_bytes);
  out.put(header.uid);
  out.put(header.gid);
  out.put(static_cast<uint32_t>(more.size()));
  out.put(header.generation);
  out.put(header.digest.low);
  out.put(header.digest.high);
  out.put_bytes(more);
  return bytes;
}

absl::StatusOr<TreeEntry> parse_tree_entry(std::string_view value) {
  uint64_t expected = 0;
  SLUICE_ASSIGN_OR_RETURN(TreeEntry entry, parse(value, &expected));
  if (entry.content.size() != expected) {
    return data_loss("a tree entry holds {} content bytes where its header says {}",
                     entry.content.size(), expected);
  }
  return entry;
}

absl::StatusOr<TreeEntry> parse_tree_head(std::string_view head) {
  uint64_t expected = 0;
  SLUICE_ASSIGN_OR_RETURN(TreeEntry entry, parse(head, &expected));
  entry.content = {};
  return entry;
}

bool is_hard_link(std::string_view head) {
  return is_named_entry(head) && static_cast<TreeKind>(head[5]) == TreeKind::kHardLink;
}

bool is_named_entry(std::string_view head) {
  if (head.size() < kTreeHeadBytes || !head.starts_with(kMagic)) return false;
  const auto kind = static_cast<TreeKind>(head[5]);
  return kind != TreeKind::kChunk && kind != TreeKind::kGeneration;
}

TreeKind kind_of(FileType type) {
  switch (type) {
    case FileType::kDirectory:
      return TreeKind::kDirectory;
    case FileType::kLink:
      return TreeKind::kLink;
    case FileType::kPipe:
      return TreeKind::kPipe;
    case FileType::kCharacterDevice:
      return TreeKind::kCharacterDevice;
    case FileType::kBlockDevice:
      return TreeKind::kBlockDevice;
    case FileType::kFile:
    case FileType::kSocket:
      break;
  }
  return TreeKind::kFile;
}

FileType type_of(TreeKind kind) {
  switch (kind) {
    case TreeKind::kDirectory:
      return FileType::kDirectory;
    case TreeKind::kLink:
      return FileType::kLink;
    case TreeKind::kPipe:
      return FileType::kPipe;
    case TreeKind::kCharacterDevice:
      return FileType::kCharacterDevice;
    case TreeKind::kBlockDevice:
      return FileType::kBlockDevice;
    default:
      return FileType::kFile;
  }
}

void set_metadata(const FileMetadata& metadata, TreeHeader* header, TreeExtras* extras) {
  header->kind = kind_of(metadata.type);
  header->mode = metadata.mode;
  header->mtime_seconds = metadata.mtime_seconds;
  header->mtime_nanoseconds = metadata.mtime_nanoseconds;
  header->uid = metadata.uid;
  header->gid = metadata.gid;
  extras->user = metadata.user;
  extras->group = metadata.group;
  extras->device_major = metadata.device_major;
  extras->device_minor = metadata.device_minor;
  extras->attributes = metadata.attributes;
}

std::string encode_special(const FileMetadata& metadata, uint64_t file_number, Digest128* digest) {
  TreeHeader header;
  TreeExtras extras;
  set_metadata(metadata, &header, &extras);
  header.size = metadata.target.size();
  if (header.kind == TreeKind::kLink) header.digest = xxh3_128(metadata.target);
  extras.linked = file_number != 0;
  extras.file_number = file_number;
  if (digest != nullptr) *digest = header.digest;
  return encode_tree_entry(header, extras) + metadata.target;
}

std::string encode_hard_link(std::string_view path, std::string_view first, const Digest128& digest,
                             uint64_t file_number) {
  TreeHeader header;
  header.kind = TreeKind::kHardLink;
  header.size = first.size();
  header.digest = digest;
  TreeExtras extras;
  extras.own_path_bytes = static_cast<uint32_t>(path.size());
  extras.file_number = file_number;
  return encode_tree_entry(header, extras).append(first);
}

FileMetadata metadata_of(const TreeEntry& entry) {
  FileMetadata metadata;
  const TreeHeader& header = entry.header;
  metadata.type = type_of(header.kind);
  metadata.mode = header.mode;
  metadata.mtime_seconds = header.mtime_seconds;
  metadata.mtime_nanoseconds = header.mtime_nanoseconds;
  metadata.uid = header.uid;
  metadata.gid = header.gid;
  metadata.user = entry.extras.user;
  metadata.group = entry.extras.group;
  metadata.size = header.kind == TreeKind::kFile ? header.size : 0;
  metadata.device_major = entry.extras.device_major;
  metadata.device_minor = entry.extras.device_minor;
  metadata.attributes = entry.extras.attributes;
  if (header.kind == TreeKind::kLink) metadata.target = entry.content;
  return metadata;
}

Digest128 digest_of_chunks(const std::vector<Digest128>& chunks) {
  StreamingXxh3 digest;
  for (const Digest128& chunk : chunks) {
    uint8_t bytes[16];
    store_le(bytes, chunk.low);
    store_le(bytes + 8, chunk.high);
    digest.update(bytes, sizeof bytes);
  }
  return digest.digest128();
}

bool is_chunk_of(const TreeHeader& chunk, const TreeHeader& file, uint32_t number) {
  return chunk.kind == TreeKind::kChunk && chunk.chunk == number &&
         chunk.generation == file.generation && chunk.size == file.size &&
         chunk.chunk_bytes == file.chunk_bytes && chunk.chunks() == file.chunks();
}

std::vector<Extent> extents_of(const TreeEntry& entry) {
  if (entry.header.sparse) return entry.extras.extents;
  return {{uint64_t{entry.header.chunk} * entry.header.chunk_bytes, entry.content.size()}};
}

std::string tree_chunk_key(std::string_view file_key, uint64_t generation, uint32_t chunk) {
  std::string key(file_key);
  key.push_back('\0');
  put_big_endian(generation, kGenerationBytes, &key);
  put_big_endian(chunk, chunk < kLongSuffixFrom ? 3 : 4, &key);
  return key;
}

std::string own_record_key(std::string_view path) {
  return std::string(path).append(1, '\0').append(kGenerationBytes, '\xff');
}

std::string_view entry_key(std::string_view key) {
  constexpr size_t kSuffix = 1 + kGenerationBytes;
  if (key.size() <= kSuffix || key.find('\0') != key.size() - kSuffix) return key;
  const std::string_view suffix = key.substr(key.size() - kGenerationBytes);
  return suffix.find_first_not_of('\xff') == std::string_view::npos
             ? key.substr(0, key.size() - kSuffix)
             : key;
}

// The suffix may hold NULs of its own; what stands before it holds none.
bool split_chunk_key(std::string_view key, std::string_view* file_key, uint64_t* generation,
                     uint32_t* chunk) {
  const size_t nul = key.find('\0');
  if (nul == std::string_view::npos) return false;
  const std::string_view suffix = key.substr(nul);
  if (suffix.size() != kShortSuffixBytes && suffix.size() != kLongSuffixBytes) return false;
  *file_key = key.substr(0, nul);
  *generation = big_endian(suffix.substr(1, kGenerationBytes));
  *chunk = static_cast<uint32_t>(big_endian(suffix.substr(1 + kGenerationBytes)));
  return (*chunk >= kLongSuffixFrom) == (suffix.size() == kLongSuffixBytes);
}

std::string generation_prefix(std::string_view prefix) {
  std::string key(prefix);
  key.push_back('\0');
  return key;
}

std::string generation_key(std::string_view prefix, std::string_view path, uint64_t generation) {
  std::string key = generation_prefix(prefix);
  key += path;
  key.push_back('\0');
  put_big_endian(generation, kGenerationBytes, &key);
  return key;
}

bool split_generation_key(std::string_view rest, std::string_view* path, uint64_t* generation) {
  const size_t nul = rest.find('\0');
  if (nul == 0 || nul == std::string_view::npos || rest.size() != nul + 1 + kGenerationBytes)
    return false;
  *path = rest.substr(0, nul);
  *generation = big_endian(rest.substr(nul + 1));
  return true;
}

absl::StatusOr<HardLinkTarget> target_of(std::string_view key, std::string_view path,
                                         const TreeEntry& link) {
  const size_t own = link.extras.own_path_bytes;
  if (own > key.size()) return data_loss("a hard link whose path is longer than its key");
  SLUICE_RETURN_IF_ERROR(check_tree_path(link.content));
  HardLinkTarget target;
  target.key = std::string(key.substr(0, key.size() - own)).append(link.content);
  if (own <= path.size())
    target.path = std::string(path.substr(0, path.size() - own)).append(link.content);
  return target;
}

absl::Status check_tree_path(std::string_view path) {
  if (path.empty()) return invalid_argument("an empty path");
  if (path.front() == '/') return invalid_argument("an absolute path");
  if (path.find('\0') != std::string_view::npos) return invalid_argument("a path with a NUL byte");
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view name = path.substr(0, slash);
    if (name.empty()) return invalid_argument("a path with an empty name");
    if (name == "." || name == "..") return invalid_argument("a path through '{}'", name);
    if (name.size() > 255) return invalid_argument("a name of {} bytes: at most 255", name.size());
    if (slash == std::string_view::npos) return absl::OkStatus();
    path.remove_prefix(slash + 1);
  }
}

}  // namespace sluice
