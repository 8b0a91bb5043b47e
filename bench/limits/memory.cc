// Copying cold memory to cold memory, and checksums of cold memory.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "base/checksum.h"
#include "bench/limits/limits.h"

namespace sluice::limits {
namespace {

constexpr double kSeconds = 0.4;

// Calls work(block number) on all threads until the time is over. The threads go through the memory
// side by side: what one of them has read is not in a cache again before all of it was.
template <typename Work>
Sample timed(const Settings& settings, std::string_view name, size_t value_bytes, Work work) {
  std::atomic<size_t> next{0};
  const Meter meter;
  on_threads(settings.threads, [&](size_t) {
    while (meter.seconds() < kSeconds * settings.scale) work(next.fetch_add(1));
  });
  return meter.stop(name, value_bytes, next.load() * kBlockBytes);
}

}  // namespace

std::vector<Sample> measure_memory(const Settings& settings, const std::vector<size_t>& values) {
  const ColdMemory from;
  const ColdMemory to;
  std::vector<Sample> samples;
  samples.push_back(timed(settings, "memcpy", 0,
                          [&](size_t i) { std::memcpy(to.block(i), from.block(i), kBlockBytes); }));
  // Blocks are checksummed whatever the values are.
  std::set<size_t> sizes(values.begin(), values.end());
  sizes.insert(kBlockBytes);
  for (const size_t value_bytes : sizes) {
    std::atomic<uint64_t> sum{0};
    samples.push_back(timed(settings, "xxh3", value_bytes, [&](size_t i) {
      uint64_t found = 0;
      const uint8_t* const block = from.block(i);
      for (size_t at = 0; at < kBlockBytes; at += value_bytes) {
        found += xxh3_64(block + at, std::min(value_bytes, kBlockBytes - at));
      }
      sum.fetch_add(found, std::memory_order_relaxed);
    }));
  }
  return samples;
}

}  // namespace sluice::limits
