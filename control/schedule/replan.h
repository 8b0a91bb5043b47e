// Plans what is left of a backup: when nodes died, and when nodes are slower than the plan took
// them for. Pure and deterministic, as the planner.
#ifndef SLUICE_CONTROL_SCHEDULE_REPLAN_H_
#define SLUICE_CONTROL_SCHEDULE_REPLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "control/schedule/planner.h"

namespace sluice {

struct Replan {
  Plan plan;  // the same slots, with loads and bounds of what is left to do
  std::vector<uint32_t>
      changed;  // indexes into plan.slots whose target or senders differ from before
};

// Plans what is left after nodes died. `done[i]` tells whether plan.slots[i] is durable at its
// target (empty: none is). What is done at a living target stays as it is. Agreed slots move to
// another replica that published the same digest; a dead target's slots, done or not, move to the
// remaining targets; a divergent slot goes on with the replicas that are left if they still are a
// quorum. FAILED_PRECONDITION, naming slots and nodes, when a slot has no such replicas or no
// target is left. A living node keeps its senders and targets where nothing about it died.
absl::StatusOr<Replan> replan(const Plan& plan, std::span<const uint8_t> done,
                              std::span<const uint32_t> dead, std::span<const PlanTarget> targets,
                              uint32_t quorum);

// What became of a plan.
struct PlanProgress {
  // By index in plan.slots: durable at its target when the plan's nodes began (empty: none was),
  // and now.
  std::span<const uint8_t> done_before;
  std::span<const uint8_t> done;
  double seconds = 0;  // from then to now
};

// What a node was seen to do, in bytes a second, > 0. A node that is slow only because its peers
// are does not count as slow.
struct NodePace {
  double send_rate = 0;
  double receive_rate = 0;
  bool is_slow_sender = false;
  bool is_slow_receiver = false;
};

// By node. Of nodes that are not slow, and of those that have done too little to tell, the plan's
// rates in proportion, so that together they are as fast as they were seen to be. Progress of less
// than a tenth of what was to be done tells nothing: all rates are the plan's. A node that was to
// move less than a few slots by then cannot be told to be slow.
std::vector<NodePace> paces_of(const Plan& plan, const PlanProgress& progress);

struct Rebalance {
  Replan replan;
  double seconds_as_planned = 0;  // of what is left, at these paces, if nothing changes
  // Nodes that would end clearly later than others, ascending.
  std::vector<uint32_t> late;
};

// As replan(), by the paces of the nodes: the new plan's rates are these, and the targets' weights
// their receive rates. Of what is not done, agreed slots of a sender that would end late may be
// sent by another replica, and slots of a target that would end late may go to another one. All
// others stay as they are, so that a slot that becomes durable meanwhile is not sent again.
// replan.plan.makespan_s is comparable to seconds_as_planned.
absl::StatusOr<Rebalance> rebalance(const Plan& plan, const PlanProgress& progress,
                                    std::span<const uint32_t> dead,
                                    std::span<const PlanTarget> targets, uint32_t quorum);

}  // namespace sluice

#endif  // SLUICE_CONTROL_SCHEDULE_REPLAN_H_
