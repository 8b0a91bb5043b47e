#include <gtest/gtest.h>
#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <future>
#include <memory>
#include <mutex>
#include <random>
#include <semaphore>
#include <set>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/executor.h"
#include "base/parallel.h"
#include "base/random.h"
#include "tests/simulation/own_calls.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using End = Result::End;

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSecond = 1'000 * kMs;

void expect(bool holds, std::string_view what) {
  if (!holds) fail(what);
}

Result run_seed(uint64_t seed, const std::function<void()>& main) {
  return run(seed, Options(), main);
}

// Runs seeds until one ends so; the number of seeds that it took, or 0.
uint64_t seeds_until(End end, uint64_t most, const std::function<void()>& main) {
  for (uint64_t seed = 1; seed <= most; ++seed) {
    if (run_seed(seed, main).end == end) return seed;
  }
  return 0;
}

void expect_all_seeds_pass(uint64_t seeds, const std::function<void()>& main) {
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const Result result = run_seed(seed, main);
    ASSERT_TRUE(result.passed()) << "seed " << seed << ": " << result.failure;
  }
}

// --- The same seed, the same run ---

void count_with_mutexes() {
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_mutex table;
  int turns = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) {
        if (round % 5 == i) std::this_thread::sleep_for(milliseconds(entropy() % 7));
        {
          const std::shared_lock lock(table);
          trace(std::to_string(i));
        }
        std::unique_lock lock(mutex);
        changed.wait_for(lock, milliseconds(3), [&] { return turns % 4 == i; });
        ++turns;
        changed.notify_all();
      }
      const std::unique_lock lock(table);
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect(turns == 80, "turns were lost");
}

void use_what_the_library_has() {
  std::promise<int> promise;
  std::future<int> answer =
      std::async(std::launch::async, [&] { return promise.get_future().get() + 1; });
  std::atomic<int> ready{0};
  std::counting_semaphore<8> places(2);
  std::thread waiter([&] {
    ready.wait(0);
    places.acquire();
    promise.set_value(41);
  });
  std::this_thread::sleep_for(milliseconds(2));
  ready = 1;
  ready.notify_all();
  waiter.join();
  expect(answer.get() == 42, "the answer");
  std::atomic<size_t> sum{0};
  parallel_for(30, [&](size_t i) {
    std::this_thread::sleep_for(milliseconds(i % 3));
    sum += i;
  });
  expect(sum == 435, "the sum");
  expect(answer.valid() == false, "the future is used up");
  std::future<int> late = std::async(std::launch::async, [] {
    std::this_thread::sleep_for(seconds(3));
    return 1;
  });
  expect(late.wait_for(seconds(1)) == std::future_status::timeout, "a future is early");
  expect(late.wait_for(seconds(10)) == std::future_status::ready, "a future is late");
}

void run_activities() {
  const std::unique_ptr<Executor> executor = make_thread_executor("work", 3, system_clock());
  std::atomic<int> runs{0};
  std::vector<std::unique_ptr<Activity>> activities;
  for (int i = 0; i < 5; ++i) {
    activities.push_back(std::make_unique<Activity>(*executor, [&runs, i] {
      trace(std::to_string(100 + i));
      ++runs;
    }));
  }
  for (int round = 0; round < 10; ++round) {
    for (const auto& activity : activities) activity->wake();
    activities[0]->wake_at(system_clock().monotonic_ns() + 5 * kMs);
    std::this_thread::sleep_for(milliseconds(10));
  }
  activities.clear();
  expect(runs > 50, "activities did not run");
}

void everything() {
  count_with_mutexes();
  use_what_the_library_has();
  run_activities();
}

TEST(Scheduler, TheSameSeedIsTheSameRunAndAnotherOneIsNot) {
  std::set<uint64_t> hashes;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Result first = run_seed(seed, everything);
    const Result second = run_seed(seed, everything);
    ASSERT_TRUE(first.passed()) << first.failure;
    EXPECT_EQ(first.trace_hash, second.trace_hash) << "seed " << seed;
    EXPECT_EQ(first.steps, second.steps);
    EXPECT_EQ(first.simulated_ns, second.simulated_ns);
    EXPECT_GT(first.switches, 200u);
    hashes.insert(first.trace_hash);
  }
  EXPECT_EQ(hashes.size(), 20u);
}

