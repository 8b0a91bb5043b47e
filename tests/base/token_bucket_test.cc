#include "base/token_bucket.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace sluice {
namespace {

constexpr int64_t kSecond = 1'000 * kMs;

// Takes messages of random sizes up to `largest` as soon as it may, for so long; returns the bytes.
uint64_t move_for(ManualClock& clock, TokenBucket& bucket, int64_t duration_ns, uint64_t largest) {
  Random random(7);
  uint64_t moved = 0;
  const int64_t end = clock.monotonic_ns() + duration_ns;
  while (clock.monotonic_ns() < end) {
    if (!bucket.ready()) {
      clock.advance_ns(bucket.wait_ns());
      continue;
    }
    const uint64_t bytes = 1 + random.below(largest);
    bucket.take(bytes);
    moved += bytes;
  }
  return moved;
}

TEST(TokenBucket, KeepsItsRateForMessagesOfAnySize) {
  for (const uint64_t largest : {uint64_t{100}, uint64_t{1} << 20, uint64_t{100} << 20}) {
    ManualClock clock;
    TokenBucket bucket(clock, 10'000'000, 0);
    const auto moved = static_cast<double>(move_for(clock, bucket, 100 * kSecond, largest));
    EXPECT_GE(moved, 1e9) << largest;
    // The burst at the beginning, and the debt at the end.
    EXPECT_LE(moved, 1e9 + 0.5e6 + static_cast<double>(largest)) << largest;
  }
}

TEST(TokenBucket, WaitsForADebtAndNoLonger) {
  ManualClock clock;
  TokenBucket bucket(clock, 1'000'000, 0);
  clock.advance_ns(kSecond);
  bucket.take(50'000 + 200'000);  // the burst, and 200 ms of debt
  EXPECT_FALSE(bucket.ready());
  EXPECT_EQ(bucket.wait_ns(), 200 * kMs);
  clock.advance_ns(200 * kMs - 1);
  EXPECT_FALSE(bucket.ready());
  clock.advance_ns(1);
  EXPECT_TRUE(bucket.ready());
}

TEST(TokenBucket, WhatIsNotUsedIsLostBeyondABurst) {
  ManualClock clock;
  TokenBucket bucket(clock, 1'000'000, 0);
  clock.advance_ns(3600 * kSecond);
  const uint64_t moved = move_for(clock, bucket, kSecond, 1000);
  EXPECT_LE(moved, 1'000'000u + 50'000u + 1000u);
}

TEST(TokenBucket, WhatIsGivenBackCanBeTakenAgain) {
  ManualClock clock;
  TokenBucket bucket(clock, 1'000'000, 0);
  bucket.take(1'050'000);
  EXPECT_EQ(bucket.wait_ns(), kSecond);
  bucket.give_back(900'000);
  EXPECT_EQ(bucket.wait_ns(), 100 * kMs);
}

TEST(TokenBucket, NothingThatIsGivenBackIsLostWithinTheBurst) {
  ManualClock clock;
  TokenBucket bucket(clock, 1'000'000, 500'000);
  bucket.take(500'000);
  bucket.give_back(500'000);
  bucket.take(500'000 + 100'000);
  EXPECT_EQ(bucket.wait_ns(), 100 * kMs);
}

TEST(TokenBucket, WithoutALimitItIsAlwaysReady) {
  ManualClock clock;
  TokenBucket bucket(clock, 0, 0);
  EXPECT_FALSE(bucket.limited());
  bucket.take(UINT64_MAX);
  EXPECT_TRUE(bucket.ready());
}

}  // namespace
}  // namespace sluice
