#include "base/stage.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

class StageTest : public testing::Test {
 protected:
  void expect_times(uint64_t bytes, int64_t busy_ms, int64_t wait_ms) {
    const StageTimes times = stage_.times();
    EXPECT_EQ(times.bytes, bytes);
    EXPECT_EQ(times.busy_ns, busy_ms * kMs);
    EXPECT_EQ(times.wait_ns, wait_ms * kMs);
  }
  void pass_ms(int64_t ms) { clock_.advance_ns(ms * kMs); }

  ManualClock clock_{1'700'000'000'000};
  Stage stage_{clock_};
};

TEST_F(StageTest, NothingCountsBeforeTheFirstWork) {
  pass_ms(100);
  expect_times(0, 0, 0);
}

TEST_F(StageTest, WorkersThatOverlapAreOneBusyTime) {
  pass_ms(10);
  stage_.begin();
  pass_ms(20);
  stage_.begin();
  pass_ms(5);
  stage_.end(100);
  pass_ms(5);
  expect_times(100, 30, 0);
  stage_.end(50);
  pass_ms(70);
  expect_times(150, 30, 70);
  {
    Stage::Work work(&stage_);
    pass_ms(10);
    work.add(7);
    {
      const Stage::Pause pause(&stage_);
      pass_ms(40);
    }
    pass_ms(1);
  }
  expect_times(157, 41, 110);
}

TEST_F(StageTest, SystemCallsAreCountedOnceThereWasWork) {
  pass_ms(10);
  stage_.count_system_calls(2);
  EXPECT_EQ(stage_.times().system_calls, 0u);
  stage_.begin();
  stage_.count_system_calls(3);
  stage_.end(10);
  EXPECT_EQ(stage_.times().system_calls, 5u);
}

TEST_F(StageTest, ScopesWithoutAStageDoNothing) {
  Stage::Work work(nullptr);
  work.add(5);
  const Stage::Pause pause(nullptr);
}

}  // namespace
}  // namespace sluice
