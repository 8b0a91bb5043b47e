#include "control/schedule/replan.h"

#include <algorithm>
#include <utility>

#include "base/defect.h"
#include "base/status.h"
#include "control/schedule/assigner.h"
#include "control/schedule/paces.h"
#include "control/schedule/plan_rules.h"

namespace sluice {
namespace {

using schedule::Assigner;
using schedule::Freedom;
using schedule::Shortage;

// What has happened to a plan.
struct Change {
  const Plan& before;
  std::span<const uint8_t> done;  // empty: nothing is
  std::vector<uint8_t> is_dead;   // by node
  uint32_t quorum;
  std::vector<NodePace> paces;  // empty: as planned
  schedule::Lateness late;      // empty: nobody

  bool is_done(size_t index) const {
    if (defect(Defect::kDeadTargetIsDone) && is_dead[before.slots[index].target] != 0) return true;
    return !done.empty() && done[index] != 0 && is_dead[before.slots[index].target] == 0;
  }
};

Freedom freedom_of(const Change& change, const SlotPlan& slot, bool sender_died) {
  const auto is_set = [](const std::vector<uint8_t>& marks, uint32_t node) {
    return !marks.empty() && marks[node] != 0;
  };
  if (change.is_dead[slot.target] != 0 || is_set(change.late.receivers, slot.target)) {
    return Freedom::kAll;
  }
  if (sender_died) return Freedom::kSender;
  const uint32_t sender = change.before.senders_of(slot).front().node;
  return slot.agreed && is_set(change.late.senders, sender) ? Freedom::kSender : Freedom::kFixed;
}

// Adds the slot without its dead replicas to the plan; what is still to be decided about it. False
// when too few are left.
bool survive(const Change& change, size_t index, Plan& plan, Freedom* freedom) {
  const SlotPlan& slot = change.before.slots[index];
  const auto all = change.before.copies_of(slot);
  const bool done = change.is_done(index);
  SlotPlan next = slot;
  next.first_copy = static_cast<uint32_t>(plan.copies.size());
  bool sender_died = false;
  next.copies = 0;
  next.sender = 0;
  for (uint32_t i = 0; i < slot.copies; ++i) {
    const bool sends = !slot.agreed || i == slot.sender;
    if (change.is_dead[all[i].node] != 0) {
      sender_died |= sends;
      continue;
    }
    if (slot.agreed && sends) next.sender = next.copies;
    plan.copies.push_back(all[i]);
    ++next.copies;
  }
  const bool enough = next.copies >= (slot.agreed ? 1 : change.quorum);
  // Of what is done nobody waits for the dead either, unless nobody else has it.
  if (done && !enough) {
    plan.copies.resize(next.first_copy);
    plan.copies.insert(plan.copies.end(), all.begin(), all.end());
    next = slot;
    next.first_copy = static_cast<uint32_t>(plan.copies.size() - all.size());
  }
  plan.slots.push_back(next);
  *freedom = done ? Freedom::kDone : freedom_of(change, slot, sender_died);
  return done || enough;
}

bool has_changed(const Plan& before, const SlotPlan& old_slot, const Plan& after,
                 const SlotPlan& new_slot) {
  if (old_slot.target != new_slot.target) return true;
  const auto old_senders = before.senders_of(old_slot);
  const auto new_senders = after.senders_of(new_slot);
  return !std::equal(old_senders.begin(), old_senders.end(), new_senders.begin(),
                     new_senders.end());
}

absl::StatusOr<std::vector<uint8_t>> marks_of(std::span<const uint32_t> dead, size_t nodes) {
  std::vector<uint8_t> is_dead(nodes);
  for (const uint32_t node : dead) {
    if (node >= nodes) return invalid_argument("dead node {} is not in the plan", node);
    is_dead[node] = 1;
  }
  return is_dead;
}

// Those that live. By their paces, where these are known: what is left goes to where it ends
// soonest.
std::vector<PlanTarget> living_of(const Change& change, std::span<const PlanTarget> targets) {
  std::vector<PlanTarget> living;
  for (PlanTarget target : targets) {
    if (change.is_dead[target.node] != 0) continue;
    if (!change.paces.empty()) target.weight = change.paces[target.node].receive_rate;
    living.push_back(target);
  }
  return living;
}

absl::StatusOr<Replan> plan_rest(const Change& change, std::span<const PlanTarget> targets) {
  const Plan& plan = change.before;
  const std::vector<PlanTarget> living = living_of(change, targets);
  if (living.empty()) return failed_precondition("no target of the backup is left");
  Replan result;
  result.plan.nodes = plan.nodes;
  for (size_t n = 0; n < change.paces.size(); ++n) {
    result.plan.nodes[n].send_rate = change.paces[n].send_rate;
    result.plan.nodes[n].receive_rate = change.paces[n].receive_rate;
  }
  result.plan.fan = plan.fan;
  result.plan.slots_empty = plan.slots_empty;
  result.plan.targets = schedule::nodes_of(living);
  std::vector<Freedom> freedom(plan.slots.size());
  Shortage shortage;
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    const SlotPlan& slot = plan.slots[i];
    if (survive(change, i, result.plan, &freedom[i])) continue;
    shortage.add(slot.slot);
    for (const PlanCopy& held : plan.copies_of(slot)) {
      if (change.is_dead[held.node] != 0) shortage.add_node(plan.nodes[held.node].name);
    }
  }
  if (shortage.count() > 0) {
    return failed_precondition(
        "{} slots have too few replicas left that can be read: {}; dead nodes that held them: {}",
        shortage.count(), shortage.slots(), shortage.nodes());
  }
  Assigner(&result.plan, std::move(freedom), living).run();
  for (uint32_t i = 0; i < plan.slots.size(); ++i) {
    if (has_changed(plan, plan.slots[i], result.plan, result.plan.slots[i])) {
      result.changed.push_back(i);
    }
  }
  return result;
}

absl::Status check(const Plan& plan, std::span<const uint8_t> done,
                   std::span<const PlanTarget> targets) {
  SLUICE_RETURN_IF_ERROR(schedule::check_targets(targets, plan.nodes.size()));
  if (done.empty() || done.size() == plan.slots.size()) return absl::OkStatus();
  return invalid_argument("the plan has {} slots, but there are {} marks of what is done",
                          plan.slots.size(), done.size());
}

}  // namespace

