#include "base/newcomers.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <string>

#include "base/clock.h"
#include "base/random.h"

namespace sluice {
namespace {

Newcomers::Options small() {
  Newcomers::Options options;
  options.places = 2;
  options.room = 6;
  return options;
}

TEST(Newcomers, HostsAreWhatStandsBeforeThePort) {
  EXPECT_EQ(Newcomers::host_of("10.0.0.1:7001"), "10.0.0.1");
  EXPECT_EQ(Newcomers::host_of("[::1]:7001"), "[::1]");
  EXPECT_EQ(Newcomers::host_of("::1"), "::1");
  EXPECT_EQ(Newcomers::host_of("node:service"), "node");
  EXPECT_EQ(Newcomers::host_of("node"), "node");
  EXPECT_EQ(Newcomers::host_of(""), "");
}

TEST(Newcomers, PlacesGoToTheHostWithTheFewestAndThenByAge) {
  Newcomers newcomers(small());
  newcomers.add(1, "a:1");
  newcomers.add(2, "a:2");
  newcomers.add(3, "b:1");
  EXPECT_EQ(newcomers.next_to_serve(), 3u);
  newcomers.hold_place(3, 0);
  EXPECT_EQ(newcomers.next_to_serve(), 1u);
  newcomers.hold_place(1, 0);
  EXPECT_EQ(newcomers.next_to_serve(), 2u);
  EXPECT_EQ(newcomers.waiting(), 1u);
  EXPECT_TRUE(newcomers.remove(2));
  EXPECT_FALSE(newcomers.remove(2));
  EXPECT_EQ(newcomers.next_to_serve(), 0u);
}

TEST(Newcomers, TheSmallerIdIsTheOlderWhateverTheOrder) {
  Newcomers newcomers(small());
  for (const uint64_t id : {5, 2, 9, 1}) newcomers.add(id, "a");
  EXPECT_EQ(newcomers.next_to_serve(), 1u);
  for (const uint64_t id : {9, 1, 5}) EXPECT_TRUE(newcomers.remove(id));
  EXPECT_EQ(newcomers.next_to_serve(), 2u);
  EXPECT_EQ(newcomers.size(), 1u);
}

TEST(Newcomers, NobodyIsEvictedUnlessSomebodyWaitsAndPatienceIsOver) {
  Newcomers newcomers(small());
  newcomers.add(1, "a");
  newcomers.add(2, "a");
  newcomers.hold_place(1, 0);
  newcomers.hold_place(2, 50 * kMs);
  EXPECT_EQ(newcomers.to_evict(10'000 * kMs), 0u);
  newcomers.add(3, "a");
  const int64_t patience = newcomers.patience_ns();
  EXPECT_LT(patience, small().patience_ns);
  EXPECT_GT(patience, 100 * kMs);
  EXPECT_EQ(newcomers.next_eviction_ns(), patience);
  EXPECT_EQ(newcomers.to_evict(patience - 1), 0u);
  EXPECT_EQ(newcomers.to_evict(patience), 1u);
  for (uint64_t id = 4; id <= 8; ++id) newcomers.add(id, "a");
  EXPECT_EQ(newcomers.patience_ns(), small().least_patience_ns);
  EXPECT_TRUE(newcomers.overfull());
  EXPECT_EQ(newcomers.to_turn_away(), 3u);
}

TEST(Newcomers, AHostWithOnePeerOutlivesAFloodFromAnother) {
  Newcomers newcomers(small());
  newcomers.add(1, "honest");
  newcomers.hold_place(1, 0);
  newcomers.add(2, "flood");
  newcomers.hold_place(2, 0);
  int64_t now = 0;
  for (uint64_t id = 3; id < 300; ++id) {
    now += kMs;
    newcomers.add(id, "flood");
    if (newcomers.overfull()) {
      EXPECT_NE(newcomers.to_turn_away(), 1u);
      newcomers.remove(newcomers.to_turn_away());
    }
    if (const uint64_t evicted = newcomers.to_evict(now); evicted != 0) {
      EXPECT_NE(evicted, 1u);
      newcomers.remove(evicted);
      newcomers.hold_place(newcomers.next_to_serve(), now);
    }
  }
  EXPECT_TRUE(newcomers.remove(1));
}

// One host, silent peers at a constant rate, and among them some that say hello after a while.
TEST(Newcomers, HonestPeersOfAFloodingHostGetThrough) {
  for (const int64_t every_us : {20'000, 5'000, 2'000}) {
    Newcomers::Options options;
    options.places = 8;
    options.room = 136;
    Newcomers newcomers(options);
    Random random(7);
    std::map<uint64_t, int64_t> says_hello_at;  // honest ones that hold a place
    std::map<uint64_t, bool> honest;
    size_t free = options.places;
    uint64_t id = 0;
    int through = 0;
    int lost = 0;
    int64_t next = 0;
    const auto forget = [&](uint64_t who) {
      if (honest[who]) ++lost;
      honest.erase(who);
      says_hello_at.erase(who);
      newcomers.remove(who);
    };
    for (int64_t now = 0; now < 20'000 * kMs; now += kMs / 4) {
      for (; next <= now; next += every_us * 1000) {
        honest[++id] = random.chance(0.05);
        newcomers.add(id, "host");
        if (newcomers.overfull()) forget(newcomers.to_turn_away());
      }
      for (auto at = says_hello_at.begin(); at != says_hello_at.end();) {
        if (at->second > now) {
          ++at;
          continue;
        }
        ++through;
        ++free;
        newcomers.remove(at->first);
        honest.erase(at->first);
        at = says_hello_at.erase(at);
      }
      if (const uint64_t evicted = free == 0 ? newcomers.to_evict(now) : 0; evicted != 0) {
        forget(evicted);
        ++free;
      }
      for (; free > 0 && newcomers.waiting() > 0; --free) {
        const uint64_t served = newcomers.next_to_serve();
        newcomers.hold_place(served, now);
        if (honest[served]) says_hello_at[served] = now + 5 * kMs;
      }
    }
    EXPECT_GT(through, 20);
    EXPECT_LT(lost, through / 20 + 1) << "one every " << every_us << " us";
  }
}

}  // namespace
}  // namespace sluice
