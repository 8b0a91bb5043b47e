#include "control/schedule/planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "base/random.h"
#include "base/status.h"
#include "tests/control/schedule/plan_cluster.h"

namespace sluice {
namespace {

TEST(Planner, AgreedOnceDivergentFromAllEmptyNever) {
  Cluster cluster(5, 4);
  cluster.target_all();
  for (uint32_t slot = 0; slot < 16; ++slot) {
    cluster.publish(slot, slot == 3 ? SlotDigest{} : digest_of(slot, 1000 * slot));
  }
  cluster.of(7, 1).digest = digest_of(99, 500);
  cluster.of(8, 2).digest = SlotDigest{};
  const Plan plan = make(cluster.input);
  expect_sound(plan);
  EXPECT_EQ(plan.slots.size(), 15u);
  EXPECT_EQ(plan.slots_empty, 1u);
  EXPECT_EQ(plan.slots_agreed, 13u);
  EXPECT_EQ(plan.slots_divergent, 2u);
  EXPECT_EQ(plan.find(3), nullptr);
  for (const uint32_t slot : {7u, 8u}) {
    ASSERT_NE(plan.find(slot), nullptr);
    EXPECT_FALSE(plan.find(slot)->agreed);
    EXPECT_EQ(plan.senders_of(*plan.find(slot)).size(), 3u);
  }
  EXPECT_EQ(plan.find(5)->expected, digest_of(5, 5000));
  EXPECT_EQ(plan.bytes_of(*plan.find(5)), wire_bytes_of(digest_of(5, 5000)));
}

TEST(Planner, TombstonesAloneAreSent) {
  Cluster cluster(3, 1);
  cluster.target_all();
  SlotDigest tombstones;
  tombstones.tombstones = 2;
  tombstones.sum = {1, 1};
  cluster.publish(0, tombstones);
  cluster.publish(1, SlotDigest{});
  const Plan plan = make(cluster.input);
  ASSERT_EQ(plan.slots.size(), 1u);
  EXPECT_GT(plan.total_bytes(), 0u);
}

TEST(Planner, TooFewDigestsNameSlotsAndNodes) {
  Cluster cluster(5, 6);
  cluster.target_all();
  for (uint32_t slot = 0; slot < 64; ++slot) cluster.publish(slot, digest_of(slot, 1000));
  // n1 and n2 published nothing.
  std::erase_if(cluster.input.published, [](const PublishedDigest& p) { return p.node < 2; });
  const absl::Status status = make_plan(cluster.input).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  uint32_t expected = 0;
  for (uint32_t slot = 0; slot < 64; ++slot) {
    if (cluster.table.holds(slot, 0) && cluster.table.holds(slot, 1)) ++expected;
  }
  ASSERT_GT(expected, 10u);
  EXPECT_EQ(message_of(status).find(std::to_string(expected) + " slots"), 0u) << status;
  EXPECT_NE(message_of(status).find("n1, n2"), std::string_view::npos) << status;
  EXPECT_NE(message_of(status).find(", ...;"), std::string_view::npos) << status;
  // One of them alone is no harm.
  Cluster other(5, 6);
  other.target_all();
  for (uint32_t slot = 0; slot < 64; ++slot) other.publish(slot, digest_of(slot, 1000));
  std::erase_if(other.input.published, [](const PublishedDigest& p) { return p.node == 0; });
  EXPECT_EQ(make(other.input).slots_agreed, 64u);
}

TEST(Planner, RefusesBrokenInput) {
  Cluster cluster(3, 1);
  cluster.publish(0, digest_of(1, 1));
  cluster.publish(1, digest_of(1, 1));
  EXPECT_TRUE(absl::IsInvalidArgument(make_plan(cluster.input).status()));  // no target
  cluster.target_all();
  EXPECT_TRUE(make_plan(cluster.input).ok());
  PlanInput twice = cluster.input;
  twice.published.push_back(twice.published[0]);
  EXPECT_TRUE(absl::IsInvalidArgument(make_plan(twice).status()));
  PlanInput slot = cluster.input;
  slot.published[0].slot = 2;
  EXPECT_TRUE(absl::IsInvalidArgument(make_plan(slot).status()));
  PlanInput node = cluster.input;
  node.published[0].node = 3;
  EXPECT_TRUE(absl::IsInvalidArgument(make_plan(node).status()));
  PlanInput target = cluster.input;
  target.targets.push_back({0, 1});
  EXPECT_TRUE(absl::IsInvalidArgument(make_plan(target).status()));
  PlanInput weight = cluster.input;
  weight.targets[0].weight = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(make_plan(weight).status()));
  PlanInput rate = cluster.input;
  rate.nodes[0].send_rate = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(make_plan(rate).status()));
}

