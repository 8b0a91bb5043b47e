#include "dataplane/store/hybrid_clock.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr int64_t kStart = 1'700'000'000'000;

struct Durable {
  uint64_t ceiling = 0;
  int writes = 0;
  absl::Status answer;
  std::function<absl::Status(uint64_t)> persist() {
    return [this](uint64_t next) {
      if (!answer.ok()) return answer;
      ceiling = next;
      ++writes;
      return absl::OkStatus();
    };
  }
};

TEST(HybridClock, StampsGrowAndFollowTheWallClock) {
  ManualClock wall(kStart);
  Durable durable;
  HybridClock clock(wall, 0, durable.persist());
  const uint64_t first = *clock.stamp();
  const uint64_t second = *clock.stamp();
  EXPECT_EQ(first, Version::make_stamp(kStart, 0));
  EXPECT_EQ(second, Version::make_stamp(kStart, 1));
  wall.advance_ns(5'000'000);
  EXPECT_EQ(*clock.stamp(), Version::make_stamp(kStart + 5, 0));
}

TEST(HybridClock, NeverGoesBackWithTheWallClock) {
  ManualClock wall(kStart);
  Durable durable;
  HybridClock clock(wall, 0, durable.persist());
  const uint64_t before = *clock.stamp();
  wall.set_wall_ms(kStart - 60'000);
  EXPECT_GT(*clock.stamp(), before);
  EXPECT_GT(clock.now(), before);
}

TEST(HybridClock, NowIsAtLeastTheWallClockAndHandsOutNothing) {
  ManualClock wall(kStart);
  Durable durable;
  HybridClock clock(wall, 0, durable.persist());
  EXPECT_EQ(clock.now(), Version::make_stamp(kStart, 0));
  EXPECT_EQ(clock.now(), clock.now());
  EXPECT_EQ(durable.writes, 0);
}

TEST(HybridClock, CeilingIsDurableAboveEveryStampAndOnlyAStepAhead) {
  ManualClock wall(kStart);
  Durable durable;
  HybridClock clock(wall, 0, durable.persist());
  for (int i = 0; i < 1000; ++i) {
    const uint64_t stamp = *clock.stamp();
    ASSERT_LT(stamp, durable.ceiling);
    ASSERT_LE(durable.ceiling - stamp, Version::make_stamp(HybridClock::kCeilingStepMs, 0));
    wall.advance_ns(1'000'000);
  }
  EXPECT_LE(durable.writes, 1000 / HybridClock::kCeilingStepMs + 1);
}

TEST(HybridClock, RestartBeginsAtTheCeiling) {
  ManualClock wall(kStart);
  Durable durable;
  uint64_t last = 0;
  {
    HybridClock clock(wall, 0, durable.persist());
    for (int i = 0; i < 100; ++i) last = *clock.stamp();
  }
  wall.set_wall_ms(kStart - 3'600'000);
  HybridClock clock(wall, durable.ceiling, durable.persist());
  EXPECT_GE(clock.now(), durable.ceiling);
  const uint64_t restarted = durable.ceiling;
  const uint64_t next = *clock.stamp();
  EXPECT_GT(next, last);
  EXPECT_GT(next, restarted);
  EXPECT_GT(durable.ceiling, next);
}

TEST(HybridClock, ObservingMovesPastAPeerAndPersistsFirst) {
  ManualClock wall(kStart);
  Durable durable;
  HybridClock clock(wall, 0, durable.persist());
  const uint64_t peer = Version::make_stamp(kStart + 1500, 7);
  ASSERT_TRUE(clock.observe(peer).ok());
  EXPECT_EQ(clock.now(), peer);
  EXPECT_GT(durable.ceiling, peer);
  EXPECT_GT(*clock.stamp(), peer);
}

// Stamps of a clock that was a day and more ahead: all that follows is stamped above them at once,
// by counting, and goes on so when the wall clock is right, and when it was set back.
TEST(HybridClock, WhatIsReservedIsObservedWithoutAWrite) {
  ManualClock wall(kStart);
  Durable durable;
  HybridClock clock(wall, 0, durable.persist());
  const uint64_t ahead = Version::make_stamp(kStart + 1500, 7);
  uint64_t reserved = 0;
  const auto fails = [](uint64_t) { return unavailable("no disk"); };
  EXPECT_FALSE(clock.reserve(ahead, fails).ok());
  EXPECT_EQ(clock.ceiling(), 0u);
  const auto keeps = [&](uint64_t ceiling) {
    reserved = ceiling;
    return absl::OkStatus();
  };
  ASSERT_TRUE(clock.reserve(ahead, keeps).ok());
  EXPECT_GT(reserved, ahead);
  EXPECT_LT(clock.now(), ahead);
  ASSERT_TRUE(clock.observe(ahead).ok());
  EXPECT_EQ(durable.writes, 0);
  // What is durable never goes down.
  const uint64_t before = reserved;
  ASSERT_TRUE(clock.reserve(1, keeps).ok());
  EXPECT_EQ(reserved, before);
}

TEST(HybridClock, CountsOnFromStampsOfTheFuture) {
  ManualClock wall(kStart);
  Durable durable;
  HybridClock clock(wall, 0, durable.persist());
  constexpr int64_t kAhead = 40 * 24 * 3600 * int64_t{1000};
  const uint64_t future = Version::make_stamp(kStart + kAhead, 0);
  ASSERT_TRUE(clock.observe(future).ok());
  EXPECT_EQ(*clock.stamp(), future + 1);
  EXPECT_EQ(clock.ahead_ms(), kAhead);
  wall.set_wall_ms(kStart - kAhead);
  EXPECT_EQ(*clock.stamp(), future + 2);
  ASSERT_TRUE(clock.observe_archived(Version::make_stamp(kStart + 2 * kAhead, 7)).ok());
  EXPECT_EQ(*clock.stamp(), Version::make_stamp(kStart + 2 * kAhead, 8));
  wall.set_wall_ms(kStart + 3 * kAhead);
  EXPECT_EQ(clock.ahead_ms(), 0);
  EXPECT_EQ(*clock.stamp(), Version::make_stamp(kStart + 3 * kAhead, 0));
}

TEST(HybridClock, NoClockAndNoArchiveExhaustsIt) {
  Durable durable;
  ManualClock wall(kStart);
  HybridClock clock(wall, 0, durable.persist());
  EXPECT_EQ(clock.observe_archived(~uint64_t{0}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(clock.observe_archived(HybridClock::kArchiveLimit).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(clock.observe(HybridClock::kPeerLimit).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(clock.now(), Version::make_stamp(kStart, 0));
  // The latest wall clock, then an archive of the latest stamps: peers accept what follows.
  wall.set_wall_ms(int64_t{1} << 52);
  HybridClock peer(wall, 0, durable.persist());
  const uint64_t latest = *clock.stamp();
  EXPECT_LT(latest, HybridClock::kArchiveLimit);
  EXPECT_TRUE(peer.observe_archived(latest).ok());
  ASSERT_TRUE(clock.observe_archived(HybridClock::kArchiveLimit - 1).ok());
  for (int i = 0; i < 100'000; ++i) ASSERT_TRUE(peer.observe(*clock.stamp()).ok());
  wall.set_wall_ms(-1);
  EXPECT_TRUE(peer.observe(*clock.stamp()).ok());
}

// A wall clock at any number of milliseconds, also beyond what nanoseconds can count.
class LateClock final : public Clock {
 public:
  explicit LateClock(int64_t ms) : ms_(ms) {}
  int64_t wall_ms() const override { return ms_; }
  int64_t monotonic_ns() const override { return 0; }
  void sleep_ns(int64_t) override {}

 private:
  const int64_t ms_;
};

TEST(HybridClock, AClockAtTheEndOfItsRangeMakesNoStampThatPeersRefuse) {
  Durable durable;
  for (const int bits : {45, 46, 47, 48, 62}) {
    LateClock late(int64_t{1} << bits);
    HybridClock clock(late, 0, durable.persist());
    const uint64_t stamp = *clock.stamp();
    EXPECT_LT(stamp, HybridClock::kArchiveLimit) << bits;
    EXPECT_EQ(stamp, Version::make_stamp(HybridClock::kLatestWallMs - 1, 0)) << bits;
  }
}

TEST(HybridClock, HandsOutNothingThatIsNotDurable) {
  ManualClock wall(kStart);
  Durable durable;
  durable.answer = unavailable("no disk");
  HybridClock clock(wall, 0, durable.persist());
  EXPECT_EQ(clock.stamp().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(clock.observe(Version::make_stamp(kStart + 10, 0)).code(),
            absl::StatusCode::kUnavailable);
  // Whoever asks for it has to go beyond what was seen here.
  const uint64_t seen = Version::make_stamp(kStart + 10, 0);
  EXPECT_GE(clock.now(), seen);
  EXPECT_EQ(clock.stamp().status().code(), absl::StatusCode::kUnavailable);
  durable.answer = absl::OkStatus();
  EXPECT_GT(*clock.stamp(), seen);
}

TEST(HybridClock, ThreadsNeverGetTheSameStamp) {
  ManualClock wall(kStart);
  Durable durable;
  HybridClock clock(wall, 0, durable.persist());
  constexpr int kThreads = 4, kStamps = 5000;
  std::vector<std::vector<uint64_t>> got(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kStamps; ++i) got[t].push_back(*clock.stamp());
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint64_t> all;
  for (const auto& stamps : got) {
    EXPECT_TRUE(std::is_sorted(stamps.begin(), stamps.end()));
    all.insert(stamps.begin(), stamps.end());
  }
  EXPECT_EQ(all.size(), size_t{kThreads} * kStamps);
}

}  // namespace
}  // namespace sluice