TEST(Scheduler, RandomNumbersAndIdentitiesAreTheSeeds) {
  const auto draw = [] {
    std::random_device device;
    uint64_t raw = 0;
    expect(getrandom(&raw, sizeof(raw), 0) == sizeof(raw), "getrandom");
    output(make_uuid() + std::to_string(device()) + std::to_string(raw) + std::to_string(getpid()) +
           std::to_string(std::thread::hardware_concurrency()) +
           std::to_string(system_clock().wall_ms()));
  };
  EXPECT_EQ(run_seed(7, draw).output, run_seed(7, draw).output);
  EXPECT_NE(run_seed(7, draw).output, run_seed(8, draw).output);
}

// --- Time ---

TEST(Scheduler, TimeJumpsToTheNextDeadline) {
  const Result result = run_seed(1, [] {
    const int64_t begin = now_ns();
    std::thread slow([] { std::this_thread::sleep_for(std::chrono::hours(5)); });
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    expect(never.wait_for(lock, seconds(90)) == std::cv_status::timeout, "woken by nobody");
    const int64_t waited = now_ns() - begin;
    expect(waited >= 90 * kSecond && waited < 91 * kSecond, "the condition's deadline");
    std::timed_mutex held;
    held.lock();
    std::thread other([&] { expect(!held.try_lock_for(seconds(10)), "a held mutex was had"); });
    other.join();
    slow.join();
    const int64_t whole = now_ns() - begin;
    expect(whole >= 18'000 * kSecond && whole < 18'001 * kSecond, "the sleep's end");
  });
  EXPECT_TRUE(result.passed()) << result.failure;
  EXPECT_GE(result.simulated_ns, 18'000 * kSecond);
}

TEST(Scheduler, CallbacksComeInTheOrderOfTheirTimes) {
  const Result result = run_seed(1, [] {
    std::string order;
    const int64_t begin = now_ns();
    at(begin + 2 * kSecond, [&] { order += "c"; });
    at(begin + 1 * kSecond, [&] {
      order += "a";
      at(begin + 1 * kSecond, [&] { order += "b"; });
    });
    at(begin + 3 * kSecond, [&] { order += "d"; });
    std::this_thread::sleep_for(milliseconds(2'500));
    expect(order == "abc", order);
    std::this_thread::sleep_for(seconds(1));
    expect(order == "abcd", order);
  });
  EXPECT_TRUE(result.passed()) << result.failure;
}

// What waits in one delays whatever is due: messages would come late, crashes take effect late.
TEST(Scheduler, ACallbackThatWaitsForLongIsToldAsAFailure) {
  const Result result = run_seed(1, [] {
    std::mutex mutex;
    const std::lock_guard lock(mutex);
    at(now_ns(), [&mutex] { const std::lock_guard waits(mutex); });
    std::this_thread::sleep_for(seconds(1));
  });
  EXPECT_EQ(result.end, End::kFailed);
  EXPECT_NE(result.failure.find("which waits"), std::string::npos) << result.failure;
}

TEST(Scheduler, AProcesssWallClockMayJumpAndSleepsFollowIt) {
  const Result result = run_seed(1, [] {
    Process& node = Process::make("node");
    std::atomic<int64_t> wall{0};
    std::atomic<int64_t> woken{0};
    const int64_t begin = now_ns();
    const int64_t harness_wall = system_clock().wall_ms();
    node.set_wall_offset_ns(-3600 * kSecond);
    node.start("sleeper", [&] {
      wall = system_clock().wall_ms();
      std::mutex mutex;
      std::condition_variable never;
      std::unique_lock lock(mutex);
      const auto end = std::chrono::system_clock::now() + seconds(100);
      while (never.wait_until(lock, end) == std::cv_status::no_timeout) {
      }
      woken = now_ns();
    });
    std::this_thread::sleep_for(seconds(10));
    expect(wall >= harness_wall - 3'600'000 && wall < harness_wall - 3'599'000, "the offset");
    node.set_wall_offset_ns(-3600 * kSecond + 50 * kSecond);
    std::this_thread::sleep_for(seconds(200));
    expect(woken > begin + 49 * kSecond && woken < begin + 51 * kSecond,
           "a wait until a wall time did not follow the clock");
  });
  EXPECT_TRUE(result.passed()) << result.failure;
}

// --- What is found ---

TEST(Scheduler, ADeadlockIsToldWithWhoHoldsWhat) {
  const auto program = [] {
    std::mutex first;
    std::mutex second;
    std::thread thread([&] {
      pthread_setname_np(pthread_self(), "backwards");
      const std::lock_guard b(second);
      const std::lock_guard a(first);
    });
    {
      const std::lock_guard a(first);
      const std::lock_guard b(second);
    }
    thread.join();
  };
  for (uint64_t seed = 1; seed < 200; ++seed) {
    const Result result = run_seed(seed, program);
    if (result.passed()) continue;
    EXPECT_EQ(result.end, End::kDeadlock);
    EXPECT_NE(result.failure.find("harness/main (thread 1) waits for a mutex at"),
              std::string::npos)
        << result.failure;
    EXPECT_NE(result.failure.find("harness/backwards (thread 2) waits for a mutex"),
              std::string::npos);
    EXPECT_NE(result.failure.find("which thread 1 holds"), std::string::npos);
    // Where each stands.
    EXPECT_NE(result.failure.find("ADeadlockIsToldWithWhoHoldsWhat"), std::string::npos)
        << result.failure;
    return;
  }
  ADD_FAILURE() << "no seed has found the deadlock";
}

struct Flag {
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<bool> set{false};
};

// Sets the flag without the mutex: between the waiter's look and its wait nobody hears of it.
void lose_a_wakeup() {
  Flag flag;
  std::thread waiter([&] {
    std::unique_lock lock(flag.mutex);
    while (!flag.set) {
      sched_yield();
      flag.changed.wait(lock);
    }
  });
  flag.set = true;
  flag.changed.notify_one();
  waiter.join();
}

void lose_no_wakeup() {
  Flag flag;
  std::thread waiter([&] {
    std::unique_lock lock(flag.mutex);
    while (!flag.set) {
      sched_yield();
      flag.changed.wait(lock);
    }
  });
  {
    const std::lock_guard lock(flag.mutex);
    flag.set = true;
  }
  flag.changed.notify_one();
  waiter.join();
}

TEST(Scheduler, SomeSeedFindsALostWakeup) {
  EXPECT_GT(seeds_until(End::kDeadlock, 100, lose_a_wakeup), 0u);
  expect_all_seeds_pass(100, lose_no_wakeup);
}

TEST(Scheduler, SomeSeedFindsAWaitWithoutALoop) {
  const auto program = [] {
    Flag flag;
    std::thread waiter([&] {
      for (int i = 0; i < 30; ++i) {
        std::unique_lock lock(flag.mutex);
        if (!flag.set) flag.changed.wait(lock);
        expect(flag.set, "woken without reason");
        flag.set = false;
        flag.changed.notify_all();
      }
    });
    for (int i = 0; i < 30; ++i) {
      std::unique_lock lock(flag.mutex);
      while (flag.set) flag.changed.wait(lock);
      flag.set = true;
      flag.changed.notify_all();
    }
    waiter.join();
  };
  EXPECT_GT(seeds_until(End::kFailed, 100, program), 0u);
}

TEST(Scheduler, SomeSeedFindsARaceBetweenTwoCalls) {
  EXPECT_GT(seeds_until(End::kFailed, 100,
                        [] {
                          std::mutex mutex;
                          int value = 0;
                          const auto add = [&] {
                            std::unique_lock lock(mutex);
                            const int seen = value;
                            lock.unlock();
                            lock.lock();
                            value = seen + 1;
                          };
                          std::thread other(add);
                          add();
                          other.join();
                          expect(value == 2, "one was lost");
                        }),
            0u);
}

TEST(Scheduler, WhatDoesNotEndIsTold) {
  Options options;
  options.time_limit_ns = 10 * kSecond;
  const Result late = run(1, options, [] {
    for (;;) std::this_thread::sleep_for(milliseconds(10));
  });
  EXPECT_EQ(late.end, End::kDidNotEnd);
  EXPECT_NE(late.failure.find("did not end within 10 s"), std::string::npos) << late.failure;
  options = {};
  options.step_limit = 10'000;
  EXPECT_EQ(run(1, options,
                [] {
                  for (;;) std::mutex().lock();
                })
                .end,
            End::kDidNotEnd);
  options = {};
  options.machine_limit_s = 1;
  const Result hung = run(1, options, [] {
    std::atomic<bool> never{false};
    while (!never) {
    }
  });
  EXPECT_EQ(hung.end, End::kHung);
  EXPECT_NE(hung.failure.find("harness/main"), std::string::npos) << hung.failure;
  const Result died = run_seed(1, [] { std::thread([] { std::raise(SIGSEGV); }).join(); });
  EXPECT_EQ(died.end, End::kDied);
  EXPECT_NE(died.failure.find("Segmentation fault"), std::string::npos) << died.failure;
  const Result thrown = run_seed(1, [] { throw std::runtime_error("no reason"); });
  EXPECT_EQ(thrown.end, End::kFailed);
  EXPECT_NE(thrown.failure.find("no reason"), std::string::npos);
}

// --- Threads are threads ---

thread_local int counter = 5;
thread_local std::string text = "initial";

struct CountsItself {
  static std::atomic<int> living;
  CountsItself() { ++living; }
  ~CountsItself() { --living; }
  int value = 0;
};
std::atomic<int> CountsItself::living{0};
thread_local CountsItself counted;

TEST(Scheduler, ThreadLocalsAreANewThreadsOwnAndAreDestroyed) {
  expect_all_seeds_pass(10, [] {
    static std::atomic<int> destroyed{0};
    pthread_key_t key = 0;
    expect(pthread_key_create(&key, [](void*) { ++destroyed; }) == 0, "a key");
    for (int round = 0; round < 30; ++round) {  // on the fibers of those before
      std::vector<std::thread> threads;
      for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&] {
          expect(counter == 5 && text == "initial", "a thread_local variable is another thread's");
          expect(pthread_getspecific(key) == nullptr, "a thread's value is another thread's");
          pthread_setspecific(key, &counter);
          counter += 7;
          text += " and more that does not fit into the string";
          ++counted.value;
          errno = 17;
          sched_yield();
          expect(counter == 12 && counted.value == 1 && errno == 17, "thread_local after a switch");
          expect(CountsItself::living >= 1, "constructed");
        });
      }
      for (std::thread& thread : threads) thread.join();
    }
    expect(counter == 5, "main's own");
    expect(CountsItself::living == 0, "not destroyed");
    expect(destroyed == 90, "a key's destructor");
  });
}