TEST(Planner, TargetsShareBytesByWeight) {
  Random random(3);
  Cluster cluster(6, 10);
  fill_random(cluster, random, 0.05);
  cluster.input.targets = {{0, 1}, {2, 2}, {5, 5}};
  const Plan plan = make(cluster.input);
  expect_sound(plan);
  const auto total = static_cast<double>(plan.total_bytes());
  EXPECT_NEAR(static_cast<double>(plan.loads[0].receive_bytes), total / 8, 2e6);
  EXPECT_NEAR(static_cast<double>(plan.loads[2].receive_bytes), total * 2 / 8, 2e6);
  EXPECT_NEAR(static_cast<double>(plan.loads[5].receive_bytes), total * 5 / 8, 2e6);
  EXPECT_EQ(plan.loads[1].receive_bytes, 0u);
}

TEST(Planner, SameInputSamePlan) {
  Random random(4);
  Cluster cluster(7, 8);
  fill_random(cluster, random, 0.1);
  cluster.target_all();
  const Plan plan = make(cluster.input);
  Random order(5);
  order.shuffle(cluster.input.published);
  EXPECT_EQ(make(cluster.input), plan);
}

TEST(Planner, MakespanIsNearItsBound) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    Cluster cluster(4 + static_cast<uint32_t>(random.below(30)), 12);
    fill_random(cluster, random, seed % 3 == 0 ? 0.02 : 0);
    for (PlanNode& node : cluster.input.nodes) {
      node.send_rate = 1e6 * (1 + 4 * random.unit());
      node.receive_rate = node.send_rate;
    }
    for (uint32_t n = 0; n < cluster.input.nodes.size(); ++n) {
      cluster.input.targets.push_back({n, cluster.input.nodes[n].receive_rate});
    }
    const Plan plan = make(cluster.input);
    expect_sound(plan);
    EXPECT_LE(plan.makespan_s, 1.02 * plan.lower_bound_s);
  }
}

// The best finish time of sending alone, over all choices of senders.
double best_send_makespan(const Plan& plan) {
  std::vector<double> ends(plan.nodes.size());
  double best = 1e300;
  const std::function<void(size_t)> choose = [&](size_t i) {
    if (*std::max_element(ends.begin(), ends.end()) >= best) return;
    if (i == plan.slots.size()) {
      best = *std::max_element(ends.begin(), ends.end());
      return;
    }
    const SlotPlan& slot = plan.slots[i];
    for (const PlanCopy& held : plan.copies_of(slot)) {
      const double time = static_cast<double>(held.bytes) / plan.nodes[held.node].send_rate;
      ends[held.node] += time;
      if (!slot.agreed) continue;
      choose(i + 1);
      ends[held.node] -= time;
    }
    if (slot.agreed) return;
    choose(i + 1);
    for (const PlanCopy& held : plan.copies_of(slot)) {
      ends[held.node] -= static_cast<double>(held.bytes) / plan.nodes[held.node].send_rate;
    }
  };
  choose(0);
  return best;
}

TEST(Planner, TinyInstancesAreNearTheOptimum) {
  double worst = 1;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    Cluster cluster(3 + static_cast<uint32_t>(random.below(3)), 3,
                    2 + static_cast<uint32_t>(random.below(2)));
    fill_random(cluster, random, 0.1);
    for (PlanNode& node : cluster.input.nodes) {
      node.send_rate = 1e6 * (1 + random.unit());
      node.receive_rate = 1e9;
    }
    cluster.target_all();
    const Plan plan = make(cluster.input);
    expect_sound(plan);
    const double best = best_send_makespan(plan);
    EXPECT_GE(plan.makespan_s, best * (1 - 1e-9));
    EXPECT_LE(plan.lower_bound_s, best * (1 + 1e-9));
    EXPECT_LE(plan.makespan_s, 1.5 * best);
    worst = std::max(worst, plan.makespan_s / best);
  }
  std::printf("worst makespan over optimum: %.3f\n", worst);
}

TEST(Planner, TheTargetSendsToItselfWhereThatCostsNoTime) {
  Random random(6);
  Cluster cluster(6, 10);
  fill_random(cluster, random, 0);
  cluster.target_all();
  const Plan plan = make(cluster.input);
  uint64_t local = 0;
  for (const NodeLoad& load : plan.loads) local += load.local_bytes;
  EXPECT_GT(local, plan.total_bytes() / 2);
  EXPECT_LE(plan.makespan_s, 1.02 * plan.lower_bound_s);
  // A target that is slow at sending leaves it to others.
  cluster.input.targets = {{0, 1}};
  cluster.input.nodes[0].send_rate = 1;
  EXPECT_EQ(make(cluster.input).loads[0].send_bytes, 0u);
}

