#include "control/cli/tree_entry.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr char kMagic[] = "SLTE";
constexpr uint8_t kVersion = 1;
constexpr size_t kChunkSuffixBytes = 9;  // NUL and 8 hex digits
constexpr uint32_t kMaxMode = 07777;

static_assert(kTreeChunkBytes + TreeHeader::kBytes + kMaxKeyBytes + (16 << 10) < kMaxBlockBytes,
              "a chunk's record fits one block");

absl::Status check_header(const TreeHeader& header, uint32_t reserved, size_t content_bytes) {
  if (header.mode > kMaxMode || header.mtime_nanoseconds >= 1'000'000'000 || reserved != 0) {
    return data_loss("a tree entry's mode, time or reserved field is out of range");
  }
  uint64_t expected = 0;
  switch (header.kind) {
    case TreeKind::kFolder:
      if (header.size != 0) return data_loss("a folder's entry has a size");
      break;
    case TreeKind::kLink:
      expected = header.size;
      if (header.size == 0 || header.size > 4096)
        return data_loss("a link's target of {} bytes", header.size);
      break;
    case TreeKind::kFile:
    case TreeKind::kChunk:
      if (header.chunk_bytes == 0) return data_loss("a file's entry has chunks of 0 bytes");
      if ((header.kind == TreeKind::kChunk) != (header.chunk != 0) ||
          header.chunk >= header.chunks()) {
        return data_loss("chunk {} of a file of {} chunks", header.chunk, header.chunks());
      }
      expected = header.chunk_size(header.chunk);
      break;
    default:
      return data_loss("a tree entry of kind {}", static_cast<int>(header.kind));
  }
  const bool file = header.kind == TreeKind::kFile || header.kind == TreeKind::kChunk;
  if (!file && (header.chunk != 0 || header.chunk_bytes != 0)) {
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
  out.put(uint32_t{0});
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
      !in.get(&header.chunk_bytes) || !in.get(&reserved) || !in.get(&header.digest.low) ||
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

std::string tree_chunk_key(std::string_view file_key, uint32_t chunk) {
  std::string key(file_key);
  key.push_back('\0');
  key += fmt::format("{:08x}", chunk);
  return key;
}

bool split_tree_key(std::string_view key, std::string_view* path, uint32_t* chunk) {
  *chunk = 0;
  const size_t nul = key.find('\0');
  *path = key.substr(0, nul);
  if (nul == std::string_view::npos) return true;
  const std::string_view suffix = key.substr(nul);
  if (suffix.size() != kChunkSuffixBytes) return false;
  for (const char digit : suffix.substr(1)) {
    const bool decimal = digit >= '0' && digit <= '9';
    if (!decimal && (digit < 'a' || digit > 'f')) return false;
    *chunk = *chunk << 4 | static_cast<uint32_t>(decimal ? digit - '0' : digit - 'a' + 10);
  }
  return *chunk != 0;
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
