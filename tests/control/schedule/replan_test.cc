#include "control/schedule/replan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/random.h"
#include "base/status.h"
#include "control/schedule/rebalance_policy.h"
#include "tests/control/schedule/plan_cluster.h"

namespace sluice {
namespace {

TEST(Replan, NothingChangesWithoutDeaths) {
  Random random(7);
  Cluster cluster(6, 8);
  fill_random(cluster, random, 0.1);
  cluster.target_all();
  const Plan plan = make(cluster.input);
  const auto again = replan(plan, {}, {}, cluster.input.targets, cluster.input.quorum);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->changed.empty());
  EXPECT_EQ(again->plan, plan);
}

TEST(Replan, ADeadNodesPartMovesAndNothingElse) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    Cluster cluster(6, 8);
    fill_random(cluster, random, 0.1);
    cluster.target_all();
    const Plan plan = make(cluster.input);
    std::vector<uint8_t> done(plan.slots.size());
    for (uint8_t& is_done : done) is_done = random.chance(0.4);
    const uint32_t dead = static_cast<uint32_t>(random.below(6));
    const auto next = replan(plan, done, std::vector<uint32_t>{dead}, cluster.input.targets,
                             cluster.input.quorum);
    ASSERT_TRUE(next.ok()) << next.status();
    ASSERT_EQ(next->plan.slots.size(), plan.slots.size());
    EXPECT_EQ(next->plan.loads[dead], NodeLoad{});
    std::vector<uint32_t> changed;
    for (uint32_t i = 0; i < plan.slots.size(); ++i) {
      const SlotPlan& before = plan.slots[i];
      const SlotPlan& after = next->plan.slots[i];
      EXPECT_EQ(after.expected, before.expected);
      const auto senders = plan.senders_of(before);
      const bool sent_by_dead = std::any_of(senders.begin(), senders.end(),
                                            [&](const PlanCopy& c) { return c.node == dead; });
      const bool affected = before.target == dead || sent_by_dead;
      if (affected) changed.push_back(i);
      if (!affected) {
        EXPECT_EQ(after.target, before.target);
        continue;
      }
      EXPECT_NE(after.target, dead);
      for (const PlanCopy& sent : next->plan.senders_of(after)) EXPECT_NE(sent.node, dead);
      if (before.target != dead) {
        EXPECT_EQ(after.target, before.target);
      }
    }
    EXPECT_EQ(next->changed, changed);
  }
}

TEST(Replan, FailsWhenTooLittleIsLeft) {
  Cluster cluster(4, 4);
  for (uint32_t slot = 0; slot < 16; ++slot) cluster.publish(slot, digest_of(slot, 1000));
  cluster.of(5, 0).digest = digest_of(77, 1000);
  cluster.input.targets = {{0, 1}, {1, 1}};
  const Plan plan = make(cluster.input);
  const auto dead = [](std::vector<uint32_t> nodes) { return nodes; };
  const auto& targets = cluster.input.targets;
  EXPECT_TRUE(absl::IsFailedPrecondition(replan(plan, {}, dead({0, 1}), targets, 2).status()));
  // The divergent slot loses two of its three replicas; agreed ones go on with one.
  std::vector<uint32_t> two;
  for (const uint16_t member : cluster.table.replicas_of(5)) {
    if (two.size() < 2) two.push_back(member);
  }
  const absl::Status status =
      replan(plan, {}, two, std::vector<PlanTarget>{{0, 1}, {1, 1}, {2, 1}, {3, 1}}, 2).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ(message_of(status).find("1 slots"), 0u) << status;
  EXPECT_NE(message_of(status).find(": 5;"), std::string_view::npos) << status;
  EXPECT_TRUE(absl::IsInvalidArgument(replan(plan, {}, dead({9}), targets, 2).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(replan(plan, std::vector<uint8_t>(3), {}, targets, 2).status()));
}

TEST(Replan, KeepsTheBoundOfPeers) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    UnequalCluster cluster(200, 13, 8, random);
    fill_random(cluster, random, 0.01);
    cluster.input.fan = 8;
    cluster.target_some(200);
    const Plan plan = make(cluster.input);
    std::vector<uint8_t> done(plan.slots.size());
    for (uint8_t& is_done : done) is_done = random.chance(0.4);
    // Of one rack, so that each slot keeps a quorum.
    const std::vector<uint32_t> dead{0, 10, 20, 30};
    const auto next = replan(plan, done, dead, cluster.input.targets, cluster.input.quorum);
    ASSERT_TRUE(next.ok()) << next.status();
    std::vector<uint8_t> still_done = done;
    for (size_t i = 0; i < done.size(); ++i) {
      if (std::find(dead.begin(), dead.end(), plan.slots[i].target) != dead.end())
        still_done[i] = 0;
    }
    const Peers peers(next->plan, still_done);
    EXPECT_LE(std::max(peers.fan_in, peers.fan_out), 8u);
    EXPECT_EQ(next->plan.largest_fan_in, peers.fan_in);
  }
}

