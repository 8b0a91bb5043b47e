#include "tree/tree_entry.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr char kMagic[] = "SLTE";
constexpr uint8_t kVersion = 2;
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

absl::Status check_header(const TreeHeader& header, uint32_t reserved, size_t content_bytes) {
  if (header.mode > kMaxMode || header.mtime_nanoseconds >= 1'000'000'000 || reserved != 0) {
    return data_loss("a tree entry's mode, time or reserved field is out of range");
  }
  const bool chunk = header.kind == TreeKind::kChunk;
  uint64_t expected = 0;
  switch (header.kind) {
    case TreeKind::kFolder:
      if (header.size != 0) return data_loss("a directory's entry has a size");
      break;
    case TreeKind::kLink:
      expected = header.size;
      if (header.size == 0 || header.size > 4096)
        return data_loss("a link's target of {} bytes", header.size);
      break;
    case TreeKind::kFile:
    case TreeKind::kChunk:
    case TreeKind::kGeneration:
      if (header.chunk_bytes == 0) return data_loss("a file's entry has chunks of 0 bytes");
      if (header.chunk >= header.chunks() || (!chunk && header.chunk != 0)) {
        return data_loss("chunk {} of a file of {} chunks", header.chunk, header.chunks());
      }
      if ((header.generation != 0) != (header.chunks() > 1) ||
          header.generation >> kGenerationBits != 0) {
        return data_loss("generation {} of a file of {} chunks", header.generation,
                         header.chunks());
      }
      if (chunk && header.chunks() == 1) return data_loss("a chunk of a file that has none");
      if (chunk) expected = header.chunk_size(header.chunk);
      if (header.kind == TreeKind::kFile && header.chunks() == 1) expected = header.size;
      break;
    default:
      return data_loss("a tree entry of kind {}", static_cast<int>(header.kind));
  }
  const bool file = header.kind == TreeKind::kFile || chunk || header.kind == TreeKind::kGeneration;
  if (!file && (header.chunk != 0 || header.chunk_bytes != 0 || header.generation != 0)) {
    return data_loss("an entry that is no file's has chunks");
  }
  if (content_bytes != expected) {
    return data_loss("a tree entry holds {} content bytes where its header says {}", content_bytes,
                     expected);
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t TreeHeader::chunk_size(uint64_t number) const {
  const uint64_t begin = number * chunk_bytes;
  return begin >= size ? 0 : std::min<uint64_t>(chunk_bytes, size - begin);
}

std::string TreeHeader::encode() const {
  std::string bytes;
  bytes.reserve(kBytes);
  ByteWriter out(&bytes);
  out.put_bytes({kMagic, 4});
  out.put(kVersion);
  out.put(static_cast<uint8_t>(kind));
  out.put(mode);
  out.put(static_cast<uint64_t>(mtime_seconds));
  out.put(mtime_nanoseconds);
  out.put(chunk);
  out.put(size);
  out.put(chunk_bytes);
  out.put(uid);
  out.put(gid);
  out.put(uint32_t{0});
  out.put(generation);
  out.put(digest.low);
  out.put(digest.high);
  return bytes;
}

absl::StatusOr<TreeEntry> parse_tree_entry(std::string_view value) {
  ByteReader in(value);
  std::string_view magic;
  uint8_t version = 0;
  if (!in.get_bytes(4, &magic) || magic != std::string_view(kMagic, 4) || !in.get(&version)) {
    return not_found("no tree entry");
  }
  if (version != kVersion) {
    return failed_precondition("a tree entry of layout version {}: this program knows version {}",
                               version, kVersion);
  }
  TreeEntry entry;
  TreeHeader& header = entry.header;
  uint8_t kind = 0;
  uint64_t seconds = 0;
  uint32_t reserved = 0;
  if (!in.get(&kind) || !in.get(&header.mode) || !in.get(&seconds) ||
      !in.get(&header.mtime_nanoseconds) || !in.get(&header.chunk) || !in.get(&header.size) ||
      !in.get(&header.chunk_bytes) || !in.get(&header.uid) || !in.get(&header.gid) ||
      !in.get(&reserved) || !in.get(&header.generation) || !in.get(&header.digest.low) ||
      !in.get(&header.digest.high)) {
    return data_loss("a tree entry of {} bytes: its header alone has {}", value.size(),
                     TreeHeader::kBytes);
  }
  header.kind = static_cast<TreeKind>(kind);
  header.mtime_seconds = static_cast<int64_t>(seconds);
  entry.content = value.substr(TreeHeader::kBytes);
  SLUICE_RETURN_IF_ERROR(check_header(header, reserved, entry.content.size()));
  return entry;
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

std::string tree_chunk_key(std::string_view file_key, uint64_t generation, uint32_t chunk) {
  std::string key(file_key);
  key.push_back('\0');
  put_big_endian(generation, kGenerationBytes, &key);
  put_big_endian(chunk, chunk < kLongSuffixFrom ? 3 : 4, &key);
  return key;
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
