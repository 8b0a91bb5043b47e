#include "base/deadline.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(Deadline, PausesUntilItsEndAndNotBeyond) {
  ManualClock clock(1'700'000'000'000);
  const int64_t begin = clock.monotonic_ns();
  const auto passed_ms = [&] { return (clock.monotonic_ns() - begin) / 1'000'000; };
  Deadline deadline(clock, 100);
  EXPECT_EQ(deadline.left_ms(), 100);
  EXPECT_TRUE(deadline.pause(70));
  EXPECT_EQ(passed_ms(), 70);
  EXPECT_FALSE(deadline.passed());
  EXPECT_TRUE(deadline.pause(70));  // a last try is due at the end
  EXPECT_EQ(passed_ms(), 100);
  EXPECT_TRUE(deadline.passed());
  EXPECT_EQ(deadline.left_ms(), 0);
  EXPECT_FALSE(deadline.pause(70));
  EXPECT_EQ(passed_ms(), 100);
  deadline.restart();
  EXPECT_EQ(deadline.left_ms(), 100);
  EXPECT_TRUE(deadline.pause(1));
  // What moved did so a while ago.
  deadline.restart_at(begin + 150 * 1'000'000);
  EXPECT_EQ(deadline.left_ms(), 250 - passed_ms());
}

TEST(Deadline, OfNoTimeHasPassed) {
  ManualClock clock(1'700'000'000'000);
  Deadline deadline(clock, 0);
  EXPECT_TRUE(deadline.passed());
  EXPECT_FALSE(deadline.pause(10));
}

}  // namespace
}  // namespace sluice
