#include "control/schedule/plan_rules.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace sluice::schedule {
namespace {
constexpr size_t kNamedSlots = 10;
}  // namespace

void Shortage::add(uint32_t slot) {
  if (first_.size() < kNamedSlots) first_.push_back(slot);
  ++count_;
}

std::string Shortage::slots() const {
  return fmt::format("{}{}", fmt::join(first_, ", "), count_ > first_.size() ? ", ..." : "");
}

std::string Shortage::nodes() const {
  return nodes_.empty() ? "none" : fmt::format("{}", fmt::join(nodes_, ", "));
}

absl::Status check_targets(std::span<const PlanTarget> targets, size_t nodes) {
  std::set<uint32_t> seen;
  for (const PlanTarget& target : targets) {
    if (target.node >= nodes) {
      return invalid_argument("target {} is not one of the {} nodes", target.node, nodes);
    }
    if (!seen.insert(target.node).second) {
      return invalid_argument("target {} is there twice", target.node);
    }
    if (!std::isfinite(target.weight) || target.weight <= 0) {
      return invalid_argument("target {} has weight {}; it must be a number above 0", target.node,
                              target.weight);
    }
  }
  return absl::OkStatus();
}

std::vector<uint32_t> nodes_of(std::span<const PlanTarget> targets) {
  std::vector<uint32_t> nodes;
  nodes.reserve(targets.size());
  for (const PlanTarget& target : targets) nodes.push_back(target.node);
  std::sort(nodes.begin(), nodes.end());
  return nodes;
}

}  // namespace sluice::schedule
