// Chooses targets and senders so that no node talks to more than a bound of peers, where the
// assignment that minds loads alone would have too many. Internal to control/schedule; pure and
// deterministic.
//
// Each slot is placed where it costs least: what it adds to the squares of the nodes' loads, and
// what a new link costs, which is little at first and much near the bound. A node that sends to
// itself needs no link, so most agreed slots stay where they are, and the links that divergent
// slots need anyway even out the rest. Then slots are taken up and placed again, one at a time;
// those of nodes that still end too late once more, with what lies above a ceiling dear; and at
// last such nodes trade: a slot leaves, and another one makes room where it goes.
#ifndef SLUICE_CONTROL_SCHEDULE_FAN_ASSIGNER_H_
#define SLUICE_CONTROL_SCHEDULE_FAN_ASSIGNER_H_

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "control/schedule/assigner.h"
#include "control/schedule/least_key.h"
#include "control/schedule/peer_links.h"

namespace sluice::schedule {

// Confined to one thread. Must not outlive what it is given.
class FanAssigner {
 public:
  // As Assigner. order: in which slots are placed. lower_bound: of the makespan, seconds > 0.
  FanAssigner(Plan* plan, std::span<const Freedom> freedom, std::span<const PlanTarget> targets,
              std::span<const uint32_t> order, double lower_bound);
  void run();

 private:
  static constexpr double kInfinite = std::numeric_limits<double>::infinity();
  static constexpr uint32_t kNobody = std::numeric_limits<uint32_t>::max();

  struct Load {
    uint64_t bytes = 0;
    double capacity = 0;  // bytes within the lower bound
    // Of its capacity, with that many bytes more.
    double height(double more = 0) const { return (static_cast<double>(bytes) + more) / capacity; }
  };
  struct Choice {
    double cost = kInfinite;
    uint32_t sender = 0;  // index into the slot's copies
    uint32_t target = 0;
  };
  // Nodes that are not chosen.
  struct Avoided {
    uint32_t sender = kNobody;
    uint32_t target = kNobody;
  };
  struct Moved {
    uint32_t index = 0;  // in plan_.slots
    SlotPlan before;
  };

  const PlanCopy& copy(const SlotPlan& slot, uint32_t index) const {
    return plan_.copies[slot.first_copy + index];
  }
  uint32_t sender_node(const SlotPlan& slot) const { return copy(slot, slot.sender).node; }
  bool is_target(uint32_t node) const { return receive_[node].capacity > 0; }
  void set_capacities(std::span<const PlanTarget> targets, double lower_bound);
  void count_fixed();
  void place_divergent_slots();
  // A source that is not a target needs a link: it gets one before others take more.
  void reserve_links();
  std::vector<uint32_t> sources_without_links() const;

  // Places a slot that was taken up. False, and nothing is changed, when all it could choose is
  // avoided.
  bool place(uint32_t index, const Avoided& avoided);
  Choice best_divergent(const SlotPlan& slot) const;
  Choice best_agreed(const SlotPlan& slot, bool choose_target, const Avoided& avoided) const;
  void put(uint32_t index, const SlotPlan& placed);
  void take_up(uint32_t index);
  void place_again(uint32_t index);
  void put_back(const Moved& moved);

  double load_cost(const Load& load, uint64_t bytes) const;
  double link_cost(uint32_t sender, uint32_t target) const;
  double divergent_cost(const SlotPlan& slot, uint64_t bytes, uint32_t target) const;
  void rank_target(uint32_t node);
  void set_ceiling(double ceiling);
  uint32_t least_filled_target() const { return targets_[ranking_.least()]; }

  bool is_above(const Load& load) const { return load.capacity > 0 && load.height() > ceiling_; }
  bool is_peak(uint32_t node) const { return is_above(send_[node]) || is_above(receive_[node]); }
  bool is_at_peak(const SlotPlan& slot) const;
  void lower_peaks();
  void trade_at_peaks();
  void trade_at(uint32_t node);
  // Whether the node is not a peak any more, after at most one of its slots has moved.
  bool relieve(uint32_t node, uint32_t except, std::vector<Moved>& moved);
  void list_at_nodes(uint32_t index);

  Plan& plan_;
  const std::span<const Freedom> freedom_;
  std::vector<uint32_t> order_;  // of slots that may be changed
  std::vector<uint32_t> targets_;
  std::vector<uint32_t> place_in_ranking_;  // by node
  LeastKey ranking_;                        // of targets_
  const uint32_t fan_out_;
  const uint32_t fan_in_;
  double ceiling_ = kInfinite;  // of heights; costs grow steeply above it
  std::vector<Load> send_;      // by node
  std::vector<Load> receive_;   // by node; no capacity: not a target
  PeerLinks links_;
  // By node, while peaks trade: agreed slots that it sends or receives, or did.
  std::vector<std::vector<uint32_t>> slots_at_;
};

}  // namespace sluice::schedule

#endif  // SLUICE_CONTROL_SCHEDULE_FAN_ASSIGNER_H_
