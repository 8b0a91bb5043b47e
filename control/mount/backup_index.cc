#include "control/mount/backup_index.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "base/text.h"
#include "control/contents/entry_spill.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

constexpr uint64_t kLeastRoom = uint64_t{1} << 20;
constexpr uint64_t kMostGrowth = uint64_t{64} << 20;

// Of the entries of one path, which stays.
int rank_of(EntryType type) {
  switch (type) {
    case EntryType::kDirectory:
      return 3;
    case EntryType::kPrefix:
      return 1;
    case EntryType::kRecord:
      return 0;
    default:
      return 2;
  }
}

std::string_view parent_of(std::string_view path) {
  const size_t slash = path.find_last_of('/');
  return path.substr(0, slash == std::string_view::npos ? 0 : slash);
}

// Sorts by depth, then as a walk would: the children of a directory are together, and directories
// come in the order that their children come in.
std::string level_key(std::string_view path) {
  const auto depth = static_cast<size_t>(std::count(path.begin(), path.end(), '/') + 1);
  std::string key = {static_cast<char>(depth >> 8), static_cast<char>(depth)};
  return key + walk_key(path);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::create() {
  const char* named = std::getenv("TMPDIR");
  const std::string directory = named != nullptr && *named != '\0' ? named : "/tmp";
  std::string path = directory + "/.sluice-index-XXXXXX";
  UniqueFd fd(mkostemp(path.data(), O_CLOEXEC));
  if (!fd) {
    return errno_status(errno, fmt::format("make a temporary file in {} (TMPDIR names another "
                                           "directory)",
                                           directory));
  }
  unlink(path.c_str());  // it goes with the process, however that ends
  return std::unique_ptr<MappedFile>(new MappedFile(std::move(fd)));
}

MappedFile::~MappedFile() {
  if (base_ != nullptr) munmap(base_, room_);
}

absl::Status MappedFile::append(std::string_view bytes) {
  if (size_ + bytes.size() > room_) {
    const uint64_t growth = std::clamp(room_, kLeastRoom, kMostGrowth);
    const uint64_t room = room_ + std::max<uint64_t>(growth, bytes.size());
    // Blocks are allocated before they are written: a full disk is an error here, and no signal
    // there.
    const int error =
        posix_fallocate(fd_.get(), static_cast<off_t>(room_), static_cast<off_t>(room - room_));
    if (error != 0) {
      return errno_status(error, "enlarge a temporary file (TMPDIR names another directory)");
    }
    void* mapped = base_ == nullptr
                       ? mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0)
                       : mremap(base_, room_, room, MREMAP_MAYMOVE);
    if (mapped == MAP_FAILED) return errno_status(errno, "map a temporary file");
    base_ = static_cast<char*>(mapped);
    room_ = room;
  }
  if (!bytes.empty()) std::memcpy(base_ + size_, bytes.data(), bytes.size());
  size_ += bytes.size();
  return absl::OkStatus();
}

class BackupIndex::Builder {
 public:
  Builder(BackupContents& contents, const Damaged& damaged)
      : contents_(contents), damaged_(damaged), index_(new BackupIndex()) {}

  absl::StatusOr<std::unique_ptr<BackupIndex>> build() {
    SLUICE_ASSIGN_OR_RETURN(index_->nodes_, MappedFile::create());
    SLUICE_ASSIGN_OR_RETURN(index_->strings_, MappedFile::create());
    SLUICE_RETURN_IF_ERROR(list());
    BackupEntry root = root_.value_or(BackupEntry());
    if (!root_.has_value()) root.type = EntryType::kPrefix;
    root.path.clear();
    SLUICE_RETURN_IF_ERROR(append(root, BackupIndex::kRoot));
    index_->mutable_node(kRoot).links = 2;
    SLUICE_RETURN_IF_ERROR(make_nodes());
    resolve_links();
    return std::move(index_);
  }

 private:
  absl::Status list();
  absl::Status take(BackupEntry entry);
  absl::Status make_nodes();
  absl::Status place(const BackupEntry& entry);
  bool find_parent(std::string_view path);
  absl::Status append(const BackupEntry& entry, uint64_t parent);
  void resolve_links();

  BackupContents& contents_;
  const Damaged& damaged_;
  std::unique_ptr<BackupIndex> index_;
  EntrySpill entries_;
  PrefixMemory prefixes_;
  std::optional<BackupEntry> root_;
  // While nodes are made: the depth that they have, and a node one level above, which never goes
  // back.
  size_t depth_ = 1;
  uint64_t level_ = 0;  // where this depth begins
  uint64_t above_ = 0;
  std::string above_key_;
};

