// Who sends which copies to which target: a pure function of the digests that replicas published
// for one cut, the nodes' rates and the targets' weights. No clock, no I/O, no globals; the same
// input makes the same plan, bit by bit.
//
// An agreed slot (all its published digests equal) is sent once, by the replica that makes the
// finish time smallest. A divergent slot is sent by all replicas that published a digest. A slot
// whose published copies are all empty is left out. A slot of a tree is sent by the node that has
// it. Targets share the received bytes by weight,
// preferring targets that hold the slot.
//
// A node sends to at most `fan` targets, and a target hears at most fan_in_bound() senders, itself
// not counted. Two things come before that: a divergent slot is sent by all its replicas, so a node
// that holds more of them than it finds peers for within the bound has more, as few as were found;
// and in a replan what is not affected stays as it was. Plan::largest_fan_in and largest_fan_out
// tell what came of it. The makespan suffers little: an agreed slot can stay at the node that sends
// it, which takes no peer.
#ifndef SLUICE_CONTROL_SCHEDULE_PLANNER_H_
#define SLUICE_CONTROL_SCHEDULE_PLANNER_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/table/table.h"
#include "dataplane/block/slot_digest.h"

namespace sluice {

// A node as the planner sees it; everywhere else it is an index into the vector of these.
struct PlanNode {
  std::string name;
  double send_rate = 1;     // bytes a second, > 0; only proportions matter unless all are measured
  double receive_rate = 1;  // bytes a second, > 0
  friend bool operator==(const PlanNode&, const PlanNode&) = default;
};

struct PlanTarget {
  uint32_t node = 0;
  double weight = 1;  // > 0
};

// Peers that a node sends to, and takes from, in one plan, itself not counted.
inline constexpr uint32_t kPlanFan = 16;

// What one node published for one slot.
struct PublishedDigest {
  uint32_t slot = 0;
  uint32_t node = 0;
  SlotDigest digest;
};

// A slot of a tree (dataplane/block/record.h), which one node has.
struct PublishedTreeSlot {
  uint32_t slot = 0;
  uint32_t node = 0;
  // About what it holds: files may change until they are read, which tells.
  SlotDigest digest;
};

struct PlanInput {
  std::vector<PlanNode> nodes;
  std::vector<PlanTarget> targets;         // at least one, no node twice
  std::vector<PublishedDigest> published;  // in any order; a node at most once for a slot
  bool records = true;                     // false: trees alone
  std::vector<PublishedTreeSlot> trees;    // in any order, each slot once
  uint32_t quorum = 0;                     // R-W+1: fewer digests of a slot fail the plan
  uint32_t fan = kPlanFan;                 // peers that a node talks to in bulk; 0: any number
  const DistributionTable* table =
      nullptr;  // which slots there are, and who should have published; by name
};

// One replica of a planned slot.
struct PlanCopy {
  uint32_t node = 0;
  uint64_t bytes = 0;  // estimated on the wire
  friend bool operator==(const PlanCopy&, const PlanCopy&) = default;
};

struct SlotPlan {
  uint32_t slot = 0;
  bool agreed = false;
  // Agreed, of one copy, whose sender tells what it is when it has read it; `expected` is an
  // estimate.
  bool told = false;
  uint32_t target = 0;
  uint32_t sender = 0;      // of an agreed slot: index into copies_of(); 0 otherwise
  uint32_t first_copy = 0;  // copies_of(): all replicas that published this slot
  uint32_t copies = 0;
  SlotDigest expected;  // of an agreed slot
  friend bool operator==(const SlotPlan&, const SlotPlan&) = default;
};

struct NodeLoad {
  uint64_t send_bytes = 0;
  uint64_t receive_bytes = 0;
  uint64_t local_bytes = 0;  // of both: sent to itself
  friend bool operator==(const NodeLoad&, const NodeLoad&) = default;
};

struct Plan {
  std::vector<PlanNode> nodes;
  std::vector<uint32_t> targets;  // node indexes, ascending
  std::vector<SlotPlan> slots;    // ascending by slot
  std::vector<PlanCopy> copies;   // of all slots, one after the other
  std::vector<NodeLoad> loads;    // by node
  uint32_t slots_empty = 0;
  uint32_t slots_agreed = 0;
  uint32_t slots_divergent = 0;
  uint32_t fan = kPlanFan;  // as asked for
  // What is: distinct targets that a node sends to, and distinct senders that a target hears.
  uint32_t largest_fan_out = 0;
  uint32_t largest_fan_in = 0;
  double makespan_s =
      0;  // max over nodes of send_bytes / send_rate and receive_bytes / receive_rate
  double lower_bound_s = 0;  // no assignment of senders and targets is faster

  // Replicas of a planned slot that can send it.
  std::span<const PlanCopy> copies_of(const SlotPlan& slot) const {
    return {copies.data() + slot.first_copy, slot.copies};
  }
  // Replicas that do: one if agreed, all if divergent.
  std::span<const PlanCopy> senders_of(const SlotPlan& slot) const {
    const auto all = copies_of(slot);
    return slot.agreed ? all.subspan(slot.sender, 1) : all;
  }
  // What the target receives.
  uint64_t bytes_of(const SlotPlan& slot) const;
  uint64_t total_bytes() const;
  // Slots of trees, among the agreed ones.
  uint32_t slots_of_trees() const;
  // The plan of a slot, null where it is empty.
  const SlotPlan* find(uint32_t slot) const;
  // The index in nodes, or -1.
  int find_node(std::string_view name) const;
  friend bool operator==(const Plan&, const Plan&) = default;
};

// The fan-in that a plan keeps to. With few targets each hears its share of the other nodes, which
// may be more than `fan`. 0 for any number. targets > 0.
uint32_t fan_in_bound(size_t nodes, size_t targets, uint32_t fan);

// Wire bytes of a copy: its keys and values and this much for each record and tombstone.
inline constexpr uint64_t kPlanRecordOverhead = 40;
uint64_t wire_bytes_of(const SlotDigest& digest);

// FAILED_PRECONDITION, naming the first ten slots, their number and the nodes that are missing,
// when slots have fewer digests than the quorum. INVALID_ARGUMENT for input that breaks the rules
// above.
absl::StatusOr<Plan> make_plan(const PlanInput& input);

}  // namespace sluice

#endif  // SLUICE_CONTROL_SCHEDULE_PLANNER_H_