TEST(Scheduler, ExceptionsCrossThreadsAndInitialisationsHappenOnce) {
  expect_all_seeds_pass(20, [] {
    static std::atomic<int> made{0};
    std::once_flag once;
    std::atomic<int> tries{0};
    struct Slow {
      Slow() {
        std::this_thread::sleep_for(milliseconds(1));
        ++made;
      }
    };
    parallel_for(6, [&](size_t) {
      static const Slow slow;
      (void)slow;
      try {
        std::call_once(once, [&] {
          std::this_thread::sleep_for(milliseconds(1));
          if (++tries < 3) throw std::runtime_error("again");
        });
      } catch (const std::runtime_error&) {
      }
    });
    expect(made == 1, "made more than once");
    expect(tries == 3, "call_once");
    std::future<void> thrown = std::async(std::launch::async, [] { throw std::logic_error("it"); });
    try {
      thrown.get();
      fail("nothing was thrown");
    } catch (const std::logic_error&) {
    }
  });
}

TEST(Scheduler, HundredsOfThreadsAreCheap) {
  const Result result = run_seed(3, [] {
    std::vector<std::thread> threads;
    std::atomic<int> sum{0};
    for (int i = 0; i < 300; ++i) {
      threads.emplace_back([&] {
        std::this_thread::sleep_for(seconds(1));
        ++sum;
      });
    }
    for (std::thread& thread : threads) thread.join();
    expect(sum == 300, "threads are missing");
  });
  EXPECT_TRUE(result.passed()) << result.failure;
}

