// The documents of restores in the destination's cluster block: what was restored, how far it came,
// and the retry list.
//
//   restores/<id>                        head
//   restore/<id>/done/<part>             bitmap of the archive slots of that part which are on all
//   replicas restore/<id>/failed/<part>/<chunk>   units that remain on the retry list
//
// Threads: as the block. What does not decode is DATA_LOSS naming its key.
#ifndef SLUICE_CONTROL_CLIENT_RESTORE_STORE_H_
#define SLUICE_CONTROL_CLIENT_RESTORE_STORE_H_

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checksum.h"
#include "control/cluster_block/cluster_block.h"
#include "dataplane/pipeline/restore.h"

namespace sluice {

struct RestoreSource {
  std::string part;  // name of the archive's part: the node that made it
  std::string node;  // that holds and sends it; empty: the process of the operator
  std::string folder;
  friend bool operator==(const RestoreSource&, const RestoreSource&) = default;
};

struct RestoreHead {
  std::string id;
  std::string backup;           // UUID
  std::string name;             // of the backup
  std::string archive_cluster;  // UUID of the cluster that was backed up
  Digest128 manifest_digest;    // of the archive
  std::string source_cluster;   // URL; empty: this cluster's own nodes hold the archive
  std::string prefix;
  std::string state;  // running completed completed_with_failures failed cancelled
  std::string reason;
  uint64_t attempt = 1;
  bool into_empty = false;  // the cluster held nothing when the restore began
  std::vector<RestoreSource> sources;
  uint64_t records = 0;
  uint64_t written = 0;
  uint64_t kept_newer = 0;
  uint64_t failed = 0;
  int64_t created_ms = 0;
  int64_t changed_ms = 0;
};

std::string restore_lock_key(std::string_view id);

struct StoredRestore {
  RestoreHead head;
  Revision revision = 0;  // 0: not stored yet
};
// A revision of 0 where there is none.
absl::StatusOr<StoredRestore> load_restore(ClusterBlock& block, std::string_view id);
absl::StatusOr<std::vector<RestoreHead>> list_restores(ClusterBlock& block);
// ABORTED when somebody changed it since it was loaded.
absl::Status store_restore(ClusterBlock& block, StoredRestore& stored);
// Forgets progress and retry list, not the head.
absl::Status erase_restore_progress(ClusterBlock& block, std::string_view id);

// What progress and retry lists are stored under: the head, as an attempt found it. Once another
// attempt has changed the head, what the earlier one stores is ABORTED.
struct RestoreFence {
  std::string id;
  Revision head = 0;
};

absl::Status store_done_slots(ClusterBlock& block, const RestoreFence& fence, std::string_view part,
                              const std::set<uint32_t>& slots);
absl::StatusOr<std::set<uint32_t>> load_done_slots(ClusterBlock& block, std::string_view id,
                                                   std::string_view part);

// Replaces a part's retry list.
absl::Status store_failed_units(ClusterBlock& block, const RestoreFence& fence,
                                std::string_view part, const std::vector<RestoreUnit>& units);
absl::StatusOr<std::vector<RestoreUnit>> load_failed_units(ClusterBlock& block, std::string_view id,
                                                           std::string_view part);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_RESTORE_STORE_H_