absl::Status BackupIndex::Builder::list() {
  ContentsListing listing;
  listing.heads = true;
  listing.skip_damage = [this](const absl::Status& damage) {
    index_->damaged_ = true;
    damaged_(damage);
  };
  return contents_.list(listing, [this](BackupEntry entry) { return take(std::move(entry)); });
}

absl::Status BackupIndex::Builder::take(BackupEntry entry) {
  if (!is_file_path(entry)) {
    ++index_->left_out_;
    return absl::OkStatus();
  }
  if (entry.path == ".") {
    if (!root_.has_value()) root_ = std::move(entry);
    return absl::OkStatus();
  }
  // No entry of a listing of all is the one that was asked for: the flag says that its key begins
  // with a '/'.
  entry.itself = entry.path.starts_with('/');
  if (entry.itself) entry.path.erase(0, 1);
  for (std::string_view above = parent_of(entry.path); !above.empty() && prefixes_.is_new(above);
       above = parent_of(above)) {
    BackupEntry prefix;
    prefix.path = above;
    prefix.type = EntryType::kPrefix;
    SLUICE_RETURN_IF_ERROR(entries_.add(0, prefix, level_key(above)));
  }
  return entries_.add(0, entry, level_key(entry.path));
}

absl::Status BackupIndex::Builder::make_nodes() {
  std::optional<BackupEntry> best;
  const absl::Status drained = entries_.drain([&](uint8_t, BackupEntry entry) -> absl::Status {
    if (best.has_value() && best->path != entry.path) {
      SLUICE_RETURN_IF_ERROR(place(*best));
      best.reset();
    }
    if (!best.has_value()) {
      best = std::move(entry);
      return absl::OkStatus();
    }
    const int order = rank_of(entry.type) - rank_of(best->type);
    const bool better = order != 0 ? order > 0 : entry.mtime_ns > best->mtime_ns;
    const EntryType loser = better ? best->type : entry.type;
    if (loser != EntryType::kPrefix) ++index_->left_out_;
    if (better) best = std::move(entry);
    return absl::OkStatus();
  });
  SLUICE_RETURN_IF_ERROR(drained);
  return best.has_value() ? place(*best) : absl::OkStatus();
}

// Moves `above_` to the directory of this path. False where it is not there, or not a directory.
bool BackupIndex::Builder::find_parent(std::string_view path) {
  const std::string_view directory = parent_of(path);
  if (directory.empty()) {
    above_ = kRoot;
    return true;
  }
  const auto depth = static_cast<size_t>(std::count(path.begin(), path.end(), '/') + 1);
  const auto key_of_above = [&] {
    const std::string key = index_->key(above_);
    return walk_key(std::string_view(key).substr(index_->node(above_).absolute ? 1 : 0));
  };
  if (depth != depth_) {
    // What was made last is the level above.
    above_ = level_;
    level_ = index_->nodes();
    // Where a level has no nodes, nothing is below it.
    depth_ = depth;
    if (above_ == level_) return false;
    above_key_ = key_of_above();
  }
  const std::string wanted = walk_key(directory);
  while (above_key_ < wanted && above_ + 1 < level_) {
    ++above_;
    above_key_ = key_of_above();
  }
  return above_ < level_ && above_key_ == wanted && index_->node(above_).directory();
}

absl::Status BackupIndex::Builder::place(const BackupEntry& entry) {
  if (!find_parent(entry.path)) {
    if (entry.type != EntryType::kPrefix) ++index_->left_out_;
    return absl::OkStatus();
  }
  if (depth_ == 1 && level_ == 0) level_ = 1;  // behind the root
  const uint64_t number = index_->nodes();
  SLUICE_RETURN_IF_ERROR(append(entry, above_));
  IndexNode& parent = index_->mutable_node(above_);
  if (parent.children == 0) parent.first_child = number;
  ++parent.children;
  if (index_->node(number).directory()) ++parent.links;
  return absl::OkStatus();
}

