// Whole clusters under faults: scenarios that are the same in each run (simulate runs new ones).
#include "tests/simulation/world/scenario.h"

#include <gtest/gtest.h>

#include "tests/simulation/simulation.h"
#include "tests/simulation/world/scenario_run.h"

namespace sluice::simulation {
namespace {

constexpr uint64_t kFixedSeeds = 50;

void expect_passes(uint64_t seed) {
  const Scenario scenario = make_scenario(seed);
  const Result result = run_scenario(scenario);
  EXPECT_TRUE(result.passed()) << describe(scenario) << result.failure << "\nsimulate --replay "
                               << seed << " --trace";
}

TEST(Scenario, PromisesHoldForFixedSeeds) {
  for (uint64_t seed = 1; seed <= kFixedSeeds; ++seed) expect_passes(seed);
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
