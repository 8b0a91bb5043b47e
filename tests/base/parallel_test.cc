#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

namespace sluice {
namespace {

TEST(ParallelFor, RunsEachJobOnce) {
  std::atomic<int> runs[100] = {};
  parallel_for(
      std::size(runs), [&](size_t i) { ++runs[i]; }, 8);
  for (const auto& run : runs) EXPECT_EQ(run, 1);
}

// On whichever thread: neither ends the process, nor is the result of that job missing silently.
TEST(ParallelFor, ThrowsWhatAJobThrewWhenAllAreDone) {
  for (const size_t count : {1, 2, 50}) {
    for (const size_t thrower : {size_t{0}, count - 1}) {
      std::atomic<size_t> runs{0};
      const auto run = [&](size_t i) {
        ++runs;
        if (i == thrower) throw std::runtime_error("a job");
      };
      EXPECT_THROW(parallel_for(count, run, 4), std::runtime_error);
      EXPECT_EQ(runs, count);
    }
  }
}

}  // namespace
}  // namespace sluice