absl::Status BackupIndex::Builder::append(const BackupEntry& entry, uint64_t parent) {
  MappedFile& strings = *index_->strings_;
  IndexNode node;
  node.parent = parent;
  node.type = entry.type;
  node.absolute = entry.itself;
  node.size = entry.size;
  node.data_bytes = entry.size;
  const std::string_view name =
      std::string_view(entry.path).substr(entry.path.find_last_of('/') + 1);
  node.name = strings.size();
  node.name_bytes = static_cast<uint16_t>(name.size());
  SLUICE_RETURN_IF_ERROR(strings.append(name));
  node.mode = node.directory() ? 0755 : 0644;
  if (node.directory()) node.links = 2;
  if (!entry.value.empty()) {
    const auto head = parse_tree_head(entry.value);
    if (!head.ok()) return with_context(head.status(), printable(entry.path, kMaxKeyBytes));
    const TreeHeader& header = head->header;
    node.mode = header.mode;
    node.uid = header.uid;
    node.gid = header.gid;
    node.mtime_seconds = header.mtime_seconds;
    node.mtime_nanoseconds = header.mtime_nanoseconds;
    node.device_major = head->extras.device_major;
    node.device_minor = head->extras.device_minor;
    node.digest = header.digest;
    node.has_links = head->extras.linked;
    if (header.sparse) {
      node.data_bytes = header.chunks() == 1
                            ? bytes_of(head->extras.extents)
                            : std::min(header.size, header.chunks() * header.chunk_bytes);
    }
    node.attributes = !head->extras.attributes.empty();
  } else if (entry.type != EntryType::kRecord && entry.type != EntryType::kPrefix) {
    return failed_precondition("node {}: it runs an earlier version of sluice; use --archive",
                               entry.node);
  }
  const bool link = entry.type == EntryType::kSymlink || entry.type == EntryType::kHardLink;
  std::string text = link ? entry.target : std::string();
  if (node.attributes) text.append(entry.value);
  if (entry.type == EntryType::kSymlink) node.size = entry.target.size();
  node.text = strings.size();
  node.text_bytes = static_cast<uint32_t>(text.size());
  SLUICE_RETURN_IF_ERROR(strings.append(text));
  return index_->nodes_->append({reinterpret_cast<const char*>(&node), sizeof node});
}

// As the content reader does it: the file is what the link saw, or says that it has links.
void BackupIndex::Builder::resolve_links() {
  for (uint64_t number = 0; number < index_->nodes(); ++number) {
    IndexNode& link = index_->mutable_node(number);
    if (link.type != EntryType::kHardLink) continue;
    const std::string target(index_->target(link));
    const auto found = index_->find_path(target.starts_with('/') ? target.substr(1) : target);
    if (!found.has_value()) continue;
    IndexNode& file = index_->mutable_node(*found);
    if (file.directory() || file.type == EntryType::kHardLink || file.type == EntryType::kRecord ||
        file.absolute != target.starts_with('/') ||
        (file.digest != link.digest && !file.has_links)) {
      continue;
    }
    link.linked = *found;
    ++file.links;
  }
}

absl::StatusOr<std::unique_ptr<BackupIndex>> BackupIndex::build(BackupContents& contents,
                                                                const Damaged& damaged) {
  return Builder(contents, damaged).build();
}

std::optional<uint64_t> BackupIndex::find(uint64_t directory, std::string_view wanted) const {
  const IndexNode& above = node(directory);
  uint64_t first = above.first_child;
  uint64_t end = first + above.children;
  while (first < end) {
    const uint64_t middle = first + (end - first) / 2;
    const int order = name(node(middle)).compare(wanted);
    if (order == 0) return middle;
    if (order < 0) {
      first = middle + 1;
    } else {
      end = middle;
    }
  }
  return std::nullopt;
}

std::optional<uint64_t> BackupIndex::find_path(std::string_view path) const {
  std::optional<uint64_t> at = kRoot;
  while (at.has_value() && !path.empty()) {
    const size_t slash = path.find('/');
    at = find(*at, path.substr(0, slash));
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  }
  return at;
}

std::string BackupIndex::key(uint64_t number) const {
  std::vector<std::string_view> names;
  const bool absolute = node(number).absolute;
  for (; number != kRoot; number = node(number).parent) names.push_back(name(node(number)));
  std::string key = absolute ? "/" : "";
  for (auto each = names.rbegin(); each != names.rend(); ++each) {
    if (each != names.rbegin()) key += '/';
    key += *each;
  }
  return key;
}

std::vector<ExtendedAttribute> BackupIndex::attributes(const IndexNode& node) const {
  if (!node.attributes) return {};
  std::string_view head = text(node);
  if (node.type == EntryType::kSymlink) head.remove_prefix(node.size);
  // A symbolic link's value has its target behind the head; the index keeps the whole of it.
  auto entry = parse_tree_head(head);
  if (!entry.ok()) return {};
  return std::move(entry->extras.attributes);
}

}  // namespace sluice
