#include "dataplane/store/group_sync.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <thread>
#include <vector>

#include "base/status.h"
#include "dataplane/store/write_gate.h"

namespace sluice {
namespace {

TEST(GroupSync, ReturnsOnlyAfterASyncThatBeganAfterTheCommit) {
  std::atomic<uint64_t> committed = 0, durable = 0;
  GroupSync sync([&] {
    durable = committed.load();
    return absl::OkStatus();
  });
  for (uint64_t i = 1; i <= 10; ++i) {
    committed = i;
    ASSERT_TRUE(sync.wait(sync.committed()).ok());
    EXPECT_EQ(durable, i);
  }
}

TEST(GroupSync, WhatIsDurableAlreadyNeedsNoSync) {
  int syncs = 0;
  GroupSync sync([&] {
    ++syncs;
    return absl::OkStatus();
  });
  EXPECT_TRUE(sync.wait(sync.last()).ok());
  EXPECT_EQ(syncs, 0);
  const uint64_t first = sync.committed(), second = sync.committed();
  EXPECT_TRUE(sync.wait(second).ok());
  EXPECT_TRUE(sync.wait(first).ok());
  EXPECT_TRUE(sync.wait(sync.last()).ok());
  EXPECT_EQ(syncs, 1);
}

// A reader must not stand still with the disk.
TEST(GroupSync, WaitsForAnothersSyncNoLongerThanItIsTold) {
  std::mutex mutex;
  std::condition_variable changed;
  bool runs = false, go_on = false;
  GroupSync sync([&] {
    std::unique_lock lock(mutex);
    runs = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go_on; });
    return absl::OkStatus();
  });
  const uint64_t ticket = sync.committed();
  std::thread leader([&] { EXPECT_TRUE(sync.wait(ticket).ok()); });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return runs; });
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(sync.wait(ticket, 10)));
  {
    const std::lock_guard lock(mutex);
    go_on = true;
  }
  changed.notify_all();
  leader.join();
  EXPECT_TRUE(sync.wait(ticket, 10).ok());
}

// While the first writer's sync runs, the others commit; one more sync serves them all.
TEST(GroupSync, OneSyncServesAllThatCommittedBeforeItBegan) {
  constexpr int kFollowers = 6;
  std::mutex mutex;
  std::condition_variable changed;
  bool first_runs = false, go_on = false;
  std::atomic<int> syncs = 0, arrived = 0;
  GroupSync sync([&] {
    if (++syncs == 1) {
      std::unique_lock lock(mutex);
      first_runs = true;
      changed.notify_all();
      changed.wait(lock, [&] { return go_on; });
    }
    return absl::OkStatus();
  });
  std::thread leader([&] { EXPECT_TRUE(sync.wait(sync.committed()).ok()); });
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return first_runs; });
  }
  std::vector<std::thread> followers;
  for (int i = 0; i < kFollowers; ++i) {
    followers.emplace_back([&] {
      const uint64_t ticket = sync.committed();
      {
        std::lock_guard lock(mutex);
        ++arrived;
        changed.notify_all();
      }
      EXPECT_TRUE(sync.wait(ticket).ok());
    });
  }
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return arrived == kFollowers; });
    go_on = true;
    changed.notify_all();
  }
  leader.join();
  for (std::thread& follower : followers) follower.join();
  EXPECT_EQ(syncs, 2);
}

TEST(GroupSync, NothingIsDurableAfterAFailedSync) {
  bool broken = false;
  GroupSync sync([&] { return broken ? unavailable("no disk") : absl::OkStatus(); });
  EXPECT_TRUE(sync.wait(sync.committed()).ok());
  broken = true;
  const uint64_t lost = sync.committed();
  EXPECT_EQ(sync.wait(lost).code(), absl::StatusCode::kUnavailable);
  broken = false;
  EXPECT_EQ(sync.wait(lost).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sync.wait(sync.committed()).code(), absl::StatusCode::kUnavailable);
}

TEST(WriteGate, ExclusiveExcludesAndIsNotStarvedBySharers) {
  WriteGate gate;
  std::atomic<int> inside = 0, passes = 0;
  std::atomic<bool> exclusive = false, stop = false;
  std::vector<std::thread> sharers;
  for (int i = 0; i < 3; ++i) {
    sharers.emplace_back([&] {
      while (!stop) {
        gate.lock_shared();
        ++inside;
        EXPECT_FALSE(exclusive);
        ++passes;
        --inside;
        gate.unlock_shared();
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    gate.lock();
    exclusive = true;
    EXPECT_EQ(inside, 0);
    exclusive = false;
    gate.unlock();
  }
  const int before = passes;
  while (passes < before + 100) std::this_thread::yield();
  stop = true;
  for (std::thread& sharer : sharers) sharer.join();
}

TEST(SlotGates, HoldersOfManySlotsNeverDeadlock) {
  SlotGates gates;
  std::vector<std::thread> threads;
  int counter = 0;  // guarded by the gate of slot 5
  constexpr int kThreads = 4, kRounds = 2000;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const uint32_t other = static_cast<uint32_t>(i % 50);
        // 5 and 1029 share a stripe.
        const SlotGates::Hold hold(gates, t % 2 == 0 ? std::vector<uint32_t>{other, 5, 1029}
                                                     : std::vector<uint32_t>{1029, 1029, other});
        ++counter;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter, kThreads * kRounds);
}

}  // namespace
}  // namespace sluice
