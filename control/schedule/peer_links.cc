#include "control/schedule/peer_links.h"

#include <algorithm>

namespace sluice::schedule {

bool PeerLinks::has(uint32_t sender, uint32_t target) const {
  const auto& links = links_[sender];
  return std::any_of(links.begin(), links.end(),
                     [target](const Link& link) { return link.target == target; });
}

void PeerLinks::add(uint32_t sender, uint32_t target) {
  if (sender == target) return;
  for (Link& link : links_[sender]) {
    if (link.target != target) continue;
    ++link.uses;
    return;
  }
  links_[sender].push_back({target, 1});
  ++fan_in_[target];
}

void PeerLinks::remove(uint32_t sender, uint32_t target) {
  if (sender == target) return;
  auto& links = links_[sender];
  const auto found = std::find_if(links.begin(), links.end(),
                                  [target](const Link& link) { return link.target == target; });
  if (--found->uses > 0) return;
  links.erase(found);
  --fan_in_[target];
}

std::vector<std::pair<uint32_t, uint32_t>> pairs_of(const Plan& plan,
                                                    const std::function<bool(size_t)>& counted) {
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  pairs.reserve(plan.slots.size());
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    if (!counted(i)) continue;
    const SlotPlan& slot = plan.slots[i];
    for (const PlanCopy& sent : plan.senders_of(slot)) pairs.emplace_back(sent.node, slot.target);
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  return pairs;
}

Fans fans_of(const Plan& plan, std::span<const Freedom> freedom) {
  std::vector<uint32_t> in(plan.nodes.size());
  std::vector<uint32_t> out(plan.nodes.size());
  Fans fans;
  for (const auto& [sender, target] :
       pairs_of(plan, [&](size_t i) { return freedom[i] != Freedom::kDone; })) {
    if (sender == target) continue;
    fans.largest_out = std::max(fans.largest_out, ++out[sender]);
    fans.largest_in = std::max(fans.largest_in, ++in[target]);
  }
  return fans;
}

}  // namespace sluice::schedule
