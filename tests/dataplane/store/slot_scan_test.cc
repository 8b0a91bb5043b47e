// Scans of a cut: iterators that go from slot to slot, and table blocks that end with a slot.
#include <gtest/gtest.h>
#include <rocksdb/table_properties.h>

#include <algorithm>
#include <filesystem>

#include "dataplane/store/slot_blocks.h"
#include "dataplane/store/store_impl.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

constexpr uint32_t kScannedSlots = 16;

class SlotScanTest : public StoreTest {
 protected:
  // In several table files and the log, with slots that hold nothing.
  void fill() {
    Random random(7);
    for (int file = 0; file < 4; ++file) {
      for (int i = 0; i < 60; ++i) {
        const std::string key = fmt::format("key-{}", random.next() % 150);
        if (slot_of(key, 4) % 5 == 3) continue;
        // A few values are large enough for rows of their own.
        const size_t bytes = i % 20 == 0 ? 200'000 : random.next() % 3'000;
        const uint64_t stamp = stamp_at(file * 100 + i + 1);
        apply(i % 9 == 8 ? make_tombstone(key, stamp)
                         : make_record(key, random_bytes(random, bytes), stamp));
      }
      store_.reset();  // what opening finds in the log goes into a table
      open_again();
    }
    apply(make_record("last", "in the log", stamp_at(900)));
  }
  void open_again() {
    auto store = Store::open(options());
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::shared_ptr<CutReader> cut() {
    EXPECT_TRUE(store_->arm_cut({std::string(kBackup), stamp_at(1'000), 1, false}).ok());
    EXPECT_TRUE(store_->clock().observe(stamp_at(1'000) + 1).ok());
    EXPECT_TRUE(*store_->take_due_cut());
    return *store_->open_cut(kBackup);
  }
  static void expect_slot(CutReader& cut, uint32_t slot) {
    EXPECT_EQ(digest_of(read_all(*cut.scan(slot))), cut.digests()[slot]) << "slot " << slot;
  }
};

TEST_F(SlotScanTest, SlotsInAnyOrder) {
  fill();
  const auto reader = cut();
  for (uint32_t slot = 0; slot < kScannedSlots; ++slot) expect_slot(*reader, slot);
  for (uint32_t slot = kScannedSlots; slot-- > 0;) expect_slot(*reader, slot);
  for (const uint32_t step : {2u, 3u, 5u, 7u}) {
    for (uint32_t slot = 0; slot < kScannedSlots; slot += step) expect_slot(*reader, slot);
  }
  Random random(3);
  for (int i = 0; i < 200; ++i)
    expect_slot(*reader, static_cast<uint32_t>(random.next() % kScannedSlots));
}

TEST_F(SlotScanTest, AScanThatWasGivenUpLeavesNothingOut) {
  fill();
  const auto reader = cut();
  Random random(5);
  for (int i = 0; i < 200; ++i) {
    const auto slot = static_cast<uint32_t>(random.next() % kScannedSlots);
    {
      const auto scan = reader->scan(slot);
      SlotScan::Item item;
      for (uint64_t rows = random.next() % 4; rows > 0; --rows) {
        if (!*scan->next(&item)) break;
      }
    }
    expect_slot(*reader, random.next() % 2 == 0 ? slot : (slot + 1) % kScannedSlots);
  }
}

TEST_F(SlotScanTest, ManyScansAtATime) {
  fill();
  const auto reader = cut();
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<SlotScan>> scans;
    for (uint32_t slot = 0; slot < kScannedSlots; ++slot) scans.push_back(reader->scan(slot));
    std::vector<SlotDigest> digests(kScannedSlots);
    size_t ended = 0;
    for (std::vector<bool> done(kScannedSlots); ended < kScannedSlots;) {
      for (uint32_t slot = 0; slot < kScannedSlots; ++slot) {
        SlotScan::Item item;
        if (done[slot]) continue;
        if (*scans[slot]->next(&item)) {
          digests[slot].add(item.key, item.summary);
        } else {
          EXPECT_FALSE(*scans[slot]->next(&item));
          EXPECT_FALSE(scans[slot]->read_value(0, {}).ok());
          done[slot] = true;
          ++ended;
        }
      }
    }
    EXPECT_EQ(digests, reader->digests());
  }
}

TEST_F(SlotScanTest, AScanMayOutliveItsReader) {
  fill();
  auto reader = cut();
  const std::vector<SlotDigest> digests = reader->digests();
  auto scan = reader->scan(1);
  reader.reset();
  EXPECT_FALSE(store_->drop_cut(kBackup).ok());
  EXPECT_EQ(digest_of(read_all(*scan)), digests[1]);
  scan.reset();
  EXPECT_TRUE(store_->drop_cut(kBackup).ok());
}

// Of all tables of a store.
uint64_t table_blocks(const std::string& folder) {
  const auto db = StoreDb::open_read_only(folder + "/records", rocksdb::NewLRUCache(1 << 20));
  EXPECT_TRUE(db.ok()) << db.status();
  if (!db.ok()) return 0;
  rocksdb::TablePropertiesCollection tables;
  EXPECT_TRUE((*db)->get()->GetPropertiesOfAllTables((*db)->records(), &tables).ok());
  uint64_t blocks = 0;
  for (const auto& [file, properties] : tables) blocks += properties->num_data_blocks;
  return blocks;
}

TEST_F(SlotScanTest, TableBlocksEndWithTheirSlot) {
  // 40 KB in each slot: a block of its own, where blocks of 64 KiB would hold parts of two.
  std::vector<int> records(kScannedSlots);
  for (int i = 0; *std::min_element(records.begin(), records.end()) < 10; ++i) {
    const std::string key = fmt::format("key-{}", i);
    if (records[slot_of(key, 4)] == 10) continue;
    ++records[slot_of(key, 4)];
    apply(make_record(key, std::string(4'000, 'v'), stamp_at(i + 1)));
  }
  store_.reset();
  open_again();
  store_.reset();
  EXPECT_EQ(table_blocks(options().folder), kScannedSlots);
}

TEST_F(SlotScanTest, SmallSlotsShareABlock) {
  for (int i = 0; i < 64; ++i) {
    apply(make_record(fmt::format("key-{}", i), std::string(100, 'v'), stamp_at(i + 1)));
  }
  store_.reset();
  open_again();
  store_.reset();
  EXPECT_LE(table_blocks(options().folder), 64 * 200 / kMinTableBlockBytes);
}

}  // namespace
}  // namespace sluice
