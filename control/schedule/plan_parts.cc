#include "control/schedule/plan_parts.h"

#include <algorithm>
#include <set>
#include <utility>

namespace sluice {

PlanParts::PlanParts(Plan plan) : plan_(std::move(plan)), slots_(plan_.nodes.size()) {
  for (uint32_t node = 0; node < plan_.nodes.size(); ++node) nodes_[plan_.nodes[node].name] = node;
  for (uint32_t i = 0; i < plan_.slots.size(); ++i) {
    const SlotPlan& slot = plan_.slots[i];
    slots_[slot.target].push_back(i);
    for (const PlanCopy& copy : plan_.senders_of(slot)) {
      if (copy.node != slot.target) slots_[copy.node].push_back(i);
    }
  }
}

Plan PlanParts::part_of(std::string_view node) const {
  Plan part;
  part.makespan_s = plan_.makespan_s;
  part.lower_bound_s = plan_.lower_bound_s;
  const auto self = nodes_.find(node);
  if (self == nodes_.end()) return part;
  std::set<uint32_t> near{self->second};
  for (const uint32_t i : slots_[self->second]) {
    const SlotPlan& slot = plan_.slots[i];
    near.insert(slot.target);
    for (const PlanCopy& copy : plan_.copies_of(slot)) near.insert(copy.node);
  }
  std::unordered_map<uint32_t, uint32_t> places;
  for (const uint32_t n : near) {
    const auto place = static_cast<uint32_t>(part.nodes.size());
    places[n] = place;
    part.nodes.push_back(plan_.nodes[n]);
    part.loads.push_back(plan_.loads[n]);
    if (std::binary_search(plan_.targets.begin(), plan_.targets.end(), n)) {
      part.targets.push_back(place);
    }
  }
  for (const uint32_t i : slots_[self->second]) {
    SlotPlan slot = plan_.slots[i];
    const auto copies = plan_.copies_of(slot);
    slot.target = places[slot.target];
    slot.first_copy = static_cast<uint32_t>(part.copies.size());
    for (const PlanCopy& copy : copies) part.copies.push_back({places[copy.node], copy.bytes});
    ++(slot.agreed ? part.slots_agreed : part.slots_divergent);
    part.slots.push_back(slot);
  }
  return part;
}

}  // namespace sluice
