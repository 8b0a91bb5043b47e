// A tree of files as a source of a backup, read where it is.
//
// A look at the whole tree says what there is; then slots are scanned, in any order and several at
// a time, as records of entries (entry_reader.h). What is read is what is there then: an entry that
// has gone since, cannot be read, or did not stay as it was is reported. What was read is kept in
// the catalogue, so that the slots whose entries are as they were are known without reading them.
//
// Slots of a tree are not those of records: the upper bits are the tree's number in the backup
// (record.h), the lower slot_bits the shard (tree_shard_of()). Records have as their version the
// moment of the last change of the inode, and node 0.
//
// Thread-safe; one look at a time. Memory: the catalogue's, a chunk for each scan, and the report.
#ifndef SLUICE_DATAPLANE_TREE_SOURCE_TREE_SOURCE_H_
#define SLUICE_DATAPLANE_TREE_SOURCE_TREE_SOURCE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "base/mutex.h"
#include "dataplane/source/slot_source.h"
#include "dataplane/tree_source/tree_catalogue.h"
#include "tree/file_metadata.h"
#include "tree/tree_scan.h"

namespace sluice {

struct TreeSourceOptions {
  std::string root;  // a directory, or a link to one
  std::shared_ptr<TreeCatalogue> catalogue;
  uint32_t number = 1;     // of the tree in the backup, 1 to kMaxTreeNumber
  uint32_t slot_bits = 0;  // of the backup
  TreeScanOptions scan;    // what to leave out
};

// Paths of entries, with a word about each. All are counted, the first kMax of them kept.
struct TreePaths {
  static constexpr size_t kMax = 1000;
  uint64_t count = 0;
  std::map<std::string, std::string> first;
};

struct TreeReport {
  // Of the last look.
  uint64_t files = 0;  // names of files
  uint64_t directories = 0;
  uint64_t links = 0;     // symbolic ones
  uint64_t specials = 0;  // pipes and devices
  uint64_t bytes = 0;     // sizes of the files
  uint64_t sockets = 0;   // left out, as what follows
  uint64_t excluded = 0;
  uint64_t other_file_systems = 0;
  uint64_t loops = 0;
  TreePaths unreadable;  // of the look
  // Of scans since.
  uint64_t bytes_read = 0;
  TreePaths changed;   // while it was read, as often as that was tried: as it was read last
  TreePaths vanished;  // between look and reading
  TreePaths failed;    // not read: why
};

class TreeSource final : public SlotSource {
 public:
  // NOT_FOUND, FAILED_PRECONDITION or PERMISSION_DENIED for a root that cannot be looked at.
  static absl::StatusOr<std::unique_ptr<TreeSource>> open(const TreeSourceOptions& options);

  // Looks at all of the tree. CANCELLED soon after `stopped` says so, which may be empty. `rescan`:
  // everything is read, whatever is known of it.
  absl::Status look(bool rescan, const std::function<bool()>& stopped);
  // Takes up the last look, of this process or an earlier one. NOT_FOUND where there was none.
  absl::Status take_last_look();
  // By shard: what the last look found.
  TreeShards shards() const;
  TreeReport report() const;

  // Each slot with its number: one without entries is empty.
  bool has(uint32_t slot) const override;
  std::unique_ptr<SlotScan> scan(uint32_t slot) override;
  // Files may change between a look and a scan: what was read is known once it has been.
  std::optional<SlotDigest> digest(uint32_t) const override { return std::nullopt; }
  // Of a slot in which the last look found nothing that has changed since it was read.
  std::optional<SlotDigest> known_digest(uint32_t slot) const;

 private:
  class Scan;
  class Look;

  explicit TreeSource(const TreeSourceOptions& options) : options_(options) {}
  std::optional<uint32_t> shard_of_slot(uint32_t slot) const;
  void note(TreePaths TreeReport::*where, const std::string& path, std::string_view why);

  const TreeSourceOptions options_;
  UniqueFd root_;
  OwnerNames names_;
  mutable Mutex mutex_;
  TreeShards shards_ SLUICE_GUARDED_BY(mutex_);
  TreeReport report_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_TREE_SOURCE_TREE_SOURCE_H_
