// Chooses targets and senders for the slots of a plan. Internal to control/schedule; pure and
// deterministic.
#ifndef SLUICE_CONTROL_SCHEDULE_ASSIGNER_H_
#define SLUICE_CONTROL_SCHEDULE_ASSIGNER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "control/schedule/planner.h"

namespace sluice::schedule {

// What may be decided about a slot.
enum class Freedom : uint8_t {
  kDone,    // nothing is left to do: it counts for no load
  kFixed,   // it is sent as the plan says
  kSender,  // an agreed slot's sender may be chosen
  kAll,     // and its target
};

// Confined to one thread. Must not outlive the plan.
class Assigner {
 public:
  // freedom: by index in plan.slots. targets: those that may be chosen.
  Assigner(Plan* plan, std::vector<Freedom> freedom, std::span<const PlanTarget> targets);
  // Decides everything, and fills in the plan's loads, makespan and lower bound.
  void run();

 private:
  const PlanCopy& copy(const SlotPlan& slot, uint32_t index) const {
    return plan_.copies[slot.first_copy + index];
  }
  uint32_t sender_node(const SlotPlan& slot) const { return copy(slot, slot.sender).node; }
  double send_time(uint32_t node, uint64_t bytes) const {
    return static_cast<double>(bytes) / plan_.nodes[node].send_rate;
  }
  bool may_choose_sender(size_t index) const {
    return freedom_[index] >= Freedom::kSender && plan_.slots[index].agreed;
  }
  std::vector<uint32_t> largest_first() const;

  void count_fixed();
  void choose_targets(const std::vector<uint32_t>& order);
  uint32_t best_target(const SlotPlan& slot, uint64_t bytes, double level) const;
  void choose_senders(const std::vector<uint32_t>& order);
  // Moves one slot at a time to where it ends sooner, until no slot would: with many small slots
  // this is the optimum of the whole.
  void improve_by_moves(const std::vector<uint32_t>& order);
  // Trades slots of the node that ends last, which matters with few and large ones.
  void improve_by_swaps();
  bool swap_once();
  void prefer_local();
  double send_makespan() const;
  void sum_up();
  bool is_within_fans() const;
  double lower_bound() const;

  Plan& plan_;
  const std::vector<Freedom> freedom_;
  const std::span<const PlanTarget> targets_;
  std::vector<uint64_t> send_;         // bytes by node
  std::vector<uint64_t> receive_;      // bytes by node
  std::vector<double> target_weight_;  // by node; 0: no target
};

}  // namespace sluice::schedule

#endif  // SLUICE_CONTROL_SCHEDULE_ASSIGNER_H_
