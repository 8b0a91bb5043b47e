// What the dataplane's steps cost for each byte or record, without wire and disk.
#include <benchmark/benchmark.h>

#include <memory>
#include <utility>
#include <vector>

#include "bench/memory_cut.h"
#include "dataplane/block/block.h"
#include "dataplane/pipeline/slot_digester.h"
#include "dataplane/pipeline/slot_packer.h"
#include "dataplane/stream/envelope.h"

namespace sluice {
namespace {

struct Slot {
  explicit Slot(size_t value_bytes)
      : records(MemorySlot::make(0, 1, size_t{4} << 20, value_bytes)) {
    Arena::Options options;
    options.bytes = 16 * kBufferBytes;
    arena = *Arena::create(options);
    pool = *arena->make_pool("bench", 16);
  }

  const MemorySlot records;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<BlockPool> pool;
};

void set_processed(benchmark::State& state, const MemorySlot& slot) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * slot.bytes()));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * slot.records.size()));
}

void pack_slot(benchmark::State& state) {
  Slot slot(static_cast<size_t>(state.range(0)));
  SlotPacker packer;
  for (auto _ : state) {
    packer.begin(std::make_unique<MemoryScan>(slot.records), 0, 1);
    for (bool last = false; !last;) {
      BlockBuffer buffer = slot.pool->try_take();
      const SlotPacker::Packed packed = *packer.pack(buffer);
      Envelope envelope;
      envelope.kind = MessageKind::kBlock;
      envelope.payload_bytes = packed.bytes;
      benchmark::DoNotOptimize(Envelope::seal(envelope, buffer));
      last = packed.last;
    }
  }
  set_processed(state, slot.records);
}
BENCHMARK(pack_slot)->Arg(100)->Arg(4096)->Arg(65536);

// The target's work on an agreed slot: block checksum, every entry, every value's digest, the
// slot's.
void check_slot(benchmark::State& state) {
  Slot slot(static_cast<size_t>(state.range(0)));
  SlotPacker packer;
  packer.begin(std::make_unique<MemoryScan>(slot.records), 0, 1);
  std::vector<std::pair<BlockBuffer, uint32_t>> blocks;
  for (bool last = false; !last;) {
    BlockBuffer buffer = slot.pool->try_take();
    const SlotPacker::Packed packed = *packer.pack(buffer);
    last = packed.last;
    blocks.emplace_back(std::move(buffer), packed.bytes);
  }
  SlotDigester digester;
  for (auto _ : state) {
    digester.reset();
    for (auto& [buffer, bytes] : blocks) {
      BlockReader reader = *BlockReader::open({buffer.data(), bytes});
      if (!digester.add_block(reader).ok()) state.SkipWithError("a block does not hold");
    }
    benchmark::DoNotOptimize(digester.digest());
  }
  blocks.clear();
  set_processed(state, slot.records);
}
BENCHMARK(check_slot)->Arg(100)->Arg(4096)->Arg(65536);

}  // namespace
}  // namespace sluice
