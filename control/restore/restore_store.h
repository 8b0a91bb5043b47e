// The documents of restores in the destination's cluster block: what was restored, how far it came,
// and the retry list.
//
// clang-format off
//   restores/<id>                                     head
//   restore/<id>/done/<generation>/<part>/<chunk>     archive slots of that part which are durable, with the stores
//                                                     that they are durable in
//   restore/<id>/failed/<generation>/<part>/<chunk>   units that remain on the retry list
//   restore/<id>/at/<attempt>                         how far the attempt is, for who watches it
// clang-format on
//
// The head names the generations that count. So one compare-and-swap of it begins an attempt, and
// one ends it with its retry lists; what a crash leaves of other generations is erased later.
//
// Threads: as the block. What does not decode is DATA_LOSS naming its key.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_STORE_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checksum.h"
#include "base/clock.h"
#include "control/cluster_block/cluster_block.h"
#include "control/restore/restore_state.h"
#include "dataplane/pipeline/restore.h"

namespace sluice {

struct RestoreSource {
  std::string part;    // name of the archive's part: the node that made it
  std::string node;    // that holds and sends it; empty: the process of the operator
  std::string folder;  // that the operator's process reads
  friend bool operator==(const RestoreSource&, const RestoreSource&) = default;
};

// The retry list of one part.
struct RestoreList {
  std::string part;
  std::string generation;
  friend bool operator==(const RestoreList&, const RestoreList&) = default;
};

struct RestoreHead {
  std::string id;
  std::string backup;           // UUID
  std::string name;             // of the backup
  std::string archive_cluster;  // UUID of the cluster that was backed up
  Digest128 manifest_digest;    // of the archive
  std::string source_cluster;   // URL; empty: this cluster's own nodes hold the archive
  // The restamp is the moment that a restore with kArchive began at: what was written before loses.
  RestoreMapping mapping;
  OnConflict on_conflict = OnConflict::kNewest;
  bool delete_extra = false;
  RestoreState state = RestoreState::kRunning;
  std::string reason;
  uint64_t attempt = 0;   // raised by whoever begins to drive it
  bool driven = false;    // from an attempt's beginning to its end: only then may it store anything
  uint64_t progress = 0;  // generation of the progress that counts; 0: none
  std::vector<RestoreList> lists;  // of the parts that have failed units
  bool into_empty = false;         // the cluster held nothing when the restore began
  std::vector<RestoreSource> sources;
  uint64_t records = 0;
  uint64_t written = 0;
  uint64_t bytes = 0;
  uint64_t kept_newer = 0;
  uint64_t kept_deleted = 0;
  uint64_t restored_over = 0;
  uint64_t deleted_extra = 0;
  uint64_t extra_left = 0;  // deletions that are not durable on all replicas, and why
  std::string extra_reason;
  uint64_t failed = 0;            // live records on the retry lists
  uint64_t failed_deletions = 0;  // tombstones on them
  int64_t created_ms = 0;
  int64_t changed_ms = 0;
};

std::string restore_head_key(std::string_view id);
std::string restore_lock_key(std::string_view id);
std::string encode(const RestoreHead& head);
absl::StatusOr<RestoreHead> decode_restore_head(const std::string& key, const std::string& bytes);

struct StoredRestore {
  RestoreHead head;
  Revision revision = 0;  // 0: not stored yet
};
// A revision of 0 where there is none.
absl::StatusOr<StoredRestore> load_restore(ClusterBlock& block, std::string_view id);
absl::StatusOr<std::vector<RestoreHead>> list_restores(ClusterBlock& block);

// How far an attempt is.
struct RestorePosition {
  std::string stage;
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
  uint64_t bytes_per_second = 0;
  int64_t changed_ms = 0;
};

// What an attempt stores progress and retry lists under: the head as it began. Once another attempt
// has changed the head, or this one has ended, what it stores is ABORTED.
struct RestoreFence {
  std::string id;
  uint64_t attempt = 0;
  Revision head = 0;
  uint64_t progress = 0;  // generation
};
RestoreFence fence_of(const StoredRestore& stored);
// As an attempt that is told its number finds it. ABORTED when it is over.
absl::StatusOr<RestoreFence> find_fence(ClusterBlock& block, Clock& clock, std::string_view id,
                                        uint64_t attempt);

absl::Status store_position(ClusterBlock& block, const RestoreFence& fence,
                            const RestorePosition& position);
// Of the head's attempt; nullopt where it has stored none.
absl::StatusOr<std::optional<RestorePosition>> load_position(ClusterBlock& block,
                                                             const RestoreHead& head);

// Forgets the generations of progress and retry lists that the head does not name.
absl::Status erase_unnamed(ClusterBlock& block, const StoredRestore& stored);

// The archive slots of one part that are durable. Holders are indexes of a table of stores: a large
// archive has a million slots and few stores. Confined to one thread.
class DurableSlots {
 public:
  struct Slot {
    uint64_t epoch = 0;
    KeptRecords kept;
    std::vector<uint32_t> holders;
  };
  void add(const RestoredSlot& slot);
  void remove(uint32_t slot) { slots_.erase(slot); }
  const std::map<uint32_t, Slot>& slots() const { return slots_; }
  const WriteReply::Holder& store(uint32_t index) const { return stores_[index]; }

 private:
  std::map<WriteReply::Holder, uint32_t> indexes_;
  std::vector<WriteReply::Holder> stores_;
  std::map<uint32_t, Slot> slots_;
};

// Progress is stored in chunks of so many slots.
inline constexpr uint32_t kSlotsPerChunk = 1024;
inline uint32_t progress_chunk(uint32_t slot) { return slot / kSlotsPerChunk; }
std::string encode_progress(const DurableSlots& progress, uint32_t chunk);
absl::Status store_progress(ClusterBlock& block, const RestoreFence& fence, std::string_view part,
                            uint32_t chunk, std::string document);
absl::StatusOr<DurableSlots> load_progress(ClusterBlock& block, const RestoreFence& fence,
                                           std::string_view part);

// Stores a part's retry list as a generation of its own; it counts once the head names it.
absl::Status store_failed_units(ClusterBlock& block, Clock& clock, const RestoreFence& fence,
                                std::string_view part, std::string_view generation,
                                const std::vector<RestoreUnit>& units);
// Of the list that the head names; none where it names none. Hands out one chunk after the other.
absl::Status visit_failed_units(
    ClusterBlock& block, const RestoreHead& head, std::string_view part,
    const std::function<absl::Status(std::vector<RestoreUnit> units)>& visit);
absl::StatusOr<std::vector<RestoreUnit>> load_failed_units(ClusterBlock& block,
                                                           const RestoreHead& head,
                                                           std::string_view part);

// How long a restore asks a cluster block again that takes no writes, as on a disk that is busy
// with other work.
inline constexpr int64_t kBlockPatienceMs = 120'000;
// Asks again while the answer is UNAVAILABLE.
absl::Status with_patience(Clock& clock, const std::function<absl::Status()>& call);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_STORE_H_
