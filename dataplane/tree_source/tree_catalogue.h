// What a tree held when it was looked at last, and what its entries were when they were read last:
// so that the next backup reads only what changed since. On RocksDB, in a directory of its own.
//
// Nothing depends on it but time: what is lost, or was not made durable, is read again. Entries are
// in shards, which are slots of a backup: all of a directory are in one (tree_shard_of()).
//
// Of a file with several names the first is the one that its content is read by. It stays the first
// from look to look as long as it is one of the file's names.
//
// Thread-safe; one look at a time. Memory: RocksDB's, some 16 MiB.
#ifndef SLUICE_DATAPLANE_TREE_SOURCE_TREE_CATALOGUE_H_
#define SLUICE_DATAPLANE_TREE_SOURCE_TREE_CATALOGUE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/block/slot_digest.h"
#include "tree/entry_reader.h"
#include "tree/file_metadata.h"
#include "tree/link_groups.h"

namespace sluice {

struct CatalogueEntry {
  FileType type = FileType::kFile;
  FileIdentity identity;
  uint64_t size = 0;
  // Of the records that it was read as, in this state. None: it has to be read.
  std::optional<SlotDigest> digest;

  bool same_state(const CatalogueEntry& other) const {
    return type == other.type && identity == other.identity && size == other.size;
  }
};

// The entries of a shard together.
struct TreeShard {
  uint64_t entries = 0;
  uint64_t bytes = 0;         // sizes of files
  uint64_t unread_bytes = 0;  // of these: files that have to be read
  SlotDigest digest;          // where `known`
  bool known = true;          // no entry has to be read
};
using TreeShards = std::map<uint32_t, TreeShard>;

class TreeCatalogue {
 public:
  // Made where it is not there, and begun again where it is damaged or of other slot_bits.
  // UNAVAILABLE while somebody has it open.
  static absl::StatusOr<std::unique_ptr<TreeCatalogue>> open(const std::string& directory,
                                                             uint32_t slot_bits);
  virtual ~TreeCatalogue() = default;

  // A look at the whole tree: begun, each entry noted, ended. `rescan`: what was read before counts
  // for nothing. What ends without end_look() has changed nothing that matters.
  virtual absl::Status begin_look(bool rescan) = 0;
  // The entry's digest is kept where it is in the state that was noted before.
  virtual absl::Status note(std::string_view path, const CatalogueEntry& entry) = 0;
  // Forgets what was not noted, and makes the rest durable.
  virtual absl::StatusOr<TreeShards> end_look() = 0;
  // Of the last look that was ended. NOT_FOUND where there was none.
  virtual absl::StatusOr<TreeShards> shards() = 0;

  class Cursor {
   public:
    virtual ~Cursor() = default;
    // By ascending bytes of their paths; false at the end.
    virtual absl::StatusOr<bool> next(std::string* path, CatalogueEntry* entry) = 0;
  };
  // As they are now; must be gone before the catalogue. Confined to one thread.
  virtual std::unique_ptr<Cursor> entries(uint32_t shard) = 0;
  // Nothing for a file that had one name when it was noted.
  virtual absl::StatusOr<std::optional<FileNames>> names_of(const FileId& file) = 0;

  // What was read, where no later look has noted anything else.
  virtual absl::Status keep(std::string_view path, const CatalogueEntry& noted,
                            const CatalogueEntry& read) = 0;
  // Makes durable what was kept.
  virtual absl::Status flush() = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_TREE_SOURCE_TREE_CATALOGUE_H_
