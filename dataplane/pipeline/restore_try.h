// What one try to send a unit of a restore did, and why it failed. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_RESTORE_TRY_H_
#define SLUICE_DATAPLANE_PIPELINE_RESTORE_TRY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "dataplane/block/slot_digest.h"
#include "dataplane/pipeline/restore.h"
#include "dataplane/pipeline/restore_ledger.h"

namespace sluice {

// Live records, and deletions, that end in a block.
struct RecordCount {
  uint64_t records = 0;
  uint64_t deletions = 0;
  uint64_t bytes = 0;  // keys and values of the live ones

  // Counts a block, and checks it against its checksum.
  static absl::StatusOr<RecordCount> of_block(std::span<const uint8_t> block);
};

// Why a unit was not written everywhere.
struct UnitFailure {
  std::string node;
  absl::Status status;
  bool permanent = false;
  // The archive could not be read: what the unit holds is not known from reading it.
  bool unread = false;

  // The first replica that failed, and the others after it in the reason.
  static UnitFailure first_of(const std::vector<WriteReply::Failure>& failures);
};

// A replica that retains blocks of a lot in memory: its node, and the token to ask by what became
// of them.
using LotReplica = std::pair<std::string, uint64_t>;

// Not thread-safe.
struct UnitTry {
  RecordCount count;
  uint64_t newest_stamp = 0;
  KeptRecords kept;
  std::map<std::string, RestoreResult::Node> nodes;
  std::map<uint32_t, SlotDigest> digests;
  std::set<uint32_t> failed_slots;   // of a repacked unit: not tried again in this try
  std::set<LotReplica> retained_by;  // until the lot's end
  // What each replica said of the unit's blocks so far: the token of the lot, 0 for durable.
  std::map<std::string, uint64_t> keeping;
  SlotLedger::Unit holders;
  std::optional<UnitFailure> failure;

  void add(const RecordCount& more);
  // Takes what the replica that was asked, the route's first, answered about a block of `slot` for
  // all replicas. Why they do not all have it, if so.
  std::optional<UnitFailure> take_reply(const SlotRoute& route, absl::StatusOr<WriteReply>& reply,
                                        uint32_t slot, const RecordCount& block);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RESTORE_TRY_H_
