#include "dataplane/pipeline/write_tally.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr uint64_t kStamp = 100;
constexpr uint64_t kCut = 150;

TEST(WriteTally, IsDecidedOnceNothingThatMayComeChangesIt) {
  WriteTally tally;
  tally.open = 3;
  EXPECT_FALSE(tally.decided(2));
  --tally.open;
  tally.take(0);
  EXPECT_FALSE(tally.decided(2));
  --tally.open;  // it failed
  EXPECT_FALSE(tally.decided(2));
  WriteTally failed = tally;
  --failed.open;
  EXPECT_TRUE(failed.decided(2));
  EXPECT_FALSE(failed.acknowledged(2));
  --tally.open;
  tally.take(0);
  EXPECT_TRUE(tally.decided(2));
  EXPECT_TRUE(tally.acknowledged(2));
}

TEST(WriteTally, CountsAsWrittenBehindTheCutThatTooFewReplicasTookItBefore) {
  WriteTally tally;
  tally.take(0);
  tally.take(kCut);
  EXPECT_EQ(tally.as_of(kStamp, 2), kCut + 1);
  EXPECT_EQ(tally.as_of(kCut + 20, 2), kCut + 20);
  tally.take(0);
  EXPECT_EQ(tally.as_of(kStamp, 2), kStamp);
}

}  // namespace
}  // namespace sluice