absl::StatusOr<Replan> replan(const Plan& plan, std::span<const uint8_t> done,
                              std::span<const uint32_t> dead, std::span<const PlanTarget> targets,
                              uint32_t quorum) {
  SLUICE_RETURN_IF_ERROR(check(plan, done, targets));
  SLUICE_ASSIGN_OR_RETURN(auto is_dead, marks_of(dead, plan.nodes.size()));
  return plan_rest({plan, done, std::move(is_dead), quorum, {}, {}}, targets);
}

absl::StatusOr<Rebalance> rebalance(const Plan& plan, const PlanProgress& progress,
                                    std::span<const uint32_t> dead,
                                    std::span<const PlanTarget> targets, uint32_t quorum) {
  SLUICE_RETURN_IF_ERROR(check(plan, progress.done, targets));
  SLUICE_RETURN_IF_ERROR(check(plan, progress.done_before, targets));
  SLUICE_ASSIGN_OR_RETURN(auto is_dead, marks_of(dead, plan.nodes.size()));
  Rebalance result;
  std::vector<NodePace> paces = paces_of(plan, progress);
  schedule::Lateness late = schedule::lateness_of(plan, progress.done, paces, is_dead);
  for (uint32_t n = 0; n < paces.size(); ++n) {
    if (late.senders[n] != 0 || late.receivers[n] != 0) result.late.push_back(n);
  }
  result.seconds_as_planned = late.seconds;
  SLUICE_ASSIGN_OR_RETURN(result.replan, plan_rest({plan, progress.done, std::move(is_dead), quorum,
                                                    std::move(paces), std::move(late)},
                                                   targets));
  return result;
}

}  // namespace sluice
