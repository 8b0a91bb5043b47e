// What is left of a scenario that fails is small, fails alike, and can be written down.
#include "tests/simulation/world/shrink.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/simulation/world/scenario_run.h"
#include "tests/simulation/world/scenario_text.h"

namespace sluice::simulation {
namespace {

constexpr size_t kRuns = 2000;

Result failing(const std::string& failure, uint64_t steps = 1'000'000) {
  Result result;
  result.end = Result::End::kFailed;
  result.failure = failure;
  result.steps = steps;
  return result;
}

std::vector<OpKind> kinds_of(const Scenario& scenario) {
  std::vector<OpKind> kinds;
  for (const Op& op : scenario.ops) kinds.push_back(op.kind);
  return kinds;
}

// A scenario with at least one of each of these.
Scenario scenario_with(const std::vector<OpKind>& wanted) {
  for (uint64_t seed = 1;; ++seed) {
    Scenario scenario = make_scenario(seed);
    const std::vector<OpKind> kinds = kinds_of(scenario);
    if (std::all_of(wanted.begin(), wanted.end(), [&](OpKind kind) {
          return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
        })) {
      return scenario;
    }
  }
}

TEST(Shrink, LeavesWhatAFailureNeedsAndNothingElse) {
  const std::vector<OpKind> needed = {OpKind::kCrash, OpKind::kVerify};
  Scenario scenario = scenario_with(needed);
  scenario.calls.lost = scenario.block.fails = 0.01;
  const auto run = [&](const Scenario& smaller) {
    const std::vector<OpKind> kinds = kinds_of(smaller);
    for (const OpKind kind : needed) {
      // Another failure, which is not to be mistaken for this one.
      if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) return failing("I9: other");
    }
    const bool preempted = smaller.preempted_steps >= 777;
    return smaller.calls.lost > 0 && preempted ? failing("I1: this") : Result();
  };
  const Shrunk shrunk = shrink(scenario, run(scenario), run, kRuns);
  std::vector<OpKind> kinds = kinds_of(shrunk.scenario);
  std::sort(kinds.begin(), kinds.end());
  EXPECT_EQ(kinds, needed);
  EXPECT_EQ(shrunk.scenario.calls.lost, 0.01);
  EXPECT_EQ(shrunk.scenario.block.fails, 0);
  EXPECT_EQ(shrunk.scenario.shape.nodes, 1u);
  EXPECT_EQ(shrunk.scenario.shape.replicas, 1u);
  EXPECT_EQ(shrunk.scenario.writers, 1u);
  EXPECT_EQ(shrunk.scenario.keys, 1u);
  EXPECT_EQ(shrunk.scenario.preempted_steps, 777u);
  EXPECT_EQ(shrunk.result.failure, "I1: this");
  EXPECT_LT(shrunk.runs, kRuns);
}

TEST(Shrink, EndsWithItsRuns) {
  const Scenario scenario = scenario_with({OpKind::kCrash});
  size_t runs = 0;
  const auto run = [&](const Scenario&) {
    ++runs;
    return failing("I1: always");
  };
  EXPECT_EQ(shrink(scenario, failing("I1: always"), run, 5).runs, 5u);
  EXPECT_EQ(runs, 5u);
}

// Of runs of clusters: what fails again from the text fails alike.
TEST(Shrink, FindsTheOneOperationThatBreaksAPromise) {
  const OpHook breaks = [](const Op& op) {
    if (op.kind == OpKind::kPowerLoss) fail("I1: planted");
  };
  const auto run = [&](const Scenario& smaller) { return run_scenario(smaller, false, breaks); };
  Scenario scenario = scenario_with({OpKind::kPowerLoss, OpKind::kPause});
  // Where it is certain to happen.
  for (Op& op : scenario.ops) {
    if (op.kind == OpKind::kPowerLoss) op.trigger = Op::Trigger::kTime;
  }
  const Result first = run(scenario);
  ASSERT_EQ(failure_kind(first), "I1") << first.failure;
  const Shrunk shrunk = shrink(scenario, first, run, kRuns);
  ASSERT_EQ(kinds_of(shrunk.scenario), std::vector{OpKind::kPowerLoss});
  EXPECT_EQ(shrunk.scenario.preempted_steps, 0u);
  const auto parsed = parse_scenario(scenario_text(shrunk.scenario));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Result again = run(*parsed);
  EXPECT_EQ(again.failure, shrunk.result.failure);
  EXPECT_EQ(again.trace_hash, shrunk.result.trace_hash);
}

TEST(ScenarioText, EveryScenarioIsReadBackAsItWas) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const std::string text = scenario_text(make_scenario(seed));
    const auto parsed = parse_scenario(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ASSERT_EQ(scenario_text(*parsed), text);
  }
}

TEST(ScenarioText, DamagedTextIsRefusedWithItsLine) {
  const std::string text = scenario_text(make_scenario(1));
  for (const std::string damage :
       {"nonsense 1", "nodes x", "op", "op fire at_ms=1", "op crash at_ms=1",
        "op crash at_ms=0 host=99 other=0 lasts_ms=0 trigger=0 count=0 state=0 backup=0"}) {
    const auto parsed = parse_scenario(text + damage + "\n");
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << damage;
    EXPECT_NE(parsed.status().message().find(damage), std::string::npos) << parsed.status();
  }
}

}  // namespace
}  // namespace sluice::simulation
