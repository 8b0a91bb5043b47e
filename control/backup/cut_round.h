// Takes one cut on all members: collects their clocks, arms them with a T beyond the largest, and,
// once all are armed, moves their clocks past T and collects the digests of what their cuts hold.
// Nobody waits for a wall clock to reach T: stamps may run ahead of every wall clock, by hours.
#ifndef SLUICE_CONTROL_BACKUP_CUT_ROUND_H_
#define SLUICE_CONTROL_BACKUP_CUT_ROUND_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/peers/node_context.h"

namespace sluice {

struct CutRound {
  uint64_t cut = 0;
  uint64_t epoch = 0;
  std::map<std::string, std::vector<SlotDigest>>
      digests;                                // of each node whose cut can be read, by slot
  std::map<std::string, std::string> unread;  // other members, and why
  // When a wall clock that was the largest has passed T, by the monotonic clock.
  int64_t due_ns = 0;
};

struct CutRoundOptions {
  uint64_t attempt = 1;  // of the backup: a node that has seen a higher one refuses
  // Asked before each step that others can see; an error ends the round with it.
  std::function<absl::Status()> proceed;
  // Of T beyond the largest clock: what reading the clocks and arming may take. Doubles with each
  // try.
  int64_t first_margin_ms = 50;
  int tries = 6;
  int64_t digests_ms = 30'000;  // for all cuts to be taken
  std::function<bool()> stop;   // CANCELLED when it says so
};

// Only the last try does without nodes whose clocks had passed T when they were armed. Each slot's
// replicas that were read are at least R-W+1; otherwise UNAVAILABLE naming slots and
// nodes, and no cut is left behind.
absl::StatusOr<CutRound> take_cut(const NodeContext& context, const std::string& backup,
                                  const CutRoundOptions& options);

// UNAVAILABLE, naming the first ten slots and the nodes that lack, unless each slot has `quorum`
// replicas among `nodes`.
absl::Status check_readable(const DistributionTable& table, const std::vector<std::string>& nodes,
                            size_t quorum, const std::map<std::string, std::string>& unread);

// On all members that answer; the others drop it when they come back.
void drop_cuts(const NodeContext& context, const std::string& backup, uint64_t attempt);
// As drop_cuts, and what they had begun to store.
void drop_backup(const NodeContext& context, const std::string& backup, uint64_t attempt);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_CUT_ROUND_H_
