// What the dataplane's steps cost for each byte or record, without wire and disk.
#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <string>

#include "base/random.h"
#include "base/status.h"
#include "dataplane/block/block.h"
#include "dataplane/pipeline/slot_digester.h"
#include "dataplane/pipeline/slot_packer.h"
#include "dataplane/stream/envelope.h"

namespace sluice {
namespace {

// A slot in memory, as a store would hand it out.
class MemoryScan final : public SlotScan {
 public:
  MemoryScan(const std::vector<std::string>& keys, const std::string& value)
      : keys_(keys), value_(value), digest_(xxh3_128(value)) {}
  absl::StatusOr<bool> next(Item* item) override {
    if (at_ == keys_.size()) return false;
    item->key = keys_[at_++];
    item->summary = {{Version::make_stamp(1'700'000'000'000, 0), 1}, false, value_.size(), digest_};
    return true;
  }
  absl::Status read_value(uint64_t offset, std::span<uint8_t> into) override {
    std::memcpy(into.data(), value_.data() + offset, into.size());
    return absl::OkStatus();
  }

 private:
  const std::vector<std::string>& keys_;
  const std::string& value_;
  const Digest128 digest_;
  size_t at_ = 0;
};

struct Slot {
  explicit Slot(size_t value_bytes) : value(value_bytes, 'v') {
    for (size_t i = 0; keys.size() < (size_t{4} << 20) / (value_bytes + 16); ++i) {
      std::string key = fmt::format("key-{:010}", i);
      if (slot_of(key, 1) == 0) keys.push_back(std::move(key));
    }
    Arena::Options options;
    options.bytes = 16 * kBufferBytes;
    arena = *Arena::create(options);
    pool = *arena->make_pool("bench", 16);
  }
  uint64_t bytes() const { return keys.size() * (keys.front().size() + value.size()); }

  std::vector<std::string> keys;
  std::string value;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<BlockPool> pool;
};

void pack_slot(benchmark::State& state) {
  Slot slot(static_cast<size_t>(state.range(0)));
  SlotPacker packer;
  for (auto _ : state) {
    packer.begin(std::make_unique<MemoryScan>(slot.keys, slot.value), 0, 1);
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
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * slot.bytes()));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * slot.keys.size()));
}
BENCHMARK(pack_slot)->Arg(100)->Arg(4096)->Arg(65536);

// The target's work on an agreed slot: block checksum, every entry, every value's digest, the
// slot's.
void check_slot(benchmark::State& state) {
  Slot slot(static_cast<size_t>(state.range(0)));
  SlotPacker packer;
  packer.begin(std::make_unique<MemoryScan>(slot.keys, slot.value), 0, 1);
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
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * slot.bytes()));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * slot.keys.size()));
}
BENCHMARK(check_slot)->Arg(100)->Arg(4096)->Arg(65536);

}  // namespace
}  // namespace sluice
