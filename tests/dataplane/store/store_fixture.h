// What the store's tests share: a folder of their own, a clock that they move, and recomputation of
// what the store keeps up.
#ifndef SLUICE_TESTS_DATAPLANE_STORE_STORE_FIXTURE_H_
#define SLUICE_TESTS_DATAPLANE_STORE_STORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/status.h"
#include "dataplane/block/block.h"
#include "dataplane/store/store.h"
#include "dataplane/store/store_db.h"
#include "tests/dataplane/temp_folder.h"

namespace sluice {

inline constexpr int64_t kStartMs = 1'700'000'000'000;
inline constexpr std::string_view kBackup = "11111111-2222-4333-8444-555555555555";
inline constexpr std::string_view kOtherBackup = "99999999-2222-4333-8444-555555555555";

inline uint64_t stamp_at(int64_t ms, uint16_t counter = 0) {
  return Version::make_stamp(static_cast<uint64_t>(kStartMs + ms), counter);
}

inline Record make_record(std::string key, std::string value, uint64_t stamp, uint32_t node = 1) {
  return {std::move(key), std::move(value), {stamp, node}, false};
}

inline Record make_tombstone(std::string key, uint64_t stamp, uint32_t node = 1) {
  return {std::move(key), "", {stamp, node}, true};
}

inline std::string random_bytes(Random& random, size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; i += 8) {
    const uint64_t word = random.next();
    std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return bytes;
}

// Every record of a scan, read in full and checked against its summary.
inline std::vector<Record> read_all(SlotScan& scan) {
  std::vector<Record> records;
  SlotScan::Item item;
  for (;;) {
    const auto more = scan.next(&item);
    EXPECT_TRUE(more.ok()) << more.status();
    if (!more.ok() || !*more) return records;
    const auto value = scan.value(item);
    EXPECT_TRUE(value.ok()) << value.status();
    if (!value.ok()) return records;
    records.push_back(
        {std::string(item.key), *value, item.summary.version, item.summary.tombstone});
    EXPECT_EQ(records.back().view().summary(), item.summary) << "of key " << item.key;
    if (records.size() > 1) {
      EXPECT_LT(records[records.size() - 2].key, records.back().key);
    }
  }
}

inline SlotDigest digest_of(const std::vector<Record>& records) {
  SlotDigest digest;
  for (const Record& record : records) digest.add(record.key, record.view().summary());
  return digest;
}

using Block = std::vector<uint8_t>;

// Packs records of one slot, in key order, into as many blocks as they take.
inline std::vector<Block> pack(const std::vector<Record>& records, uint32_t slot_bits = 4) {
  std::vector<Block> blocks;
  Block memory(kMaxBlockBytes);
  BlockBuilder builder;
  const uint32_t slot = slot_of(records.at(0).key, slot_bits);
  builder.begin(memory, slot, slot_bits);
  const auto finish = [&] {
    memory.resize(builder.finish());
    blocks.push_back(memory);
    memory.resize(kMaxBlockBytes);
    builder.begin(memory, slot, slot_bits);
  };
  for (const Record& record : records) {
    BlockEntry entry{record.key, record.version, record.tombstone, record.value.size(),
                     0,          record.value};
    for (;;) {
      const size_t added = builder.add(entry);
      if (added == BlockBuilder::kFull) {
        finish();
        continue;
      }
      entry.fragment_offset += added;
      entry.fragment.remove_prefix(added);
      if (entry.fragment.empty()) break;
      finish();
    }
  }
  if (!builder.empty()) finish();
  return blocks;
}

// Keys of one slot of 16, in order.
inline std::vector<std::string> keys(size_t count, uint32_t slot = 3) {
  std::vector<std::string> keys;
  for (int i = 0; keys.size() < count; ++i) {
    std::string key = fmt::format("key-{:06}", i);
    if (slot_of(key, 4) == slot) keys.push_back(std::move(key));
  }
  return keys;
}
inline std::string large_value(size_t size = 3'500'000) {
  Random random(size);
  return random_bytes(random, size);
}

class StoreTest : public ::testing::Test {
 protected:
  Store::Options options() {
    Store::Options options;
    options.folder = folder_.path() + "/node";
    options.cluster = "cluster-uuid";
    options.node = "n1";
    options.node_number = 1;
    options.slot_bits = 4;
    options.memtable_bytes = size_t{16} << 20;
    options.block_cache_bytes = size_t{8} << 20;
    options.clock = &wall_;
    return options;
  }
  void open() {
    store_.reset();
    auto store = Store::open(options());
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void SetUp() override { open(); }

  ApplyResult apply(const Record& record) {
    const RecordView view = record.view();
    const auto results = store_->apply({&view, 1});
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? results->at(0) : ApplyResult{};
  }
  absl::Status apply_status(const Record& record) {
    const RecordView view = record.view();
    return store_->apply({&view, 1}).status();
  }
  // The value, "(none)" or "(deleted)".
  std::string get(std::string_view key) {
    const auto record = store_->get(key);
    EXPECT_TRUE(record.ok()) << record.status();
    if (!record.ok() || !record->has_value()) return "(none)";
    return (*record)->tombstone ? "(deleted)" : (*record)->value;
  }
  void expect_digests_match_scans() {
    const std::vector<SlotDigest> digests = store_->digests();
    ASSERT_EQ(digests.size(), size_t{1} << store_->slot_bits());
    for (uint32_t slot = 0; slot < digests.size(); ++slot) {
      EXPECT_EQ(digest_of(read_all(*store_->scan(slot))), digests[slot]) << "slot " << slot;
    }
  }
  // All records of a cut by key, its digests checked against them.
  std::map<std::string, Record> read_cut(std::string_view backup) {
    std::map<std::string, Record> records;
    const auto cut = store_->open_cut(backup);
    EXPECT_TRUE(cut.ok()) << cut.status();
    if (!cut.ok()) return records;
    for (uint32_t slot = 0; slot < (*cut)->digests().size(); ++slot) {
      const std::vector<Record> of_slot = read_all(*(*cut)->scan(slot));
      EXPECT_EQ(digest_of(of_slot), (*cut)->digests()[slot]) << "slot " << slot;
      for (const Record& record : of_slot) records[record.key] = record;
    }
    return records;
  }
  // Closes the store and counts the bytes of all fragment rows in its folder.
  size_t fragment_bytes_on_disk() {
    store_.reset();
    const auto db =
        StoreDb::open_read_only(options().folder + "/records", rocksdb::NewLRUCache(1 << 20));
    EXPECT_TRUE(db.ok()) << db.status();
    if (!db.ok()) return 0;
    size_t bytes = 0;
    const std::unique_ptr<rocksdb::Iterator> rows(
        (*db)->get()->NewIterator(rocksdb::ReadOptions(), (*db)->fragments()));
    for (rows->SeekToFirst(); rows->Valid(); rows->Next()) bytes += rows->value().size();
    return bytes;
  }
  void move_clock_to(int64_t ms) { wall_.set_wall_ms(kStartMs + ms); }

  TempFolder folder_;
  ManualClock wall_{kStartMs};
  std::unique_ptr<Store> store_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_DATAPLANE_STORE_STORE_FIXTURE_H_
