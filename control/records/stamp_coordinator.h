// Makes the versions of writes.
//
// A version is above the clocks of W replicas of each slot that it is for, read after it was asked
// for. A clock has passed the stamps of all that its store has applied, so a version is above those
// of all writes that were acknowledged before, since W replicas hold such a write and two sets of W
// have a replica in common; and above what reads have returned, which R-W+1 replicas hold by then
// (ReadCoordinator). No clock has to be right for that. The version that a write has first is its
// only one, and its place among the writes of its key: whatever stands above it when it is applied
// was written at the same time or later.
//
// The multi-writer register of Lynch and Shvartsman (Robust emulation of shared memory using
// dynamic quorum-acknowledged broadcasts, FTCS 1997), with hybrid clocks as tags: one question
// serves all keys of a request.
//
// Thread-safe.
#ifndef SLUICE_CONTROL_RECORDS_STAMP_COORDINATOR_H_
#define SLUICE_CONTROL_RECORDS_STAMP_COORDINATOR_H_

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "control/peers/node_context.h"
#include "control/records/replica_calls.h"
#include "dataplane/block/record.h"

namespace sluice {

class StampCoordinator {
 public:
  explicit StampCoordinator(const NodeContext& context) : context_(context) {}

  // Also above `after`: what a write of this client had, or was acknowledged as of. UNAVAILABLE
  // naming the slot, and the nodes that did not answer, where fewer than W can be asked within two
  // seconds: a node that has just come back is waited for.
  absl::StatusOr<Version> stamp(std::span<const uint32_t> slots, uint64_t after);

 private:
  // The largest of W replicas' clocks.
  absl::StatusOr<uint64_t> read_clocks(uint32_t slot, Deadline& deadline);

  const NodeContext& context_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_STAMP_COORDINATOR_H_
