#include "control/contents/entry.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

constexpr std::string_view kTypeNames[] = {"prefix",   "record", "directory", "file",    "symlink",
                                           "hardlink", "pipe",   "chardev",   "blockdev"};
static_assert(std::size(kTypeNames) == kEntryTypes);
constexpr int64_t kNanoseconds = 1'000'000'000;

EntryType entry_type_of(TreeKind kind) {
  switch (kind) {
    case TreeKind::kDirectory:
      return EntryType::kDirectory;
    case TreeKind::kFile:
      return EntryType::kFile;
    case TreeKind::kLink:
      return EntryType::kSymlink;
    case TreeKind::kHardLink:
      return EntryType::kHardLink;
    case TreeKind::kPipe:
      return EntryType::kPipe;
    case TreeKind::kCharacterDevice:
      return EntryType::kCharacterDevice;
    case TreeKind::kBlockDevice:
      return EntryType::kBlockDevice;
    case TreeKind::kChunk:
    case TreeKind::kGeneration:
      break;
  }
  return EntryType::kRecord;
}

// The nearest that there is a number for.
int64_t nanoseconds_of(const TreeHeader& header) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / kNanoseconds - 1;
  const int64_t seconds = std::clamp(header.mtime_seconds, -kMost, kMost);
  return seconds * kNanoseconds + header.mtime_nanoseconds;
}

// The path of a directory whose key is that of a tree's root.
std::string_view without_root_name(std::string_view key) {
  return key.ends_with("/.") ? key.substr(0, key.size() - 2) : key;
}

Digest128 digest_of(const TreeEntry& entry, const RecordSummary& record) {
  if (entry.header.generation == 0) return record.value_digest;
  TreeHeader header = entry.header;
  header.generation = 0;
  return xxh3_128(encode_tree_entry(header, entry.extras));
}

}  // namespace

std::string_view name_of(EntryType type) { return kTypeNames[static_cast<size_t>(type)]; }

std::optional<EntryType> entry_type_named(std::string_view name) {
  const auto found = std::find(std::begin(kTypeNames), std::end(kTypeNames), name);
  if (found == std::end(kTypeNames)) return std::nullopt;
  return static_cast<EntryType>(found - std::begin(kTypeNames));
}

std::optional<BackupEntry> entry_of(const ArchivedRecord& record, const EntryParts& parts) {
  if (record.summary.tombstone) return std::nullopt;
  BackupEntry entry;
  entry.path = record.key;
  entry.size = record.summary.value_bytes;
  entry.digest = record.summary.value_digest;
  // Anybody may put a record that begins like a tree entry: what is not whole is a record.
  const auto parsed = parse_tree_entry(record.value);
  if (!parsed.ok()) return entry;
  const TreeHeader& header = parsed->header;
  if (header.kind == TreeKind::kChunk || header.kind == TreeKind::kGeneration) return std::nullopt;
  entry.type = entry_type_of(header.kind);
  if (entry.type == EntryType::kDirectory) entry.path = without_root_name(record.key);
  entry.size = header.size;
  entry.mode = header.mode;
  entry.mtime_ns = nanoseconds_of(header);
  entry.linked = parsed->extras.linked;
  if (entry.type == EntryType::kSymlink) entry.target = parsed->content;
  if (entry.type == EntryType::kHardLink) {
    entry.size = 0;
    entry.unresolved = true;
    // One that breaks the rules names nothing.
    if (auto target = target_of(record.key, record.key, *parsed); target.ok()) {
      entry.target = std::move(target->key);
    }
  }
  if (parts.digests) entry.digest = digest_of(*parsed, record.summary);
  if (parts.heads) {
    entry.whole = header.kind != TreeKind::kFile || parsed->content.size() <= parts.content_bytes;
    entry.value = record.value;
    if (!entry.whole) entry.value.resize(record.value.size() - parsed->content.size());
  }
  return entry;
}

std::string walk_key(std::string_view path) {
  if (path == ".") return {};
  std::string key(path);
  std::replace(key.begin(), key.end(), '/', '\0');
  return key;
}

bool is_file_path(const BackupEntry& entry) {
  std::string_view path = entry.path;
  if (path == ".") return entry.type == EntryType::kDirectory;
  if (path.starts_with('/')) path.remove_prefix(1);
  return check_tree_path(path).ok();
}

void put(const BackupEntry& entry, v1::ContentsEntry* out) {
  out->set_path(entry.path);
  out->set_type(static_cast<uint32_t>(entry.type));
  out->set_size(entry.size);
  out->set_mode(entry.mode);
  out->set_mtime_ns(entry.mtime_ns);
  out->set_target(entry.target);
  if (entry.digest != Digest128()) put(entry.digest, out->mutable_digest());
  out->set_itself(entry.itself);
  out->set_unresolved(entry.unresolved);
  if (!entry.value.empty()) out->set_value(entry.value);
  out->set_whole(entry.whole);
}

absl::StatusOr<BackupEntry> decode_entry(v1::ContentsEntry& in) {
  BackupEntry entry;
  if (in.type() >= kEntryTypes) return data_loss("an entry of type {}", in.type());
  if (in.path().size() > kMaxKeyBytes || in.target().size() > kMaxKeyBytes) {
    return data_loss("an entry whose path has {} bytes", in.path().size());
  }
  if (in.value().size() > kMaxTreeEntryBytes) {
    return data_loss("an entry of {} bytes", in.value().size());
  }
  if (!in.digest().empty() && !get(in.digest(), &entry.digest)) {
    return data_loss("a digest of {} bytes", in.digest().size());
  }
  entry.path = std::move(*in.mutable_path());
  entry.type = static_cast<EntryType>(in.type());
  entry.size = in.size();
  entry.mode = in.mode();
  entry.mtime_ns = in.mtime_ns();
  entry.target = std::move(*in.mutable_target());
  entry.itself = in.itself();
  entry.unresolved = in.unresolved();
  entry.value = std::move(*in.mutable_value());
  entry.whole = in.whole();
  return entry;
}

void put(const Digest128& digest, std::string* out) {
  ByteWriter writer(out);
  writer.put(digest.low);
  writer.put(digest.high);
}

bool get(std::string_view bytes, Digest128* digest) {
  ByteReader in(bytes);
  return bytes.size() == 16 && in.get(&digest->low) && in.get(&digest->high);
}

}  // namespace sluice
