#include "control/records/cluster_clock.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice {
namespace {

constexpr int64_t kStart = 1'700'000'000'000;
constexpr int64_t kDay = 24 * 3600 * int64_t{1000};

TEST(ClusterClock, FollowsAMachineThatAgreesWithTheOthers) {
  ManualClock machine(kStart);
  ClusterClock clock(machine, 2000);
  EXPECT_EQ(clock.wall_ms(), kStart);
  machine.advance_ns(5'000'000'000);
  EXPECT_EQ(clock.wall_ms(), kStart + 5000);
  EXPECT_TRUE(clock.set_measured(-1200, 0));
  EXPECT_EQ(clock.wall_ms(), kStart + 5000);
  machine.set_wall_ms(kStart + 6000);  // as a time service does
  EXPECT_EQ(clock.wall_ms(), kStart + 6000);
}

TEST(ClusterClock, TakesTheOthersTimeWhereTheMachineIsFarOff) {
  ManualClock machine(kStart + 8 * 3600 * 1000);
  ClusterClock clock(machine, 2000);
  EXPECT_TRUE(clock.set_measured(-8 * 3600 * 1000, 0));
  EXPECT_EQ(clock.wall_ms(), kStart);
  machine.advance_ns(7'000'000);
  EXPECT_EQ(clock.wall_ms(), kStart + 7);
  EXPECT_EQ(clock.read().machine_ms, kStart + 8 * 3600 * 1000 + 7);
  // Corrected: the others are the machine's again.
  machine.set_wall_ms(kStart + 10);
  EXPECT_TRUE(clock.set_measured(0, clock.read().steps));
  EXPECT_EQ(clock.wall_ms(), kStart + 10);
}

TEST(ClusterClock, StepsAreNotFollowedBeforeTheyWereMeasured) {
  ManualClock machine(kStart);
  ClusterClock clock(machine, 2000);
  for (const int64_t step : {kDay, -kDay, -3 * kDay, 4 * kDay, kDay}) {
    machine.set_wall_ms(machine.wall_ms() + step);
    machine.advance_ns(1'000'000);
    const int64_t before = kStart + machine.monotonic_ms();
    EXPECT_EQ(clock.wall_ms(), before);
  }
  EXPECT_EQ(clock.read().steps, 5u);
  // A measurement from before a step says nothing of it.
  EXPECT_FALSE(clock.set_measured(0, 4));
  EXPECT_EQ(clock.wall_ms(), kStart + 5);
  // All machines stepped alike: so did the time.
  EXPECT_TRUE(clock.set_measured(0, 5));
  EXPECT_EQ(clock.wall_ms(), machine.wall_ms());
}

TEST(ClusterClock, TheMedianIsOfAllClocksAndTheLowerOneOfTwo) {
  EXPECT_EQ(median_ahead_ms({}), 0);
  EXPECT_EQ(median_ahead_ms(std::vector<int64_t>{-kDay, -kDay}), -kDay);
  EXPECT_EQ(median_ahead_ms(std::vector<int64_t>{5, kDay}), 5);
  EXPECT_EQ(median_ahead_ms(std::vector<int64_t>{kDay}), 0);
  EXPECT_EQ(median_ahead_ms(std::vector<int64_t>{-kDay}), -kDay);
  EXPECT_EQ(median_ahead_ms(std::vector<int64_t>{1, 2, kDay, -kDay}), 1);
}

}  // namespace
}  // namespace sluice
