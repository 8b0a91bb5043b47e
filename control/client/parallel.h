// A few calls at the same time, for what waits on other nodes.
#ifndef SLUICE_CONTROL_CLIENT_PARALLEL_H_
#define SLUICE_CONTROL_CLIENT_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace sluice {

// Calls run(0) to run(count - 1) from at most `threads` threads, and returns when all have
// returned.
template <typename Run>
void parallel_for(size_t count, const Run& run, size_t threads = 16) {
  if (count == 1) {
    run(size_t{0});
    return;
  }
  std::atomic<size_t> next{0};
  std::vector<std::thread> workers;
  for (size_t i = 0; i < std::min(count, threads); ++i) {
    workers.emplace_back([&] {
      for (size_t job = next++; job < count; job = next++) run(job);
    });
  }
  for (std::thread& worker : workers) worker.join();
}

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_PARALLEL_H_
