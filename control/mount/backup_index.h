// The entries of one backup as the tree of a file system: directories with children that have
// names, each entry with what stat() says of it.
//
// Built from one listing of the backup. What stands in two files without a name in $TMPDIR (or
// /tmp), mapped into memory, which the kernel drops and reads again as it needs: 128 bytes for each
// entry, its name, and its target or attributes where it has any. Memory of its own: what an
// EntrySpill takes while it is built, and nothing that grows with the backup afterwards.
//
// Thread-safe once built.
#ifndef SLUICE_CONTROL_MOUNT_BACKUP_INDEX_H_
#define SLUICE_CONTROL_MOUNT_BACKUP_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checksum.h"
#include "base/file.h"
#include "control/contents/backup_contents.h"

namespace sluice {

// Bytes in a file that has no name, mapped as a whole. Grows at its end; what was handed out by
// at() is good until it does. RESOURCE_EXHAUSTED where its file system is full.
class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> create();
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Status append(std::string_view bytes);
  uint64_t size() const { return size_; }
  char* at(uint64_t offset) { return base_ + offset; }
  const char* at(uint64_t offset) const { return base_ + offset; }

 private:
  explicit MappedFile(UniqueFd fd) : fd_(std::move(fd)) {}

  const UniqueFd fd_;
  char* base_ = nullptr;
  uint64_t size_ = 0;
  uint64_t room_ = 0;
};

// An entry. Numbers are those of nodes.
struct IndexNode {
  static constexpr uint64_t kNone = ~uint64_t{0};

  uint64_t parent = 0;  // the root is its own
  uint64_t first_child = 0;
  uint64_t children = 0;
  uint64_t linked = kNone;  // of a hard link: the file that it names
  uint64_t size = 0;
  uint64_t data_bytes = 0;  // holes left out, as far as the entry says
  uint64_t name = 0;        // where strings begin
  uint64_t text = 0;        // a link's target, then its entry where it has attributes
  int64_t mtime_seconds = 0;
  uint32_t mtime_nanoseconds = 0;
  uint32_t text_bytes = 0;
  uint32_t links = 1;  // names; of a directory two and those of directories in it
  uint32_t mode = 0;   // permissions
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  Digest128 digest;  // of its header
  uint16_t name_bytes = 0;
  EntryType type = EntryType::kPrefix;
  bool attributes = false;
  bool absolute = false;   // its key begins with a '/'
  bool has_links = false;  // its entry says that hard links name it

  bool directory() const { return type == EntryType::kDirectory || type == EntryType::kPrefix; }
};
static_assert(sizeof(IndexNode) == 128);

class BackupIndex {
 public:
  static constexpr uint64_t kRoot = 0;

  // Damage is skipped, and `damaged` is called with it: entries may be missing then. Other errors
  // of the listing end it, as does a full $TMPDIR.
  //
  // Which entry has a place that several could have: a directory (of two, from trees that were
  // imported there separately, the one that was changed last); else another tree entry, and
  // whatever is below it is left out; else what is below it; else a record. Keys that no file can
  // have are left out too; a '/' that begins a key is passed over.
  using Damaged = std::function<void(const absl::Status& damage)>;
  static absl::StatusOr<std::unique_ptr<BackupIndex>> build(BackupContents& contents,
                                                            const Damaged& damaged);

  uint64_t nodes() const { return nodes_->size() / sizeof(IndexNode); }
  const IndexNode& node(uint64_t number) const {
    return *reinterpret_cast<const IndexNode*>(nodes_->at(number * sizeof(IndexNode)));
  }
  std::string_view name(const IndexNode& node) const {
    return {strings_->at(node.name), node.name_bytes};
  }
  // What a symbolic link says; of a hard link the key of the file that it names.
  std::string_view target(const IndexNode& node) const {
    const std::string_view all = text(node);
    return node.type == EntryType::kSymlink ? all.substr(0, node.size) : all;
  }
  // The child of a directory.
  std::optional<uint64_t> find(uint64_t directory, std::string_view name) const;
  // The node at a path, names separated by '/'.
  std::optional<uint64_t> find_path(std::string_view path) const;
  // Where its record is; of a directory, its path.
  std::string key(uint64_t number) const;
  std::vector<ExtendedAttribute> attributes(const IndexNode& node) const;

  uint64_t left_out() const { return left_out_; }  // entries and records
  bool damaged() const { return damaged_; }        // entries may be missing

 private:
  class Builder;
  BackupIndex() = default;
  std::string_view text(const IndexNode& node) const {
    return {strings_->at(node.text), node.text_bytes};
  }
  IndexNode& mutable_node(uint64_t number) {
    return *reinterpret_cast<IndexNode*>(nodes_->at(number * sizeof(IndexNode)));
  }

  std::unique_ptr<MappedFile> nodes_;
  std::unique_ptr<MappedFile> strings_;
  uint64_t left_out_ = 0;
  bool damaged_ = false;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_MOUNT_BACKUP_INDEX_H_
