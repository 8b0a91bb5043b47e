// The record store beside the bare RocksDB under it: how fast a slot is scanned with its values
// copied out (what a source does), and how fast records are applied durably (what a replica does).
#include <benchmark/benchmark.h>
#include <rocksdb/db.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "dataplane/pipeline/slot_packer.h"
#include "dataplane/store/store.h"
#include "dataplane/stream/envelope.h"

namespace sluice {
namespace {

constexpr size_t kDataBytes = size_t{128} << 20;
constexpr uint32_t kSlotBits = 4;
constexpr uint32_t kSmallSlotBits = 12;

struct Folder {
  Folder() : path((std::filesystem::temp_directory_path() / "sluice-bench-XXXXXX").string()) {
    if (::mkdtemp(path.data()) == nullptr) std::abort();
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string path;
};

std::unique_ptr<Store> open_store_in(const Folder& folder, uint32_t slot_bits = kSlotBits) {
  Store::Options options;
  options.folder = folder.path + "/store";
  options.cluster = "bench";
  options.node = "bench";
  options.slot_bits = slot_bits;
  auto store = Store::open(options);
  if (!store.ok()) std::abort();
  return *std::move(store);
}

std::string value_of(Random& random, size_t size) {
  std::string value(size, '\0');
  for (char& c : value) c = static_cast<char>(random.next());
  return value;
}

// Applies `bytes` of records in calls of about 1 MiB, and returns how many records that were.
size_t fill(Store& store, size_t value_bytes, size_t bytes) {
  Random random(1);
  const std::string value = value_of(random, value_bytes);
  const size_t count = bytes / value_bytes,
               per_call = std::max<size_t>(1, (size_t{1} << 20) / value_bytes);
  std::vector<Record> records(per_call);
  std::vector<RecordView> views(per_call);
  for (size_t done = 0; done < count; done += per_call) {
    for (size_t i = 0; i < per_call; ++i) {
      records[i] = {
          fmt::format("key-{:016x}", random.next()), value, {*store.clock().stamp(), 1}, false};
      views[i] = records[i].view();
    }
    if (!store.apply(views).ok()) std::abort();
  }
  return count;
}

std::shared_ptr<CutReader> cut_of(Store& store) {
  const std::string backup = make_uuid();
  if (!store.arm_cut({backup, store.clock().now() + 1, 1, false}).ok()) std::abort();
  while (!*store.take_due_cut()) system_clock().sleep_ns(1'000'000);
  return *store.open_cut(backup);
}

// A store filled with values of the argument's size; every value copied out, slot by slot.
void BM_ScanCut(benchmark::State& state) {
  const Folder folder;
  const auto store = open_store_in(folder);
  fill(*store, static_cast<size_t>(state.range(0)), kDataBytes);
  const auto cut = cut_of(*store);
  std::vector<uint8_t> into(kMaxValueBytes);
  int64_t bytes = 0, records = 0;
  for (auto _ : state) {
    for (uint32_t slot = 0; slot < uint32_t{1} << kSlotBits; ++slot) {
      const auto scan = cut->scan(slot);
      SlotScan::Item item;
      while (*scan->next(&item)) {
        if (!scan->read_value(0, {into.data(), item.summary.value_bytes}).ok()) std::abort();
        benchmark::DoNotOptimize(into.data());
        bytes += static_cast<int64_t>(item.key.size() + item.summary.value_bytes);
        ++records;
      }
    }
  }
  state.SetBytesProcessed(bytes);
  state.SetItemsProcessed(records);
}
BENCHMARK(BM_ScanCut)
    ->Arg(100)
    ->Arg(4096)
    ->Arg(65536)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// What a node of a cluster with three replicas does in a backup: of many small slots it scans each
// third, and packs their records into blocks with checksums.
void BM_ScanAndPack(benchmark::State& state) {
  const Folder folder;
  const auto store = open_store_in(folder, kSmallSlotBits);
  fill(*store, static_cast<size_t>(state.range(0)), kDataBytes);
  const auto cut = cut_of(*store);
  Arena::Options arena_options;
  arena_options.bytes = 16 * kBufferBytes;
  const auto arena = *Arena::create(arena_options);
  const auto pool = *arena->make_pool("bench", 16);
  SlotPacker packer;
  int64_t bytes = 0, records = 0;
  for (auto _ : state) {
    for (uint32_t slot = 0; slot < uint32_t{1} << kSmallSlotBits; slot += 3) {
      packer.begin(cut->scan(slot), slot, kSmallSlotBits);
      SlotPacker::Packed packed;
      do {
        BlockBuffer buffer = pool->try_take();
        packed = *packer.pack(buffer);
        Envelope envelope;
        envelope.kind = MessageKind::kBlock;
        envelope.payload_bytes = packed.bytes;
        benchmark::DoNotOptimize(Envelope::seal(envelope, buffer));
        bytes += static_cast<int64_t>(packed.record_bytes);
        records += static_cast<int64_t>(packed.records);
      } while (!packed.last);
    }
  }
  state.SetBytesProcessed(bytes);
  state.SetItemsProcessed(records);
}
BENCHMARK(BM_ScanAndPack)->Arg(100)->Arg(4096)->Unit(benchmark::kMillisecond)->UseRealTime();

// The same with nothing of ours in it: one RocksDB with the same tables, memtables and merges,
// whose rows are gone through from the first to the last; values copied out.
void BM_ScanRocksDb(benchmark::State& state) {
  const Folder folder;
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.block_size = size_t{64} << 10;
  rocksdb::Options options;
  options.create_if_missing = true;
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = Store::Options().memtable_bytes / 2;
  options.level0_file_num_compaction_trigger = 8;
  options.level_compaction_dynamic_level_bytes = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  rocksdb::DB* made = nullptr;
  if (!rocksdb::DB::Open(options, folder.path, &made).ok()) std::abort();
  const std::unique_ptr<rocksdb::DB> db(made);
  Random random(1);
  const auto value_bytes = static_cast<size_t>(state.range(0));
  const std::string value = value_of(random, value_bytes);
  for (size_t done = 0; done < kDataBytes; done += value_bytes) {
    if (!db->Put({}, fmt::format("key-{:016x}", random.next()), value).ok()) std::abort();
  }
  if (!db->Flush({}).ok()) std::abort();
  std::vector<uint8_t> into(kMaxValueBytes);
  int64_t bytes = 0, records = 0;
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  for (auto _ : state) {
    const std::unique_ptr<rocksdb::Iterator> rows(db->NewIterator(read));
    for (rows->SeekToFirst(); rows->Valid(); rows->Next()) {
      std::memcpy(into.data(), rows->value().data(), rows->value().size());
      benchmark::DoNotOptimize(into.data());
      bytes += static_cast<int64_t>(rows->key().size() + rows->value().size());
      ++records;
    }
  }
  state.SetBytesProcessed(bytes);
  state.SetItemsProcessed(records);
}
BENCHMARK(BM_ScanRocksDb)
    ->Arg(100)
    ->Arg(4096)
    ->Arg(65536)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// Durable writes, 1 MiB of records a call.
void BM_Apply(benchmark::State& state) {
  const Folder folder;
  const auto store = open_store_in(folder);
  const auto value_bytes = static_cast<size_t>(state.range(0));
  constexpr size_t kBytesPerRound = size_t{32} << 20;
  size_t records = 0;
  for (auto _ : state) records += fill(*store, value_bytes, kBytesPerRound);
  state.SetBytesProcessed(static_cast<int64_t>(records * value_bytes));
  state.SetItemsProcessed(static_cast<int64_t>(records));
}
BENCHMARK(BM_Apply)->Arg(100)->Arg(4096)->Arg(65536)->Unit(benchmark::kMillisecond)->UseRealTime();

// Durable writes as an import brings them: 8192 records in the order of their rows, over many
// slots, into a store that grows.
void BM_ApplyBatches(benchmark::State& state) {
  const Folder folder;
  const auto store = open_store_in(folder, kSmallSlotBits);
  Random random(1);
  const std::string value = value_of(random, static_cast<size_t>(state.range(0)));
  const size_t count = std::min<size_t>(8192, (size_t{768} << 10) / (value.size() + 20));
  std::vector<std::string> keys(count);
  std::vector<RecordView> views(count);
  for (auto _ : state) {
    state.PauseTiming();
    for (std::string& key : keys) {
      do {
        key = fmt::format("key-{:016x}", random.next());
      } while (slot_of(key, kSmallSlotBits) % 10 != 0);
    }
    std::sort(keys.begin(), keys.end(), [](const std::string& a, const std::string& b) {
      const uint32_t slots[2] = {slot_of(a, kSmallSlotBits), slot_of(b, kSmallSlotBits)};
      return slots[0] != slots[1] ? slots[0] < slots[1] : a < b;
    });
    const Version version{*store->clock().stamp(), 1};
    for (size_t i = 0; i < count; ++i) views[i] = {keys[i], value, version, false};
    state.ResumeTiming();
    if (!store->apply(views).ok()) std::abort();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * count * value.size()));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * count));
}
BENCHMARK(BM_ApplyBatches)->Arg(100)->Iterations(150)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_ApplyBatches)->Arg(4096)->Iterations(800)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice
