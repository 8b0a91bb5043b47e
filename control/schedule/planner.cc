#include "control/schedule/planner.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "control/schedule/assigner.h"
#include "control/schedule/plan_rules.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

using schedule::Assigner;
using schedule::Freedom;
using schedule::Shortage;

absl::Status short_of_digests(const Shortage& shortage, uint32_t quorum) {
  return failed_precondition(
      "{} slots have fewer than the {} published digests that a backup needs: {}; nodes that "
      "published none for them: {}",
      shortage.count(), quorum, shortage.slots(), shortage.nodes());
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
  SLUICE_RETURN_IF_ERROR(schedule::check_targets(input.targets, input.nodes.size()));
  for (const PublishedDigest& published : input.published) {
    if (published.slot >= input.table->slots() || published.node >= input.nodes.size()) {
      return invalid_argument("a digest of slot {} by node {} is out of range", published.slot,
                              published.node);
    }
  }
  for (const PublishedTreeSlot& tree : input.trees) {
    if (tree_number_of(tree.slot) == 0 || tree.node >= input.nodes.size()) {
      return invalid_argument("slot {} of a tree of node {} is out of range", tree.slot, tree.node);
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
    if (!is_there) shortage.add_node(name);
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

absl::Status add_trees(std::vector<PublishedTreeSlot> trees, Plan& plan) {
  std::sort(trees.begin(), trees.end(),
            [](const auto& a, const auto& b) { return a.slot < b.slot; });
  for (const PublishedTreeSlot& tree : trees) {
    if (!plan.slots.empty() && plan.slots.back().slot >= tree.slot) {
      return invalid_argument("slot {} of a tree was published twice", tree.slot);
    }
    SlotPlan slot;
    slot.slot = tree.slot;
    slot.agreed = true;
    slot.told = true;
    slot.expected = tree.digest;
    slot.first_copy = static_cast<uint32_t>(plan.copies.size());
    slot.copies = 1;
    plan.copies.push_back({tree.node, wire_bytes_of(tree.digest)});
    plan.slots.push_back(slot);
  }
  return absl::OkStatus();
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

uint32_t Plan::slots_of_trees() const {
  return static_cast<uint32_t>(std::count_if(slots.begin(), slots.end(), [](const SlotPlan& slot) {
    return tree_number_of(slot.slot) != 0;
  }));
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
  plan.targets = schedule::nodes_of(input.targets);
  Shortage shortage;
  size_t begin = 0;
  for (uint32_t slot = 0; input.records && slot < input.table->slots(); ++slot) {
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
  if (shortage.count() > 0) return short_of_digests(shortage, input.quorum);
  SLUICE_RETURN_IF_ERROR(add_trees(input.trees, plan));
  Assigner(&plan, std::vector<Freedom>(plan.slots.size(), Freedom::kAll), input.targets).run();
  return plan;
}

}  // namespace sluice