TEST(Fans, AreKeptNearTheBoundOfTheMakespan) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    UnequalCluster cluster(100 + static_cast<uint32_t>(random.below(500)), 14,
                           1 + 7 * random.unit(), random);
    const bool divergent = seed % 2 == 0;
    fill_random(cluster, random, divergent ? 0.03 : 0);
    // Agreed slots alone need few peers.
    cluster.input.fan = divergent ? kPlanFan : 4;
    cluster.target_some(static_cast<uint32_t>(cluster.input.nodes.size()));
    const Plan plan = make(cluster.input);
    expect_sound(plan);
    const Peers peers(plan);
    EXPECT_EQ(plan.largest_fan_in, peers.fan_in);
    EXPECT_EQ(plan.largest_fan_out, peers.fan_out);
    EXPECT_LE(std::max(peers.fan_in, peers.fan_out), plan.fan);
    EXPECT_LE(plan.makespan_s, 1.03 * plan.lower_bound_s);
    // Without the bound there are more.
    cluster.input.fan = 0;
    const Plan unbounded = make(cluster.input);
    EXPECT_GT(std::max(unbounded.largest_fan_in, unbounded.largest_fan_out), plan.fan);
    EXPECT_EQ(unbounded.slots_divergent, plan.slots_divergent);
  }
}

TEST(Fans, ManySlotsComeWithinAHundredthOfTheBound) {
  Random random(12);
  UnequalCluster cluster(300, 16, 8, random);
  fill_random(cluster, random, 0.005);
  cluster.target_some(300);
  const Plan plan = make(cluster.input);
  expect_sound(plan);
  const Peers peers(plan);
  EXPECT_LE(std::max(peers.fan_in, peers.fan_out), kPlanFan);
  EXPECT_LE(plan.makespan_s, 1.01 * plan.lower_bound_s);
}

TEST(Fans, FewTargetsHearTheirShareOfTheSources) {
  for (const uint32_t targets : {2u, 5u, 20u}) {
    SCOPED_TRACE(targets);
    Random random(targets);
    UnequalCluster cluster(200, 12, 4, random);
    fill_random(cluster, random, 0);
    cluster.target_some(targets);
    const Plan plan = make(cluster.input);
    expect_sound(plan);
    const Peers peers(plan);
    EXPECT_LE(peers.fan_in, fan_in_bound(200, targets, kPlanFan));
    EXPECT_LE(peers.fan_out, kPlanFan);
    EXPECT_LE(plan.makespan_s, 1.01 * plan.lower_bound_s);
  }
  EXPECT_EQ(fan_in_bound(200, 2, 16), 99u);
  EXPECT_EQ(fan_in_bound(200, 200, 16), 16u);
  EXPECT_EQ(fan_in_bound(200, 2, 0), 0u);
}

// Every node has divergent slots of many others: all replicas send these, whatever the bound. What
// they make necessary is told, and agreed slots add little to it.
TEST(Fans, WhatDivergentSlotsNeedIsTold) {
  Random random(5);
  UnequalCluster cluster(60, 12, 2, random);
  fill_random(cluster, random, 0.5);
  cluster.target_some(60);
  const Plan plan = make(cluster.input);
  expect_sound(plan);
  const Peers peers(plan);
  EXPECT_GT(peers.fan_in, kPlanFan);
  EXPECT_EQ(plan.largest_fan_in, peers.fan_in);
  EXPECT_EQ(plan.largest_fan_out, peers.fan_out);
}

// Five nodes cannot have more than four peers: nothing is given up for the bound.
TEST(Fans, AreNoMatterInSmallClusters) {
  Random random(8);
  Cluster cluster(5, 10);
  fill_random(cluster, random, 0.05);
  cluster.target_all();
  Plan plan = make(cluster.input);
  cluster.input.fan = 0;
  Plan unbounded = make(cluster.input);
  EXPECT_LE(plan.largest_fan_out, 4u);
  unbounded.fan = plan.fan;
  EXPECT_EQ(plan, unbounded);
  EXPECT_EQ(choices_of(plan), 17368613231874415904u);
}

TEST(Fans, AreTheSameOnEveryMachine) {
  Random random(9);
  UnequalCluster cluster(120, 12, 8, random);
  fill_random(cluster, random, 0.05);
  cluster.target_some(120);
  const Plan plan = make(cluster.input);
  EXPECT_EQ(choices_of(plan), 12149247248772299305u);
  cluster.input.fan = 0;
  EXPECT_GT(make(cluster.input).largest_fan_in, kPlanFan);
}

TEST(Planner, AMillionSlots) {
  Random random(9);
  Cluster cluster(50, 20);
  fill_random(cluster, random, 0.001);
  cluster.target_all();
  const auto start = std::chrono::steady_clock::now();
  const Plan plan = make(cluster.input);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%zu slots planned in %.2f s\n", plan.slots.size(), seconds);
  EXPECT_EQ(plan.slots.size(), size_t{1} << 20);
  EXPECT_LE(plan.makespan_s, 1.01 * plan.lower_bound_s);
  EXPECT_LT(seconds, 60);
}

}  // namespace
}  // namespace sluice
