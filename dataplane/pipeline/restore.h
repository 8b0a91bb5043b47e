// The client's side of a restore: sends an archive's blocks to the replicas of their slots.
//
// A unit is one block, or consecutive blocks that share a record's fragments (sent in order, each
// after the reply to the one before). A unit is written when every replica of its slot has it
// durably. What fails goes on the retry list (references into the archive, not values), which has
// precedence over new units, with backoff; what is left after the last try is returned, never
// counted as written.
//
// New units go in lots: ranges of slots, in ascending order, whose blocks the replicas retain in
// memory and make durable together at the lot's end (write_lots.h). All who restore an archive at
// the same time cut the same lots, from its manifest. Units of a lot that fail are sent again one
// by one.
//
// Where the target cluster has other slot_bits, or records are picked, renamed or restamped, blocks
// are decoded and repacked by their new slot, and each is durable when it is answered.
#ifndef SLUICE_DATAPLANE_PIPELINE_RESTORE_H_
#define SLUICE_DATAPLANE_PIPELINE_RESTORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/archive/reader.h"
#include "dataplane/block/slot_digest.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/pipeline/restore_mapping.h"
#include "dataplane/pipeline/slot_router.h"
#include "dataplane/pipeline/write_server.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

// Blocks that were not written everywhere. Stable for an archive, so it can be stored and driven
// again.
struct RestoreUnit {
  std::string part;   // node name of the archive's part
  uint32_t slot = 0;  // the archive's
  uint32_t first_sequence = 0;
  uint32_t blocks = 1;  // of consecutive sequences
  std::string node;     // the replica that failed, or "archive of " and the part's node
  std::string reason;
  // The archive's own blocks failed their check: driving the unit again helps only once they are
  // whole.
  bool damaged = false;
  // What the unit holds of the records asked for. Of blocks that cannot be read it is known from
  // the archive's index and manifest, whatever their keys are.
  uint64_t records = 0;    // live ones
  uint64_t deletions = 0;  // tombstones
};

// An archive slot that is durable on every replica of the target slots that its records belong to.
struct RestoredSlot {
  uint32_t slot = 0;   // the archive's
  uint64_t epoch = 0;  // of the table whose replicas these are
  KeptRecords kept;
  std::vector<WriteReply::Holder> holders;  // by node
};

struct RestoreOptions {
  std::string id;  // restore id: the streams' job
  uint64_t attempt = 0;
  std::string cluster;  // the target cluster's UUID
  RestoreMapping mapping;
  // The archive's slots that an earlier run has restored: not sent again.
  std::set<uint32_t> completed_slots;
  // When not empty: these units and nothing else (a retry list driven again).
  std::vector<RestoreUnit> only;
  size_t requests = 12;  // in flight, and the arena buffers for them (twice that when repacking)
  size_t requests_per_node = 4;
  int64_t request_timeout_ms = 30'000;
  // Parts of the archive that one process restores. Each other part is restored by a process of its
  // own, at the same time.
  std::set<std::string> together;
  uint64_t lot_share_bytes = uint64_t{32} << 20;  // of a lot, for each of the cluster's nodes
  int tries = 6;                                  // of one unit
  Stage* read = nullptr;     // at work while blocks are read and checked; outlives the restore
  int64_t backoff_ms = 100;  // before the first retry; doubles, at most 5 s
  // Called from several threads, one at a time; must be quick. An archive slot is complete when all
  // its units are written. One whose units met different stores of a node, or different tables, is
  // not reported.
  std::function<void(const RestoredSlot& slot)> on_slot_complete;
  // Bytes of the archive's blocks that are dealt with, of all that are to be (or were before).
  std::function<void(uint64_t done, uint64_t total)> on_progress;
  Cancellation* cancellation = nullptr;

  bool is_cancelled() const { return cancellation != nullptr && cancellation->cancelled(); }
};

struct RestoreResult {
  uint64_t records = 0;  // live ones in the archive, as far as asked for (with completed slots)
  uint64_t bytes = 0;    // keys and values of these
  // Of these, in units that are durable on all replicas, in this call or in completed slots.
  uint64_t written = 0;
  // Records (tombstones too) of which the target had a newer one, or that took the place of one:
  // its digests differ then.
  KeptRecords kept;
  uint64_t retried = 0;  // units that needed more than one try
  std::vector<RestoreUnit> failed;
  uint64_t failed_records = 0;    // live, in failed units
  uint64_t failed_deletions = 0;  // tombstones in these
  struct Node {
    uint64_t records = 0;  // durable there through this call; each record counts at every replica
    uint64_t bytes = 0;
  };
  std::map<std::string, Node> nodes;
  uint64_t newest_stamp = 0;  // of the records asked for
  // What each slot of the target cluster holds after a complete restore into an empty cluster;
  // slots without records are left out.
  std::map<uint32_t, SlotDigest> expected;
  bool cancelled = false;
};

// Restores the parts that `archive` has open. An error only where nothing can be done (no buffers,
// no route at all); damaged blocks and unreachable nodes are failed units. `router` is the target
// cluster's.
absl::StatusOr<RestoreResult> restore(Exchange& exchange, ArchiveReader& archive,
                                      SlotRouter& router, const RestoreOptions& options);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RESTORE_H_
