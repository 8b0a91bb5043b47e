// What the parts of a seed cost: going from thread to thread, by fibers and as threads of the
// system would, and opening and writing to a store on a simulated disk.
#include <fmt/format.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/simulation/disk_store.h"
#include "tests/simulation/mounts.h"
#include "tests/simulation/rocksdb_disk.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

// Of processors, this process's and its children's: what else the machine does counts little.
double used_s() {
  double sum = 0;
  for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage usage{};
    getrusage(who, &usage);
    for (const timeval& time : {usage.ru_utime, usage.ru_stime}) {
      sum += static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    }
  }
  return sum;
}

double seconds_of(const std::function<void()>& work) {
  const double begin = used_s();
  work();
  return used_s() - begin;
}

Result run_or_exit(const std::function<void()>& main, double preempt = 0) {
  Options options;
  options.preempt = preempt;
  const Result result = run(1, options, main);
  if (!result.passed()) {
    fmt::print(stderr, "{}\n", result.failure);
    std::exit(1);
  }
  return result;
}

// One thread wakes the other and waits for it.
void hand_over(int rounds) {
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;
  const auto play = [&](int me) {
    std::unique_lock lock(mutex);
    for (int i = 0; i < rounds; ++i) {
      changed.wait(lock, [&] { return turn == me; });
      turn = 1 - me;
      changed.notify_one();
    }
  };
  std::thread other(play, 1);
  play(0);
  other.join();
}

void call_futex(std::atomic<int>& word, int operation, int value) {
  syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}

// The same between threads of the system on one processor, by a futex for each.
void hand_over_by_futex(int rounds) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  std::atomic<int> may_run[2];
  const auto play = [&](int me) {
    sched_setaffinity(0, sizeof(one), &one);
    for (int i = 0; i < rounds; ++i) {
      while (may_run[me] == 0) call_futex(may_run[me], FUTEX_WAIT, 0);
      may_run[me] = 0;
      may_run[1 - me] = 1;
      call_futex(may_run[1 - me], FUTEX_WAKE, 1);
    }
  };
  may_run[0] = 1;
  std::thread first(play, 0);
  std::thread second(play, 1);
  first.join();
  second.join();
}

void use_store(int openings, int writes) {
  Disk disk(1);
  mount("n1", disk);
  for (int i = 0; i < openings; ++i) {
    const auto env = make_rocksdb_env();
    const std::unique_ptr<Store> store = open_disk_store(*env);
    for (int j = 0; j < writes; ++j) {
      const std::string key = std::to_string(j);
      const RecordView record{key, "a value", {store->clock().stamp().value(), 1}, false};
      if (!store->apply({&record, 1}).ok()) fail("a write");
    }
  }
}

void print_costs() {
  constexpr int kRounds = 200'000;
  const double futex = seconds_of([] { hand_over_by_futex(kRounds); });
  fmt::print("handing over, threads of the system and a futex: {:.0f} ns\n",
             futex / kRounds / 2 * 1e9);
  const Result result = run_or_exit([] {
    const double fibers = seconds_of([] { hand_over(kRounds); });
    output(fmt::format("{:.1f}", fibers / kRounds / 2 * 1e9));
  });
  fmt::print("handing over, fibers and a condition variable: {} ns ({} scheduling points)\n",
             result.output, result.steps / kRounds / 2);
  constexpr int kRuns = 200;
  const double empty = seconds_of([] {
    for (int i = 0; i < kRuns; ++i) run_or_exit([] {});
  });
  fmt::print("a run of nothing (fork, exit): {:.2f} ms\n", empty / kRuns * 1e3);
  const auto store_ms = [](int openings, int writes) {
    return seconds_of([&] {
             for (int i = 0; i < kRuns / 4; ++i) run_or_exit([&] { use_store(openings, writes); });
           }) /
           (kRuns / 4) * 1e3;
  };
  const double once = store_ms(1, 0);
  const double ten_times = store_ms(10, 0);
  const double written = store_ms(1, 1000);
  fmt::print("a run that makes and closes a store: {:.2f} ms\n", once);
  fmt::print("opening and closing it again: {:.2f} ms\n", (ten_times - once) / 9);
  fmt::print("a durable write: {:.1f} us\n", written - once);
  const double threads = seconds_of([] {
    for (int i = 0; i < kRuns / 4; ++i) {
      run_or_exit([] {
        for (int j = 0; j < 1000; ++j) std::thread([] {}).join();
      });
    }
  });
  fmt::print("a thread, begun and joined: {:.2f} us\n",
             (threads / (kRuns / 4) - empty / kRuns) / 1000 * 1e6);
}

}  // namespace
}  // namespace sluice::simulation

int main(int, char** argv) {
  sluice::simulation::fix_addresses(argv);
  sluice::simulation::print_costs();
  return 0;
}
