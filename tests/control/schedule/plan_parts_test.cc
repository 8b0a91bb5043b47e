#include "control/schedule/plan_parts.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/random.h"

namespace sluice {
namespace {

Plan random_plan(uint64_t seed, uint32_t nodes, uint32_t slots) {
  Random random(seed);
  Plan plan;
  for (uint32_t n = 0; n < nodes; ++n) {
    plan.nodes.push_back({"n" + std::to_string(n), 1.0 + n, 2.0 + n});
    plan.loads.push_back({n, n + 1, n + 2});
    if (n % 3 != 1) plan.targets.push_back(n);
  }
  for (uint32_t s = 0; s < slots; ++s) {
    SlotPlan slot;
    slot.slot = 3 * s;
    slot.agreed = s % 5 != 0;
    slot.target = plan.targets[random.below(plan.targets.size())];
    slot.first_copy = static_cast<uint32_t>(plan.copies.size());
    slot.copies = 3;
    const auto first = static_cast<uint32_t>(random.below(nodes));
    for (uint32_t c = 0; c < 3; ++c) plan.copies.push_back({(first + 2 * c) % nodes, 100 + s});
    if (slot.agreed) {
      slot.sender = s % 3;
      slot.expected.records = s;
      ++plan.slots_agreed;
    } else {
      ++plan.slots_divergent;
    }
    plan.slots.push_back(slot);
  }
  return plan;
}

// By names, as places differ.
using Sends = std::set<std::pair<uint32_t, std::string>>;  // slot, target
struct Seen {
  Sends sends;
  std::map<uint32_t, std::vector<std::pair<std::string, uint64_t>>> receives;  // by slot: copies
  friend bool operator==(const Seen&, const Seen&) = default;
};

Seen seen_by(const Plan& plan, const std::string& node) {
  Seen seen;
  for (const SlotPlan& slot : plan.slots) {
    const std::string& target = plan.nodes[slot.target].name;
    for (const PlanCopy& copy : plan.senders_of(slot)) {
      if (plan.nodes[copy.node].name == node) seen.sends.emplace(slot.slot, target);
    }
    if (target != node) continue;
    for (const PlanCopy& copy : plan.copies_of(slot)) {
      seen.receives[slot.slot].emplace_back(plan.nodes[copy.node].name, copy.bytes);
    }
  }
  return seen;
}

TEST(PlanParts, TellEachNodeAllThatItSendsAndReceivesAndNothingElse) {
  for (const uint32_t nodes : {5u, 40u}) {
    const Plan plan = random_plan(nodes, nodes, 500);
    const PlanParts parts(plan);
    size_t received = 0;
    for (const PlanNode& node : plan.nodes) {
      const Plan part = parts.part_of(node.name);
      EXPECT_EQ(seen_by(part, node.name), seen_by(plan, node.name)) << node.name;
      received += seen_by(part, node.name).receives.size();
      EXPECT_EQ(part.slots_agreed + part.slots_divergent, part.slots.size());
      for (const SlotPlan& slot : part.slots) {
        const SlotPlan* whole = plan.find(slot.slot);
        ASSERT_NE(whole, nullptr);
        EXPECT_EQ(slot.expected, whole->expected);
        EXPECT_EQ(slot.agreed, whole->agreed);
        const auto senders = part.senders_of(slot);
        EXPECT_TRUE(part.nodes[slot.target].name == node.name ||
                    std::any_of(senders.begin(), senders.end(), [&](const PlanCopy& copy) {
                      return part.nodes[copy.node].name == node.name;
                    }));
      }
      // Rates, loads and targets are the whole plan's.
      for (size_t n = 0; n < part.nodes.size(); ++n) {
        const auto whole = static_cast<uint32_t>(plan.find_node(part.nodes[n].name));
        EXPECT_EQ(part.nodes[n], plan.nodes[whole]);
        EXPECT_EQ(part.loads[n], plan.loads[whole]);
        EXPECT_EQ(std::count(part.targets.begin(), part.targets.end(), n),
                  std::count(plan.targets.begin(), plan.targets.end(), whole));
      }
    }
    EXPECT_EQ(received, plan.slots.size());
  }
}

TEST(PlanParts, AStrangerHasNone) {
  const PlanParts parts(random_plan(1, 5, 20));
  const Plan part = parts.part_of("a stranger");
  EXPECT_TRUE(part.nodes.empty());
  EXPECT_TRUE(part.slots.empty());
}

}  // namespace
}  // namespace sluice
