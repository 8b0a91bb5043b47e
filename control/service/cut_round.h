// Takes one cut on all members: collects their clocks, arms them with a T beyond the largest, and
// collects the digests of what their cuts hold. A clock that has not passed T by the time that a
// wall clock takes for it is moved past it: stamps may run ahead of every wall clock, by hours.
#ifndef SLUICE_CONTROL_SERVICE_CUT_ROUND_H_
#define SLUICE_CONTROL_SERVICE_CUT_ROUND_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/service/node_context.h"

namespace sluice {

struct CutRound {
  uint64_t cut = 0;
  uint64_t epoch = 0;
  std::map<std::string, std::vector<SlotDigest>>
      digests;                                // of each node whose cut can be read, by slot
  std::map<std::string, std::string> unread;  // other members, and why
};

struct CutRoundOptions {
  uint64_t attempt = 1;  // of the backup: a node that has seen a higher one refuses
  // Asked before each step that others can see; an error ends the round with it.
  std::function<absl::Status()> proceed;
  int64_t first_margin_ms = 250;  // of T beyond the largest clock; doubles with each try
  int tries = 5;
  int64_t digests_ms = 30'000;  // to wait for cuts, beyond the margin
  std::function<bool()> stop;   // CANCELLED when it says so
};

// Each slot's replicas that were read are at least R-W+1; otherwise UNAVAILABLE naming slots and
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

#endif  // SLUICE_CONTROL_SERVICE_CUT_ROUND_H_