// What each node has sent, or received, after so many seconds at its pace: its slots one after the
// other, in an order of its own.
struct Motion {
  const Plan& plan;
  std::vector<double> send_rates;
  std::vector<double> receive_rates;

  explicit Motion(const Plan& planned) : plan(planned) {
    for (const PlanNode& node : plan.nodes) {
      send_rates.push_back(node.send_rate);
      receive_rates.push_back(node.receive_rate);
    }
  }
  std::vector<uint8_t> done_after(double seconds, const std::vector<uint8_t>& before = {}) const {
    std::vector<double> sent(plan.nodes.size()), received(plan.nodes.size());
    std::vector<uint8_t> done(plan.slots.size());
    for (size_t i = 0; i < plan.slots.size(); ++i) {
      const SlotPlan& slot = plan.slots[i];
      done[i] = before.empty() ? 0 : before[i];
      if (done[i] != 0) continue;
      double end = 0;
      for (const PlanCopy& copy : plan.senders_of(slot)) {
        sent[copy.node] += static_cast<double>(copy.bytes);
        received[slot.target] += static_cast<double>(copy.bytes);
        end = std::max(end, sent[copy.node] / send_rates[copy.node]);
      }
      end = std::max(end, received[slot.target] / receive_rates[slot.target]);
      done[i] = end <= seconds;
    }
    return done;
  }
};

struct RebalanceTest : ::testing::Test {
  Random random{21};
  Cluster cluster{8, 10};
  Plan plan;
  void SetUp() override {
    fill_random(cluster, random, 0.02);
    cluster.target_all();
    plan = make(cluster.input);
  }
  absl::StatusOr<Rebalance> rebalance_after(const Motion& run, double seconds,
                                            std::vector<uint32_t> dead = {}) {
    done = run.done_after(seconds);
    return rebalance(plan, {{}, done, seconds}, dead, cluster.input.targets, cluster.input.quorum);
  }
  std::vector<uint8_t> done;
};

// Everything at the plan's pace: nobody is slow, and nothing durable is touched.
TEST_F(RebalanceTest, FindsNobodySlowWhenAllKeepThePace) {
  const auto next = rebalance_after(Motion(plan), plan.makespan_s * 0.4);
  ASSERT_TRUE(next.ok()) << next.status();
  RebalancePolicy policy({});
  policy.begin(0);
  EXPECT_FALSE(policy.accept(*next, plan.makespan_s * 0.4));
  for (const NodePace& pace : paces_of(plan, {{}, done, plan.makespan_s * 0.4})) {
    EXPECT_FALSE(pace.is_slow_sender || pace.is_slow_receiver);
  }
  // All at half the pace is no reason either.
  Motion half(plan);
  for (double& rate : half.send_rates) rate /= 2;
  for (double& rate : half.receive_rates) rate /= 2;
  const auto slow_all = rebalance_after(half, plan.makespan_s * 0.8);
  ASSERT_TRUE(slow_all.ok());
  EXPECT_FALSE(policy.accept(*slow_all, plan.makespan_s * 0.8));
}

TEST_F(RebalanceTest, AgreedSlotsOfASlowSourceGoToOtherReplicas) {
  Motion run(plan);
  run.send_rates[3] /= 4;
  const double seconds = plan.makespan_s * 0.5;
  const auto next = rebalance_after(run, seconds);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_TRUE(std::count(next->late.begin(), next->late.end(), 3u));
  EXPECT_LT(next->replan.plan.makespan_s, 0.7 * next->seconds_as_planned);
  RebalancePolicy policy({});
  policy.begin(0);
  EXPECT_TRUE(policy.accept(*next, seconds));
  uint64_t before = 0;
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    const SlotPlan& old_slot = plan.slots[i];
    const SlotPlan& slot = next->replan.plan.slots[i];
    EXPECT_EQ(slot.slot, old_slot.slot);
    EXPECT_EQ(slot.expected, old_slot.expected);
    if (done[i] != 0) {
      EXPECT_EQ(slot.target, old_slot.target) << "durable, and sent again";
      continue;
    }
    for (const PlanCopy& copy : plan.senders_of(old_slot))
      before += copy.node == 3 ? copy.bytes : 0;
    if (!slot.agreed) {
      EXPECT_EQ(next->replan.plan.senders_of(slot).size(), 3u);
    }
  }
  EXPECT_LT(next->replan.plan.loads[3].send_bytes, before / 2);
}

