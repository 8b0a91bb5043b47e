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

Fans fans_of(const Plan& plan, std::span<const Freedom> freedom) {
  std::vector<uint64_t> pairs;  // sender and target
  pairs.reserve(plan.slots.size());
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    const SlotPlan& slot = plan.slots[i];
    if (freedom[i] == Freedom::kDone) continue;
    for (const PlanCopy& sent : plan.senders_of(slot)) {
      if (sent.node != slot.target) pairs.push_back(uint64_t{sent.node} << 32 | slot.target);
    }
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  std::vector<uint32_t> in(plan.nodes.size());
  std::vector<uint32_t> out(plan.nodes.size());
  Fans fans;
  for (const uint64_t pair : pairs) {
    fans.largest_out = std::max(fans.largest_out, ++out[pair >> 32]);
    fans.largest_in = std::max(fans.largest_in, ++in[static_cast<uint32_t>(pair)]);
  }
  return fans;
}

}  // namespace sluice::schedule