// --- Processes ---

TEST(Scheduler, AThreadIsOfItsCreatorsProcess) {
  const Result result = run_seed(1, [] {
    Process& node = Process::make("node");
    std::atomic<int> pid{0};
    node.start("first", [&] { std::thread([&] { pid = getpid(); }).join(); });
    std::this_thread::sleep_for(seconds(1));
    expect(pid == node.pid() && pid != getpid(), "the child's process");
    expect(node.threads() == 0, "threads that have ended");
  });
  EXPECT_TRUE(result.passed()) << result.failure;
}

TEST(Scheduler, APausedProcessStandsStillAndGoesOn) {
  expect_all_seeds_pass(20, [] {
    Process& node = Process::make("node");
    std::atomic<int> ticks{0};
    node.start("ticker", [&] {
      for (;;) {
        std::this_thread::sleep_for(milliseconds(10));
        ++ticks;
      }
    });
    std::this_thread::sleep_for(seconds(1));
    expect(ticks >= 95 && ticks <= 100, "before");
    node.pause();
    const int before = ticks;
    std::this_thread::sleep_for(seconds(10));
    expect(ticks == before, "it ran while it was paused");
    node.resume();
    std::this_thread::sleep_for(seconds(1));
    expect(ticks >= before + 95 && ticks <= before + 101, "after");
  });
}