TEST_F(RebalanceTest, SlotsOfASlowTargetGoToOthersUnlessTheyAreDurable) {
  Motion run(plan);
  run.receive_rates[5] /= 8;
  const auto next = rebalance_after(run, plan.makespan_s * 0.5);
  ASSERT_TRUE(next.ok()) << next.status();
  ASSERT_FALSE(next->late.empty());
  EXPECT_TRUE(std::count(next->late.begin(), next->late.end(), 5u));
  uint64_t left = 0;
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    const SlotPlan& slot = next->replan.plan.slots[i];
    if (done[i] != 0) {
      EXPECT_EQ(slot.target, plan.slots[i].target) << "durable, and sent again";
    } else if (plan.slots[i].target == 5) {
      left += plan.bytes_of(plan.slots[i]);
    }
  }
  EXPECT_LT(next->replan.plan.loads[5].receive_bytes, left / 2);
  EXPECT_LT(next->replan.plan.makespan_s, 0.7 * next->seconds_as_planned);
}

// Its peers wait for it: they do not count as slow.
TEST_F(RebalanceTest, WhoWaitsForASlowNodeIsNotSlow) {
  Random more(4);
  UnequalCluster wide(60, 12, 4, more);
  fill_random(wide, more, 0.3);
  wide.target_some(60);
  const Plan planned = make(wide.input);
  Motion run(planned);
  run.send_rates[7] /= 5;
  run.receive_rates[7] /= 5;
  const double seconds = planned.makespan_s * 0.5;
  const auto so_far = run.done_after(seconds);
  const auto paces = paces_of(planned, {{}, so_far, seconds});
  EXPECT_TRUE(paces[7].is_slow_sender);
  EXPECT_TRUE(paces[7].is_slow_receiver);
  // Nearly all of the 59 others have slots that wait for it.
  const auto slow = std::count_if(paces.begin(), paces.end(), [](const NodePace& pace) {
    return pace.is_slow_sender || pace.is_slow_receiver;
  });
  EXPECT_LE(slow, 3);
  EXPECT_LT(paces[7].send_rate, planned.nodes[7].send_rate / 2);
}

TEST_F(RebalanceTest, MindsTheDeadAsWell) {
  Motion run(plan);
  run.send_rates[3] /= 4;
  const auto next = rebalance_after(run, plan.makespan_s * 0.5, {6});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->replan.plan.loads[6], NodeLoad{});
  for (const SlotPlan& slot : next->replan.plan.slots) EXPECT_NE(slot.target, 6u);
  EXPECT_TRUE(std::count(next->late.begin(), next->late.end(), 3u));
}

// Rebalanced again and again while the run goes on: each slot is done once, and it ends earlier.
TEST_F(RebalanceTest, EndsEarlierAndDoesNothingTwice) {
  const auto end_of = [&](bool rebalances) {
    Plan now = plan;
    std::vector<uint8_t> before(plan.slots.size());
    std::vector<int> times(plan.slots.size());
    double clock = 0;
    for (int step = 0; step < 200; ++step) {
      Motion run(now);
      for (uint32_t n = 0; n < 8; ++n) {
        run.send_rates[n] = run.receive_rates[n] = n == 2 ? 0.2e6 : 1e6;
      }
      const double seconds = plan.makespan_s * 0.3;
      const auto after = run.done_after(seconds, before);
      for (size_t i = 0; i < after.size(); ++i) times[i] += after[i] != before[i] ? 1 : 0;
      clock += seconds;
      if (std::all_of(after.begin(), after.end(), [](uint8_t d) { return d != 0; })) break;
      if (rebalances) {
        auto next = rebalance(now, {before, after, seconds}, {}, cluster.input.targets,
                              cluster.input.quorum);
        EXPECT_TRUE(next.ok()) << next.status();
        for (size_t i = 0; i < after.size(); ++i) {
          if (after[i] != 0) {
            EXPECT_EQ(next->replan.plan.slots[i].target, now.slots[i].target);
          }
        }
        now = std::move(next->replan.plan);
      }
      before = after;
    }
    for (const int count : times) EXPECT_EQ(count, 1);
    return clock;
  };
  EXPECT_LT(end_of(true), 0.6 * end_of(false));
}

TEST(RebalancePolicy, LooksSeldomAndBoundsNewPlans) {
  RebalancePolicy policy({.most = 1, .after_s = 10, .first_share = 0.2, .again = 1.5});
  EXPECT_FALSE(policy.is_due(100, 1)) << "no plan is followed yet";
  policy.begin(100);
  EXPECT_FALSE(policy.is_due(109, 0.9));
  EXPECT_FALSE(policy.is_due(120, 0.1));
  EXPECT_TRUE(policy.is_due(120, 0.3));
  EXPECT_FALSE(policy.is_due(129, 0.4));
  EXPECT_TRUE(policy.is_due(130, 0.4));
  Rebalance better;
  better.late = {1};
  better.seconds_as_planned = 100;
  better.replan.plan.makespan_s = 90;
  EXPECT_FALSE(policy.accept(better, 130)) << "the gain is too small";
  better.replan.plan.makespan_s = 60;
  EXPECT_FALSE(policy.accept(better, 1000)) << "it is too small beside the time that has passed";
  EXPECT_TRUE(policy.accept(better, 130));
  policy.begin(131);
  EXPECT_FALSE(policy.is_due(1000, 0.9)) << "there was one already";
}

}  // namespace
}  // namespace sluice
