// Packing and reading blocks, and digests of what is in them, beside memcpy and XXH3 of the same
// bytes: what of a block's cost is the format's.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/random.h"
#include "dataplane/block/block.h"
#include "dataplane/pipeline/slot_digester.h"

namespace sluice {
namespace {

constexpr uint32_t kSlotBits = 1;

// About 64 MiB, well over a last-level cache's share, so that packing reads from memory.
struct Records {
  static constexpr size_t kKeyBytes = 16;
  size_t count;
  std::string keys;  // ascending, each of kKeyBytes
  std::string values;
  size_t value_bytes;

  explicit Records(size_t each)
      : count((size_t{64} << 20) / (each + kKeyBytes)), value_bytes(each) {
    std::vector<std::string> sorted;
    Random random(1);
    while (sorted.size() < count) {
      std::string key(kKeyBytes, '\0');
      for (char& byte : key) byte = static_cast<char>(random.next());
      if (slot_of(key, kSlotBits) == 0) sorted.push_back(std::move(key));
    }
    std::sort(sorted.begin(), sorted.end());
    for (const std::string& key : sorted) keys += key;
    values.resize(count * each, 'v');
  }

  BlockEntry entry(size_t i) const {
    BlockEntry entry;
    entry.key = std::string_view(keys).substr(i * kKeyBytes, kKeyBytes);
    entry.version = {Version::make_stamp(1'700'000'000'000 + i * 7919 % 60'000, 0), 1};
    entry.value_bytes = value_bytes;
    entry.fragment = std::string_view(values).substr(i * value_bytes, value_bytes);
    return entry;
  }
};

// Fills one block from record `at` on; moves `at` behind what fitted.
uint32_t fill(BlockBuilder& builder, const Records& records, size_t& at,
              std::span<uint8_t> memory) {
  builder.begin(memory, 0, kSlotBits);
  while (at < records.count && builder.add(records.entry(at)) != BlockBuilder::kFull) ++at;
  return builder.finish();
}

void pack(benchmark::State& state) {
  const Records records(static_cast<size_t>(state.range(0)));
  std::vector<uint8_t> memory(kMaxBlockBytes);
  BlockBuilder builder;
  size_t at = 0;
  int64_t bytes = 0;
  int64_t count = 0;
  for (auto _ : state) {
    const size_t before = at;
    bytes += fill(builder, records, at, memory);
    count += static_cast<int64_t>(at - before);
    if (at == records.count) at = 0;
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(bytes);
  state.SetItemsProcessed(count);
}

std::vector<std::vector<uint8_t>> blocks_of(const Records& records) {
  std::vector<std::vector<uint8_t>> blocks;
  BlockBuilder builder;
  std::vector<uint8_t> memory(kMaxBlockBytes);
  for (size_t at = 0; at < records.count;) {
    const uint32_t bytes = fill(builder, records, at, memory);
    blocks.emplace_back(memory.begin(), memory.begin() + bytes);
  }
  return blocks;
}

// Runs `work` on one block after the other, all of them cold.
template <typename Work>
void on_blocks(benchmark::State& state, Work work) {
  const auto blocks = blocks_of(Records(static_cast<size_t>(state.range(0))));
  size_t at = 0;
  int64_t bytes = 0;
  for (auto _ : state) {
    work(blocks[at]);
    bytes += static_cast<int64_t>(blocks[at].size());
    at = (at + 1) % blocks.size();
  }
  state.SetBytesProcessed(bytes);
}

void parse(benchmark::State& state) {
  int64_t count = 0;
  on_blocks(state, [&](const std::vector<uint8_t>& block) {
    auto reader = BlockReader::open(block);
    BlockEntry entry;
    while (reader.ok()) {
      const auto more = reader->next(&entry);
      if (!more.ok() || !*more) break;
      benchmark::DoNotOptimize(entry);
      ++count;
    }
  });
  state.SetItemsProcessed(count);
}

// Every entry with its value's digest and the slot's, as a receiver of the block does it.
void digest(benchmark::State& state) {
  int64_t count = 0;
  on_blocks(state, [&](const std::vector<uint8_t>& block) {
    SlotDigester digester;
    auto reader = BlockReader::open(block);
    if (!reader.ok() || !digester.add_block(*reader).ok()) std::abort();
    benchmark::DoNotOptimize(digester.digest());
    count += static_cast<int64_t>(digester.digest().records);
  });
  state.SetItemsProcessed(count);
}

// What a write adds to it: the record that goes is subtracted, the one that comes is added.
void digest_of_a_write(benchmark::State& state) {
  const Records records(static_cast<size_t>(state.range(0)));
  SlotDigest slot;
  size_t at = 0;
  for (auto _ : state) {
    const BlockEntry entry = records.entry(at);
    RecordSummary summary{entry.version, false, entry.value_bytes, {1, 2}};
    slot.add(entry.key, summary);
    ++summary.version.stamp;
    slot.remove(entry.key, summary);
    at = (at + 1) % records.count;
  }
  benchmark::DoNotOptimize(slot);
  state.SetItemsProcessed(state.iterations());
}

void plain_memcpy(benchmark::State& state) {
  std::vector<uint8_t> memory(kMaxBlockBytes);
  on_blocks(state, [&](const std::vector<uint8_t>& block) {
    std::memcpy(memory.data(), block.data(), block.size());
    benchmark::ClobberMemory();
  });
}

void checksum(benchmark::State& state) {
  on_blocks(state, [](const std::vector<uint8_t>& block) {
    benchmark::DoNotOptimize(xxh3_64(block.data(), block.size()));
  });
}

void value_sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->Arg(100)->Arg(4096)->Arg(65536);
}
BENCHMARK(pack)->Apply(value_sizes);
BENCHMARK(parse)->Apply(value_sizes);
BENCHMARK(plain_memcpy)->Apply(value_sizes);
BENCHMARK(checksum)->Apply(value_sizes);
BENCHMARK(digest)->Apply(value_sizes);
BENCHMARK(digest_of_a_write)->Arg(100);

}  // namespace
}  // namespace sluice
