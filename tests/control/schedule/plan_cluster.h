// Clusters that publish digests, for tests of the planner, and what must hold of every plan.
#ifndef SLUICE_TESTS_CONTROL_SCHEDULE_PLAN_CLUSTER_H_
#define SLUICE_TESTS_CONTROL_SCHEDULE_PLAN_CLUSTER_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "control/schedule/planner.h"

namespace sluice {

inline SlotDigest digest_of(uint64_t content, uint64_t bytes) {
  SlotDigest digest;
  digest.sum = {content, ~content};
  digest.records = 1 + bytes / 1000;
  digest.bytes = bytes;
  return digest;
}

// A cluster of equal nodes, with the digests that each replica of the table publishes.
struct Cluster {
  DistributionTable table;
  PlanInput input;

  Cluster(uint32_t nodes, uint32_t slot_bits, uint32_t replicas = 3) {
    TableInput in;
    for (uint32_t i = 1; i <= nodes; ++i) in.members.push_back({"n" + std::to_string(i), i, 1, ""});
    in.replicas = std::min(replicas, nodes);
    in.slot_bits = slot_bits;
    table = compute_table(nullptr, in)->table;
    for (const TableMember& member : table.members())
      input.nodes.push_back({member.name, 1e6, 1e6});
    input.quorum = in.replicas / 2 + 1;
    input.table = &table;
  }
  Cluster(const Cluster&) = delete;

  void publish(uint32_t slot, const SlotDigest& digest) {
    for (const uint16_t member : table.replicas_of(slot))
      input.published.push_back({slot, member, digest});
  }
  PublishedDigest& of(uint32_t slot, uint32_t replica) {
    return *std::find_if(input.published.begin(), input.published.end(),
                         [&](const PublishedDigest& p) {
                           return p.slot == slot && p.node == table.replicas_of(slot)[replica];
                         });
  }
  void target_all() {
    for (uint32_t n = 0; n < input.nodes.size(); ++n) input.targets.push_back({n, 1});
  }
};

inline Plan make(const PlanInput& input) {
  auto plan = make_plan(input);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *std::move(plan) : Plan{};
}

// What must hold of every plan.
inline void expect_sound(const Plan& plan) {
  std::vector<NodeLoad> loads(plan.nodes.size());
  for (const SlotPlan& slot : plan.slots) {
    EXPECT_EQ(plan.senders_of(slot).size(), slot.agreed ? 1 : plan.copies_of(slot).size());
    EXPECT_TRUE(std::binary_search(plan.targets.begin(), plan.targets.end(), slot.target));
    for (const PlanCopy& sent : plan.senders_of(slot)) {
      loads[sent.node].send_bytes += sent.bytes;
      loads[slot.target].receive_bytes += sent.bytes;
      if (sent.node == slot.target) loads[slot.target].local_bytes += sent.bytes;
    }
  }
  EXPECT_EQ(loads, plan.loads);
  EXPECT_LE(plan.lower_bound_s, plan.makespan_s);
}

inline SlotDigest random_digest(Random& random) {
  const uint64_t content = random.next();
  return digest_of(content, random.below(1'000'000));
}

inline void fill_random(Cluster& cluster, Random& random, double divergent) {
  for (uint32_t slot = 0; slot < cluster.table.slots(); ++slot) {
    cluster.publish(slot, random_digest(random));
    if (random.chance(divergent)) cluster.of(slot, 0).digest = random_digest(random);
  }
}

// Distinct peers of each node among the slots that are left, counted from the plan's rows.
struct Peers {
  uint32_t fan_in = 0;
  uint32_t fan_out = 0;
  explicit Peers(const Plan& plan, const std::vector<uint8_t>& done = {}) {
    std::map<uint32_t, std::set<uint32_t>> in, out;
    for (size_t i = 0; i < plan.slots.size(); ++i) {
      const SlotPlan& slot = plan.slots[i];
      if (!done.empty() && done[i] != 0) continue;
      for (const PlanCopy& sent : plan.senders_of(slot)) {
        if (sent.node == slot.target) continue;
        out[sent.node].insert(slot.target);
        in[slot.target].insert(sent.node);
      }
    }
    for (const auto& [node, peers] : in) fan_in = std::max<uint32_t>(fan_in, peers.size());
    for (const auto& [node, peers] : out) fan_out = std::max<uint32_t>(fan_out, peers.size());
  }
};

// One number for all that was chosen.
inline uint64_t choices_of(const Plan& plan) {
  uint64_t sum = 0;
  for (const SlotPlan& slot : plan.slots) {
    sum = Random::mix(sum ^ slot.slot ^ uint64_t{slot.target} << 20 ^ uint64_t{slot.sender} << 40);
  }
  return sum;
}

// Racks, weights and rates in proportion to them.
struct UnequalCluster : Cluster {
  UnequalCluster(uint32_t nodes, uint32_t slot_bits, double spread, Random& random)
      : Cluster(nodes, slot_bits) {
    TableInput in;
    for (uint32_t i = 1; i <= nodes; ++i) {
      in.members.push_back({"n" + std::to_string(i), i, 1 + (spread - 1) * random.unit(),
                            "r" + std::to_string(i % 10)});
    }
    in.replicas = 3;
    in.slot_bits = slot_bits;
    table = compute_table(nullptr, in)->table;
    for (uint32_t n = 0; n < nodes; ++n) {
      const double rate = 1e6 * table.members()[n].weight;
      input.nodes[n] = {table.members()[n].name, rate, rate};
    }
  }
  void target_some(uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      const auto node = static_cast<uint32_t>(i * input.nodes.size() / count);
      input.targets.push_back({node, table.members()[node].weight});
    }
  }
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_SCHEDULE_PLAN_CLUSTER_H_
