#include "control/schedule/planner.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/status.h"
#include "control/schedule/assigner.h"

namespace sluice {
namespace {

using schedule::Assigner;
using schedule::Freedom;

constexpr size_t kNamedSlots = 10;

// Slots that cannot be planned: the first of them by number, how many they are, and which nodes
// would help.
struct Shortage {
  std::vector<uint32_t> first;
  size_t count = 0;
  std::set<std::string> nodes;

  void add(uint32_t slot) {
    if (first.size() < kNamedSlots) first.push_back(slot);
    ++count;
  }
};

absl::Status short_of_digests(const Shortage& shortage, uint32_t quorum) {
  return failed_precondition(
      "{} slots have fewer than the {} published digests that a backup needs: {}{}; nodes that "
      "published "
      "none for them: {}",
      shortage.count, quorum, fmt::join(shortage.first, ", "),
      shortage.count > shortage.first.size() ? ", ..." : "",
      shortage.nodes.empty() ? "none" : fmt::format("{}", fmt::join(shortage.nodes, ", ")));
}

absl::Status check_targets(std::span<const PlanTarget> targets, size_t nodes) {
  std::set<uint32_t> seen;
  for (const PlanTarget& target : targets) {
    if (target.node >= nodes || !seen.insert(target.node).second) {
      return invalid_argument("target {} is no node, or is there twice", target.node);
    }
    if (!std::isfinite(target.weight) || target.weight <= 0) {
      return invalid_argument("target {} has weight {}; it must be a number above 0", target.node,
                              target.weight);
    }
  }
  return absl::OkStatus();
}

absl::Status check(const PlanInput& input) {
  if (input.table == nullptr) return invalid_argument("a plan needs a distribution table");
  if (input.quorum < 1) return invalid_argument("a plan needs a quorum of at least 1");
  if (input.targets.empty()) return invalid_argument("a plan needs at least one target");
  for (const PlanNode& node : input.nodes) {
    for (const double rate : {node.send_rate, node.receive_rate}) {
      if (!std::isfinite(rate) || rate <= 0) {
        return invalid_argument("node '{}' has a rate of {}; it must be a number above 0",
                                node.name, rate);
      }
    }
  }
  SLUICE_RETURN_IF_ERROR(check_targets(input.targets, input.nodes.size()));
  for (const PublishedDigest& published : input.published) {
    if (published.slot >= input.table->slots() || published.node >= input.nodes.size()) {
      return invalid_argument("a digest of slot {} by node {} is out of range", published.slot,
                              published.node);
    }
  }
  return absl::OkStatus();
}

// The published digests, slot by slot and node by node.
absl::StatusOr<std::vector<const PublishedDigest*>> in_order(const PlanInput& input) {
  std::vector<const PublishedDigest*> ordered;
  ordered.reserve(input.published.size());
  for (const PublishedDigest& published : input.published) ordered.push_back(&published);
  std::sort(ordered.begin(), ordered.end(), [](const PublishedDigest* a, const PublishedDigest* b) {
    return a->slot != b->slot ? a->slot < b->slot : a->node < b->node;
  });
  for (size_t i = 1; i < ordered.size(); ++i) {
    if (ordered[i]->slot == ordered[i - 1]->slot && ordered[i]->node == ordered[i - 1]->node) {
      return invalid_argument("node '{}' published slot {} twice",
                              input.nodes[ordered[i]->node].name, ordered[i]->slot);
    }
  }
  return ordered;
}

void add_missing_nodes(const PlanInput& input, std::span<const PublishedDigest* const> published,
                       uint32_t slot, Shortage& shortage) {
  for (const uint16_t member : input.table->replicas_of(slot)) {
    const std::string& name = input.table->members()[member].name;
    const bool is_there = std::any_of(
        published.begin(), published.end(),
        [&](const PublishedDigest* digest) { return input.nodes[digest->node].name == name; });
    if (!is_there) shortage.nodes.insert(name);
  }
}

void add_slot(std::span<const PublishedDigest* const> published, Plan& plan) {
  const auto is_empty = [](const PublishedDigest* p) { return p->digest.empty(); };
  if (std::all_of(published.begin(), published.end(), is_empty)) {
    ++plan.slots_empty;
    return;
  }
  SlotPlan slot;
  slot.slot = published[0]->slot;
  slot.agreed = std::all_of(published.begin(), published.end(), [&](const PublishedDigest* p) {
    return p->digest == published[0]->digest;
  });
  if (slot.agreed) slot.expected = published[0]->digest;
  slot.first_copy = static_cast<uint32_t>(plan.copies.size());
  slot.copies = static_cast<uint32_t>(published.size());
  for (const PublishedDigest* p : published) {
    plan.copies.push_back({p->node, wire_bytes_of(p->digest)});
  }
  plan.slots.push_back(slot);
}

void set_targets(std::span<const PlanTarget> targets, Plan& plan) {
  plan.targets.clear();
  for (const PlanTarget& target : targets) plan.targets.push_back(target.node);
  std::sort(plan.targets.begin(), plan.targets.end());
}

}  // namespace

uint64_t wire_bytes_of(const SlotDigest& digest) {
  return digest.bytes + kPlanRecordOverhead * (digest.records + digest.tombstones);
}

uint32_t fan_in_bound(size_t nodes, size_t targets, uint32_t fan) {
  if (fan == 0) return 0;
  const size_t others = nodes > targets ? nodes - targets : 0;
  return std::max(fan, static_cast<uint32_t>((others + targets - 1) / targets));
}

uint64_t Plan::bytes_of(const SlotPlan& slot) const {
  uint64_t bytes = 0;
  for (const PlanCopy& sent : senders_of(slot)) bytes += sent.bytes;
  return bytes;
}

uint64_t Plan::total_bytes() const {
  uint64_t bytes = 0;
  for (const NodeLoad& load : loads) bytes += load.send_bytes;
  return bytes;
}

const SlotPlan* Plan::find(uint32_t slot) const {
  const auto found =
      std::lower_bound(slots.begin(), slots.end(), slot,
                       [](const SlotPlan& plan, uint32_t number) { return plan.slot < number; });
  return found != slots.end() && found->slot == slot ? &*found : nullptr;
}

int Plan::find_node(std::string_view name) const {
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

absl::StatusOr<Plan> make_plan(const PlanInput& input) {
  SLUICE_RETURN_IF_ERROR(check(input));
  SLUICE_ASSIGN_OR_RETURN(const auto ordered, in_order(input));
  Plan plan;
  plan.nodes = input.nodes;
  plan.fan = input.fan;
  set_targets(input.targets, plan);
  Shortage shortage;
  size_t begin = 0;
  for (uint32_t slot = 0; slot < input.table->slots(); ++slot) {
    size_t end = begin;
    while (end < ordered.size() && ordered[end]->slot == slot) ++end;
    const std::span published(ordered.data() + begin, end - begin);
    begin = end;
    if (published.size() >= input.quorum) {
      add_slot(published, plan);
      continue;
    }
    shortage.add(slot);
    add_missing_nodes(input, published, slot, shortage);
  }
  if (shortage.count > 0) return short_of_digests(shortage, input.quorum);
  Assigner(&plan, std::vector<Freedom>(plan.slots.size(), Freedom::kAll), input.targets).run();
  return plan;
}

namespace {

struct Survivors {
  const Plan& before;
  const std::vector<uint8_t>& is_dead;
  uint32_t quorum;
};

// The slot without its dead replicas; what is still to be decided about it. False when too few are
// left.
bool survive(const Survivors& survivors, const SlotPlan& slot, bool is_done, Plan& plan,
             Freedom* freedom) {
  const Plan& before = survivors.before;
  SlotPlan next = slot;
  next.first_copy = static_cast<uint32_t>(plan.copies.size());
  const bool target_died = survivors.is_dead[slot.target] != 0;
  if (is_done && !target_died) {
    const auto all = before.copies_of(slot);
    plan.copies.insert(plan.copies.end(), all.begin(), all.end());
    plan.slots.push_back(next);
    *freedom = Freedom::kDone;
    return true;
  }
  bool sender_died = false;
  next.copies = 0;
  next.sender = 0;
  for (uint32_t i = 0; i < slot.copies; ++i) {
    const PlanCopy& held = before.copies_of(slot)[i];
    const bool sends = !slot.agreed || i == slot.sender;
    if (survivors.is_dead[held.node] != 0) {
      sender_died |= sends;
      continue;
    }
    if (slot.agreed && sends) next.sender = next.copies;
    plan.copies.push_back(held);
    ++next.copies;
  }
  plan.slots.push_back(next);
  *freedom = target_died ? Freedom::kAll : sender_died ? Freedom::kSender : Freedom::kFixed;
  return next.copies >= (slot.agreed ? 1 : survivors.quorum);
}

bool has_changed(const Plan& before, const SlotPlan& old_slot, const Plan& after,
                 const SlotPlan& new_slot) {
  if (old_slot.target != new_slot.target) return true;
  const auto old_senders = before.senders_of(old_slot);
  const auto new_senders = after.senders_of(new_slot);
  return !std::equal(old_senders.begin(), old_senders.end(), new_senders.begin(),
                     new_senders.end());
}

}  // namespace

absl::StatusOr<Replan> replan(const Plan& plan, std::span<const uint8_t> done,
                              std::span<const uint32_t> dead, std::span<const PlanTarget> targets,
                              uint32_t quorum) {
  SLUICE_RETURN_IF_ERROR(check_targets(targets, plan.nodes.size()));
  if (!done.empty() && done.size() != plan.slots.size()) {
    return invalid_argument("{} slots are planned, but {} are said to be done or not",
                            plan.slots.size(), done.size());
  }
  std::vector<uint8_t> is_dead(plan.nodes.size());
  for (const uint32_t node : dead) {
    if (node >= is_dead.size()) return invalid_argument("dead node {} is not in the plan", node);
    is_dead[node] = 1;
  }
  std::vector<PlanTarget> living;
  for (const PlanTarget& target : targets) {
    if (is_dead[target.node] == 0) living.push_back(target);
  }
  if (living.empty()) return failed_precondition("no target of the backup is left");

  Replan result;
  result.plan.nodes = plan.nodes;
  result.plan.fan = plan.fan;
  result.plan.slots_empty = plan.slots_empty;
  set_targets(living, result.plan);
  std::vector<Freedom> freedom(plan.slots.size());
  Shortage shortage;
  const Survivors survivors{plan, is_dead, quorum};
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    const bool is_done = !done.empty() && done[i] != 0;
    const SlotPlan& slot = plan.slots[i];
    if (survive(survivors, slot, is_done, result.plan, &freedom[i])) continue;
    shortage.add(slot.slot);
    for (const PlanCopy& held : plan.copies_of(slot)) {
      if (is_dead[held.node] != 0) shortage.nodes.insert(plan.nodes[held.node].name);
    }
  }
  if (shortage.count > 0) {
    return failed_precondition(
        "{} slots have too few replicas left that can be read: {}{}; dead nodes that held them: {}",
        shortage.count, fmt::join(shortage.first, ", "),
        shortage.count > shortage.first.size() ? ", ..." : "", fmt::join(shortage.nodes, ", "));
  }
  Assigner(&result.plan, std::move(freedom), living).run();
  for (uint32_t i = 0; i < plan.slots.size(); ++i) {
    if (has_changed(plan, plan.slots[i], result.plan, result.plan.slots[i])) {
      result.changed.push_back(i);
    }
  }
  return result;
}

}  // namespace sluice
