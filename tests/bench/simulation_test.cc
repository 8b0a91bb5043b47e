// The simulation of a whole backup, in a cluster of 200 nodes: whatever is slow or dies, each slot
// is durable at exactly one target in the end.
#include "bench/simulation/simulation.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

SimulationSettings some_cluster() {
  SimulationSettings settings;
  settings.cluster.nodes = 200;
  settings.cluster.racks = 20;
  settings.cluster.slot_bits = 15;
  settings.cluster.largest_slot = 5'000'000'000;
  settings.cluster.divergent = 0.001;
  settings.cluster.spread = 2;
  return settings;
}

SimulationResult result_of(const SimulationSettings& settings) {
  const auto result = simulate(settings);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : SimulationResult{};
}

TEST(Simulation, EndsNearTheIdealWithSlowAndDeadNodes) {
  SimulationSettings settings = some_cluster();
  const SimulationResult result = result_of(settings);
  EXPECT_EQ(result.slow, 10u);
  EXPECT_EQ(result.dead, 2u);
  EXPECT_EQ(result.lost, 0u);
  EXPECT_GE(result.rebalances, 1u);
  EXPECT_GE(result.rest_s, result.ideal_rest_s);
  EXPECT_LE(result.rest_s, 1.1 * result.ideal_rest_s);
  // All that was sent in vain is accounted for.
  const uint64_t in_vain =
      result.given_up_bytes + result.lost_with_targets_bytes + result.given_up_durable_bytes;
  EXPECT_NEAR(static_cast<double>(result.sent_twice_bytes), static_cast<double>(in_vain),
              0.02 * static_cast<double>(in_vain));
  settings.rebalances = false;
  const SimulationResult fixed = result_of(settings);
  EXPECT_EQ(fixed.lost, 0u);
  EXPECT_EQ(fixed.rebalances, 0u);
  EXPECT_GT(fixed.seconds, 2 * result.seconds);
}

TEST(Simulation, TakesThePromisedTimeWhenAllKeepIt) {
  SimulationSettings settings = some_cluster();
  settings.slow_share = 0;
  settings.dead_share = 0;
  const SimulationResult result = result_of(settings);
  EXPECT_EQ(result.lost, 0u);
  EXPECT_EQ(result.rebalances, 0u);
  EXPECT_NEAR(result.seconds, result.planned_s, 0.05 * result.planned_s);
}

TEST(Simulation, ALostRackIsTakenOver) {
  SimulationSettings settings = some_cluster();
  settings.lose_rack = true;
  const SimulationResult result = result_of(settings);
  EXPECT_EQ(result.dead, 10u);
  EXPECT_EQ(result.lost, 0u);
  EXPECT_GT(result.lost_with_targets_bytes, 0u);
  EXPECT_GE(result.sent_twice_bytes, result.lost_with_targets_bytes);
}

TEST(Simulation, TheSameSettingsGiveTheSameRun) {
  const SimulationResult once = result_of(some_cluster());
  const SimulationResult again = result_of(some_cluster());
  EXPECT_EQ(once.seconds, again.seconds);
  EXPECT_EQ(once.sent_twice_bytes, again.sent_twice_bytes);
  EXPECT_EQ(once.done, again.done);
}

}  // namespace
}  // namespace sluice
