// What is in one backup, whoever holds its parts: the nodes of a cluster, or directories on this
// machine.
//
// Thread-safe. Errors: DATA_LOSS for damage, naming file, offset and slot where there are any;
// FAILED_PRECONDITION for a backup that was deleted meanwhile; UNAVAILABLE naming a holder that
// does not answer. Memory: one page of entries for each part that is read, and the values that are
// asked for.
//
// What shows entries as files (tar_export.h, file_reader.h, control/mount) knows them by this
// interface alone: another kind of source shows its entries with paths, types and values in the
// layout of tree/tree_entry.h, and answers read() for the keys of their chunks.
#ifndef SLUICE_CONTROL_CONTENTS_BACKUP_CONTENTS_H_
#define SLUICE_CONTROL_CONTENTS_BACKUP_CONTENTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/contents/listing.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/block/slot_digest.h"

namespace sluice {

// Which of what a backup holds: its records, or a tree of a node.
struct TreeChoice {
  std::string tree;  // name; empty: the records
  std::string node;  // empty: the only one that had such a tree
};
// The number of a tree, 0 for the records. NOT_FOUND naming the trees that there are;
// FAILED_PRECONDITION naming the nodes where several had it.
absl::StatusOr<uint32_t> number_of(const TreeChoice& choice,
                                   const std::vector<ArchivedTree>& trees);

// The slots that hold records, of all parts.
struct BackupSlots {
  struct Slot {
    std::string node;
    SlotDigest digest;
  };
  uint32_t slot_bits = 0;
  std::map<uint32_t, Slot> slots;
};

class BackupContents {
 public:
  virtual ~BackupContents() = default;
  // "backup nightly".
  virtual const std::string& description() const = 0;
  virtual absl::StatusOr<BackupSlots> slots() = 0;
  // Hands out what is listed, each record once, in no particular order; a prefix may come more than
  // once. One call of the visitor at a time, from any thread; ends with its error.
  using VisitEntry = std::function<absl::Status(BackupEntry entry)>;
  virtual absl::Status list(const ContentsListing& listing, const VisitEntry& visit) = 0;
  // The values of these keys, in order; nullopt where a key has none, or a deleted one.
  using Values = std::vector<std::optional<std::string>>;
  virtual absl::StatusOr<Values> read(const std::vector<std::string>& keys) = 0;
  // Hands out each live record of a tree, chunks of files among them, once, in no particular order;
  // with the path as the key of an entry. One call of the visitor at a time, from any thread; ends
  // with its error. Memory: a page for each part.
  using VisitRecord = std::function<absl::Status(std::string_view key, std::string_view value)>;
  virtual absl::Status records(const VisitRecord& visit) = 0;
};

// The archive in these directories, one for each part. FAILED_PRECONDITION where parts are missing,
// naming their nodes.
absl::StatusOr<std::unique_ptr<BackupContents>> open_local_contents(
    const std::vector<std::string>& folders, const TreeChoice& choice = {});

// The slots of all parts that the manifest names.
absl::StatusOr<BackupSlots> slots_of(const Manifest& manifest);
absl::Status add_slot(const std::string& node, uint32_t slot, const SlotDigest& digest,
                      BackupSlots* slots);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_BACKUP_CONTENTS_H_
