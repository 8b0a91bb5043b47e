// Whole clusters under faults: scenarios that are the same in each run, and some of the day
// (simulate runs more).
#include "tests/simulation/world/scenario.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tests/simulation/simulation.h"
#include "tests/simulation/world/scenario_run.h"

namespace sluice::simulation {
namespace {

constexpr uint64_t kFixedSeeds = 50;
constexpr uint64_t kSeedsOfADay = 200;

void expect_passes(uint64_t seed) {
  const Scenario scenario = make_scenario(seed);
  const Result result = run_scenario(scenario);
  EXPECT_TRUE(result.passed()) << describe(scenario) << result.failure << "\nsimulate --replay "
                               << seed << " --trace";
}

TEST(Scenario, PromisesHoldForFixedSeeds) {
  for (uint64_t seed = 1; seed <= kFixedSeeds; ++seed) expect_passes(seed);
}

// Others each day, so that what nobody thought of is found. A failure names its seed.
TEST(Scenario, PromisesHoldForTheSeedsOfTheDay) {
  const auto today = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now());
  const auto day = static_cast<uint64_t>(today.time_since_epoch().count());
  const uint64_t first = day * 1'000;
  for (uint64_t seed = first; seed < first + kSeedsOfADay; ++seed) expect_passes(seed);
}

// Whether it is printed or not.
TEST(Scenario, ASeedIsTheSameRunAgain) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Scenario scenario = make_scenario(seed);
    const Result first = run_scenario(scenario);
    const Result second = run_scenario(scenario);
    EXPECT_EQ(first.trace_hash, second.trace_hash) << seed;
    EXPECT_EQ(first.steps, second.steps) << seed;
  }
}

}  // namespace
}  // namespace sluice::simulation
