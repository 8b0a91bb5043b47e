#include "base/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "base/backoff.h"

namespace sluice {
namespace {

void wait_for(const std::function<bool()>& true_soon) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!true_soon() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_TRUE(true_soon());
}

TEST(Activity, RunsOncePerWakeAndNeverTwiceAtATime) {
  const auto executor = make_thread_executor("test", 4, system_clock());
  std::atomic<int> inside{0};
  std::atomic<int> overlaps{0};
  std::atomic<int64_t> seen{0};
  std::atomic<int64_t> told{0};
  Activity activity(*executor, [&] {
    if (++inside > 1) ++overlaps;
    seen = told.load();
    --inside;
  });
  std::vector<std::thread> wakers;
  for (int i = 0; i < 4; ++i) {
    wakers.emplace_back([&] {
      for (int j = 0; j < 20'000; ++j) {
        ++told;
        activity.wake();
      }
    });
  }
  for (std::thread& waker : wakers) waker.join();
  // No wake is lost: a run begins after the last one.
  wait_for([&] { return seen == 80'000; });
  EXPECT_EQ(overlaps, 0);
}

TEST(Activity, IsNotRunAfterItWasStopped) {
  const auto executor = make_thread_executor("test", 2, system_clock());
  for (int i = 0; i < 500; ++i) {
    auto alive = std::make_unique<std::atomic<bool>>(true);
    auto activity = std::make_unique<Activity>(*executor, [&alive] {
      ASSERT_TRUE(alive->load());
      std::this_thread::yield();
      ASSERT_TRUE(alive->load());
    });
    const Activity::Waker waker = activity->waker();
    std::thread other([&] {
      for (int j = 0; j < 20; ++j) waker();
    });
    activity->wake();
    activity->stop();
    *alive = false;
    activity.reset();
    waker();
    other.join();
  }
}

TEST(Activity, MayStopItself) {
  const auto executor = make_thread_executor("test", 1, system_clock());
  std::atomic<int> runs{0};
  Activity* self = nullptr;
  Activity activity(*executor, [&] {
    ++runs;
    self->stop();
  });
  self = &activity;
  activity.wake();
  wait_for([&] { return runs == 1; });
  activity.wake();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(runs, 1);
}

TEST(Activity, OutlivesWhatItThrows) {
  const auto executor = make_thread_executor("test", 1, system_clock());
  std::atomic<int> runs{0};
  Activity activity(*executor, [&] {
    if (++runs == 1) throw std::runtime_error("out of luck");
  });
  activity.wake();
  wait_for([&] { return runs == 1; });
  activity.wake();
  wait_for([&] { return runs == 2; });
}

TEST(Activity, ThreadsAreAsManyAsThereIsWorkFor) {
  const auto executor = make_thread_executor("test", 3, system_clock());
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::latch all(3);
  std::vector<std::unique_ptr<Activity>> activities;
  for (int i = 0; i < 3; ++i) {
    activities.push_back(std::make_unique<Activity>(*executor, [&] {
      {
        const std::lock_guard lock(mutex);
        threads.insert(std::this_thread::get_id());
      }
      all.arrive_and_wait();
    }));
  }
  for (const auto& activity : activities) activity->wake();
  all.wait();
  activities.clear();
  EXPECT_EQ(threads.size(), 3u);
}

TEST(ThreadExecutor, TimersRunWhenTheyAreDue) {
  const auto executor = make_thread_executor("test", 2, system_clock());
  std::atomic<int64_t> ran_ns{0};
  Activity activity(*executor, [&] { ran_ns = system_clock().monotonic_ns(); });
  const int64_t far_ns = system_clock().monotonic_ns() + 3'600'000 * kMs;
  activity.wake_at(far_ns);
  const int64_t due_ns = system_clock().monotonic_ns() + 20 * kMs;
  activity.wake_at(due_ns);
  wait_for([&] { return ran_ns != 0; });
  EXPECT_GE(ran_ns, due_ns);
  EXPECT_LT(ran_ns, far_ns);
}

// The thread that waited for the timer has other work when it is due.
TEST(ThreadExecutor, ATimerDoesNotWaitForWorkThatTakesLong) {
  const auto executor = make_thread_executor("test", 2, system_clock());
  std::atomic<bool> ran{false};
  std::latch blocked(1);
  std::latch go_on(1);
  Activity warm(*executor, [] {});
  Activity timed(*executor, [&] { ran = true; });
  Activity blocks(*executor, [&] {
    blocked.count_down();
    go_on.wait();
  });
  for (int i = 0; i < 50; ++i) warm.wake();
  timed.wake_at(system_clock().monotonic_ns() + 100 * kMs);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  blocks.wake();
  blocked.wait();
  wait_for([&] { return ran.load(); });
  go_on.count_down();
}

// Two pieces of work at a time, while one thread is idle.
TEST(ThreadExecutor, StartsAThreadForWorkThatNobodyTakes) {
  for (int i = 0; i < 50; ++i) {
    const auto executor = make_thread_executor("test", 2, system_clock());
    std::latch both(2);
    std::atomic<int> runs{0};
    Activity warm(*executor, [&] { ++runs; });
    warm.wake();
    wait_for([&] { return runs == 1; });
    Activity first(*executor, [&] { both.arrive_and_wait(); });
    Activity second(*executor, [&] { both.arrive_and_wait(); });
    first.wake();
    second.wake();
    both.wait();
  }
}

TEST(ManualExecutor, RunsOnVirtualTimeInOrder) {
  ManualClock clock;
  ManualExecutor executor(clock);
  std::string log;
  Activity first(executor, [&] { log += 'a'; });
  Activity second(executor, [&] {
    log += 'b';
    if (log.size() < 4) second.wake();
  });
  first.wake();
  second.wake();
  EXPECT_EQ(log, "");
  EXPECT_EQ(executor.run(), 4u);
  EXPECT_EQ(log, "abbb");
  const int64_t start_ns = clock.monotonic_ns();
  first.wake_at(start_ns + 50 * kMs);
  second.wake_at(start_ns + 20 * kMs);
  EXPECT_EQ(executor.run(), 0u);
  EXPECT_TRUE(executor.run_next_timer());
  EXPECT_EQ(log, "abbbb");
  EXPECT_EQ(clock.monotonic_ns(), start_ns + 20 * kMs);
  EXPECT_TRUE(executor.run_next_timer());
  EXPECT_EQ(log, "abbbba");
  EXPECT_FALSE(executor.run_next_timer());
}

TEST(Backoff, DoublesUpToItsLimitAndBeginsAnew) {
  Backoff backoff(50, 300);
  EXPECT_EQ(backoff.next_ms(), 50);
  EXPECT_EQ(backoff.next_ms(), 100);
  EXPECT_EQ(backoff.next_ns(), 200 * kMs);
  EXPECT_EQ(backoff.next_ms(), 300);
  EXPECT_EQ(backoff.next_ms(), 300);
  backoff.reset();
  EXPECT_EQ(backoff.next_ms(), 50);
}

}  // namespace
}  // namespace sluice
