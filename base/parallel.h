// A few calls at the same time, for what waits: on other nodes, on the disk.
#ifndef SLUICE_BASE_PARALLEL_H_
#define SLUICE_BASE_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/guard.h"

namespace sluice {

// Calls run(0) to run(count - 1) from at most `threads` threads, this one among them, and returns
// when all have returned. What one of them throws is thrown here, when all have returned: no result
// is missing without a word.
template <typename Run>
void parallel_for(size_t count, const Run& run, size_t threads = 16) {
  if (count == 1) {
    run(size_t{0});
    return;
  }
  std::atomic<size_t> next{0};
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::exception_ptr thrown;
  const auto work = [&] {
    for (size_t job = next++; job < count; job = next++) {
      try {
        run(job);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (thrown == nullptr) thrown = std::current_exception();
      }
    }
  };
  workers.reserve(threads);
  for (size_t i = 1; i < std::min(count, threads); ++i) {
    auto worker = start_thread("working in parallel", work);
    if (!worker.ok()) break;  // those that there are do it
    workers.push_back(*std::move(worker));
  }
  work();
  for (std::thread& worker : workers) worker.join();
  if (thrown != nullptr) std::rethrow_exception(thrown);
}

}  // namespace sluice

#endif  // SLUICE_BASE_PARALLEL_H_