TEST(Scheduler, ACrashedProcessNeverRunsAgainAndItsTimesMoveNothing) {
  expect_all_seeds_pass(20, [] {
    Process& node = Process::make("node");
    std::atomic<int> ticks{0};
    std::mutex own;
    for (int i = 0; i < 3; ++i) {
      node.start("worker", [&] {
        for (;;) {
          const std::lock_guard lock(own);
          std::this_thread::sleep_for(milliseconds(1));
          ++ticks;
        }
      });
    }
    std::atomic<bool> passed_own_crash{false};
    node.start("suicide", [&] {
      std::this_thread::sleep_for(milliseconds(500));
      Process::current().crash();
      sched_yield();
      passed_own_crash = true;
    });
    std::this_thread::sleep_for(seconds(1));
    expect(node.crashed() && ticks > 400 && ticks <= 500, "until the crash");
    const int before = ticks;
    std::this_thread::sleep_for(seconds(10));
    expect(ticks == before && !passed_own_crash, "it went on");
  });
}

// The lock is of a library that all processes of the simulation share.
void check_shared_lock(const std::function<void(Process&)>& stop) {
  std::mutex shared;
  std::mutex own;
  Process& node = Process::make("node");
  Process& other = Process::make("other");
  std::atomic<int> stage{0};
  node.start("holder", [&] {
    const std::lock_guard first(own);
    {
      const std::lock_guard second(shared);
      stage = 1;
      std::this_thread::sleep_for(seconds(2));
    }
    std::this_thread::sleep_for(seconds(1));
    stage = 2;
  });
  std::this_thread::sleep_for(seconds(1));
  expect(stage == 1, "the holder has begun");
  std::atomic<bool> had{false};
  const auto take = [&] {
    const std::lock_guard lock(shared);
    had = true;
  };
  other.start("taker", take);
  std::this_thread::sleep_for(milliseconds(100));
  stop(node);
  other.start("later taker", take);
  std::this_thread::sleep_for(seconds(5));
  expect(had, "a stopped process keeps what others wait for");
}

TEST(Scheduler, AStoppedThreadGivesBackWhatOthersWaitFor) {
  expect_all_seeds_pass(20, [] { check_shared_lock([](Process& node) { node.crash(); }); });
  expect_all_seeds_pass(20, [] { check_shared_lock([](Process& node) { node.pause(); }); });
}

TEST(Scheduler, NobodyIsPreemptedWhereSwitchesAreForbidden) {
  Options options;
  options.preempt = 0.5;
  const auto program = [](bool forbidden) {
    std::mutex mutex;
    int value = 0;
    const auto add = [&] {
      std::optional<NoSwitch> scope;
      if (forbidden) scope.emplace();
      for (int i = 0; i < 100; ++i) {
        int seen = 0;
        {
          const std::lock_guard lock(mutex);
          seen = value;
        }
        const std::lock_guard lock(mutex);
        value = seen + 1;
      }
    };
    std::thread other(add);
    add();
    other.join();
    expect(value == 200, "one was lost");
  };
  EXPECT_TRUE(run(1, options, [&] { program(true); }).passed());
  EXPECT_EQ(run(1, options, [&] { program(false); }).end, End::kFailed);
  const Result waits = run(1, options, [] {
    const NoSwitch scope;
    std::this_thread::sleep_for(seconds(1));
  });
  EXPECT_EQ(waits.end, End::kFailed);
  EXPECT_NE(waits.failure.find("NoSwitch"), std::string::npos);
}

// A function that the libraries find elsewhere would not be simulated.
TEST(Scheduler, TheProgramsOwnFunctionsAreTheOnesThatAreCalled) {
  constexpr std::array kNames{"pthread_create",
                              "pthread_join",
                              "pthread_detach",
                              "pthread_mutex_lock",
                              "pthread_mutex_trylock",
                              "pthread_mutex_unlock",
                              "pthread_mutex_clocklock",
                              "pthread_mutex_timedlock",
                              "pthread_cond_wait",
                              "pthread_cond_timedwait",
                              "pthread_cond_clockwait",
                              "pthread_cond_signal",
                              "pthread_cond_broadcast",
                              "pthread_cond_destroy",
                              "pthread_rwlock_rdlock",
                              "pthread_rwlock_wrlock",
                              "pthread_rwlock_unlock",
                              "pthread_once",
                              "pthread_key_create",
                              "__cxa_thread_atexit_impl",
                              "__cxa_guard_acquire",
                              "__cxa_guard_release",
                              "__cxa_guard_abort",
                              "sched_yield",
                              "syscall",
                              "clock_gettime",
                              "gettimeofday",
                              "time",
                              "nanosleep",
                              "clock_nanosleep",
                              "usleep",
                              "getrandom",
                              "arc4random",
                              "_ZNSt13random_device9_M_getvalEv",
                              "getpid",
                              "sched_getcpu",
                              "get_nprocs",
                              "sysconf"};
  expect_own_calls(reinterpret_cast<const void*>(&check_shared_lock), kNames);
}

}  // namespace
}  // namespace sluice::simulation
