#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "dataplane/store/store.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

constexpr size_t kSlots = 16;

class SlotIngestTest : public StoreTest {
 protected:
  // Of every slot, with values of all sizes; by slot and key.
  static std::vector<Record> records_of(size_t per_slot, uint64_t stamp, uint64_t seed = 1) {
    Random random(seed);
    std::vector<Record> records;
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      for (const std::string& key : keys(per_slot, slot)) {
        if (random.chance(0.1)) {
          records.push_back(make_tombstone(key, stamp));
          continue;
        }
        const size_t bytes = random.chance(0.02) ? random.below(3'000'000) : random.below(5'000);
        records.push_back(make_record(key, random_bytes(random, bytes), stamp));
      }
    }
    return records;
  }
  static std::vector<Block> blocks_of(const std::vector<Record>& records) {
    std::map<uint32_t, std::vector<Record>> slots;
    for (const Record& record : records) slots[slot_of(record.key, 4)].push_back(record);
    std::vector<Block> blocks;
    for (const auto& [slot, of_slot] : slots) {
      for (Block& block : pack(of_slot)) blocks.push_back(std::move(block));
    }
    return blocks;
  }
  absl::StatusOr<Store::BlockResult> ingest(const std::vector<Block>& blocks) {
    const std::unique_ptr<SlotIngest> ingest = store_->begin_ingest();
    for (const Block& block : blocks) {
      if (const auto added = ingest->add(block); !added.ok()) return added.status();
    }
    const auto result = ingest->commit();
    if (!result.ok()) return result.status();
    uint64_t kept = 0;
    for (const auto& [slot, count] : result->kept_different) kept += count.newer;
    EXPECT_EQ(kept, result->all.kept_newer - result->all.kept_equal);
    return result->all;
  }
  void expect_holds(const std::vector<Record>& records) {
    std::map<std::string, Record> here;
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      for (Record& record : read_all(*store_->scan(slot))) here[record.key] = std::move(record);
    }
    EXPECT_EQ(here.size(), records.size());
    for (const Record& record : records) {
      const auto found = here.find(record.key);
      ASSERT_NE(found, here.end()) << record.key;
      EXPECT_EQ(found->second.version, record.version) << record.key;
      EXPECT_EQ(found->second.tombstone, record.tombstone) << record.key;
      EXPECT_TRUE(found->second.value == record.value) << record.key;
    }
    expect_digests_match_scans();
  }
};

TEST_F(SlotIngestTest, FillsEmptySlotsWithoutWritingTheirRecordsToTheLog) {
  const std::vector<Record> records = records_of(60, stamp_at(10));
  const uint64_t before = store_->durable_sequence();
  const auto result = ingest(blocks_of(records));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->changed, records.size());
  EXPECT_EQ(result->kept_newer, 0u);
  expect_holds(records);
  // An earlier state of the folder is told by its sequence: a row of the ingestion moves it, and
  // the clock's ceiling may. Records would move it by one each.
  EXPECT_GT(store_->durable_sequence(), before);
  EXPECT_LE(store_->durable_sequence(), before + 2);
  EXPECT_GE(store_->clock().now(), stamp_at(10));
  open();
  expect_holds(records);
}

TEST_F(SlotIngestTest, TakesBlocksInAnyOrderAndMoreThanOnce) {
  const std::vector<Record> records = records_of(60, stamp_at(10));
  std::vector<Block> blocks = blocks_of(records);
  const size_t once = blocks.size();
  for (size_t i = 0; i < once; i += 2) blocks.push_back(blocks[i]);
  Random random(7);
  for (size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random.below(i)]);
  const auto result = ingest(blocks);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->changed, records.size());
  expect_holds(records);
}

TEST_F(SlotIngestTest, LeavesWhatIsHereAlone) {
  const std::vector<Record> records = records_of(40, stamp_at(10));
  ASSERT_TRUE(ingest(blocks_of(records)).ok());
  const auto repeated = ingest(blocks_of(records));
  ASSERT_TRUE(repeated.ok()) << repeated.status();
  EXPECT_EQ(repeated->changed, 0u);
  EXPECT_EQ(repeated->kept_equal, records.size());
  EXPECT_EQ(repeated->kept_newer, records.size());
  expect_holds(records);
}

TEST_F(SlotIngestTest, TheNewerRecordWinsWhereSlotsHoldKeysAlready) {
  std::vector<Record> records = records_of(40, stamp_at(10));
  const std::string older = records[3].key;
  const std::string newer = records[5].key;
  apply(make_record(older, "older", stamp_at(1)));
  apply(make_record(newer, "newer", stamp_at(50)));
  apply(make_record(records[200].key, large_value(), stamp_at(60)));
  const auto result = ingest(blocks_of(records));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->changed, records.size() - 2);
  EXPECT_EQ(result->kept_newer, 2u);
  EXPECT_EQ(result->kept_equal, 0u);
  records[5] = make_record(newer, "newer", stamp_at(50));
  records[200] = make_record(records[200].key, large_value(), stamp_at(60));
  expect_holds(records);
}

TEST_F(SlotIngestTest, GoesBesideKeysThatAreNotInItsWay) {
  const std::vector<std::string> names = keys(40);
  std::vector<Record> records;
  for (size_t i = 0; i < names.size(); ++i) {
    records.push_back(make_record(names[i], fmt::format("value {}", i), stamp_at(5)));
  }
  apply(records.front());
  apply(records.back());
  const uint64_t before = store_->durable_sequence();
  const auto result = ingest(pack({records.begin() + 1, records.end() - 1}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->changed, records.size() - 2);
  EXPECT_LE(store_->durable_sequence(), before + 2) << "records were written to the log";
  expect_holds(records);
}

TEST_F(SlotIngestTest, AValueIsLeftOutWhileOneOfItsPiecesIsMissing) {
  const std::vector<std::string> names = keys(3);
  const std::vector<Record> records = {make_record(names[0], "before", stamp_at(1)),
                                       make_record(names[1], large_value(), stamp_at(1)),
                                       make_record(names[2], "after", stamp_at(1))};
  const std::vector<Block> blocks = pack({records[1]});
  ASSERT_GT(blocks.size(), 2u);
  for (size_t missing = 0; missing < blocks.size(); ++missing) {
    std::vector<Block> others = blocks;
    others.erase(others.begin() + static_cast<int64_t>(missing));
    others.push_back(pack({records[0]})[0]);
    others.push_back(pack({records[2]})[0]);
    const auto result = ingest(others);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->changed, missing == 0 ? 2u : 0u);
    expect_holds({records[0], records[2]});
  }
  EXPECT_EQ(fragment_bytes_on_disk(), 0u);
  open();
  ASSERT_TRUE(ingest(blocks).ok());
  expect_holds(records);
}

TEST_F(SlotIngestTest, TwoVersionsOfAKeyAreDecidedByVersion) {
  const std::string key = keys(1)[0];
  const Record winner = make_record(key, "winner", stamp_at(9));
  std::vector<Block> blocks = pack({winner});
  for (Block& block : pack({make_record(key, "loser", stamp_at(8))})) blocks.push_back(block);
  const auto result = ingest(blocks);
  ASSERT_TRUE(result.ok()) << result.status();
  expect_holds({winner});
}

TEST_F(SlotIngestTest, DamagedBlocksAndThoseOfOtherClustersAreRefused) {
  std::vector<Block> blocks = pack({make_record(keys(1)[0], "value", stamp_at(1))});
  blocks[0].back() ^= 1;
  EXPECT_EQ(ingest(blocks).status().code(), absl::StatusCode::kDataLoss);
  const std::string key = keys(1)[0];
  EXPECT_EQ(ingest(pack({make_record(key, "value", stamp_at(1))}, 5)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// A block of 1 MiB whose keys share all but their ends.
TEST_F(SlotIngestTest, BlocksThatUnfoldToAMultipleAreRefused) {
  std::vector<Record> records;
  const std::string prefix(4000, 'p');
  for (int i = 0; records.size() < 4000; ++i) {
    std::string key = fmt::format("{}{:08}", prefix, i);
    if (slot_of(key, 4) == 3) records.push_back(make_record(std::move(key), "v", stamp_at(1)));
  }
  const std::vector<Block> blocks = pack(records);
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_EQ(ingest(blocks).status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(store_->apply_block(blocks[0]).ok());
}

TEST_F(SlotIngestTest, LosesNoWriteOfOthersThatComesMeanwhile) {
  for (uint64_t round = 0; round < 8; ++round) {
    const std::vector<Record> records = records_of(50, stamp_at(10), round);
    const auto blocks = blocks_of(records);
    std::vector<Record> newer;
    std::thread writer([&] {
      for (size_t i = round; i < records.size(); i += 7) {
        newer.push_back(make_record(records[i].key, "newer", stamp_at(20)));
        EXPECT_TRUE(apply_status(newer.back()).ok());
      }
    });
    EXPECT_TRUE(ingest(blocks).ok());
    writer.join();
    expect_digests_match_scans();
    for (const Record& record : newer) EXPECT_EQ(get(record.key), "newer") << record.key;
    for (const Record& record : records) {
      const auto here = store_->get(record.key);
      ASSERT_TRUE(here.ok() && here->has_value()) << record.key;
    }
    store_.reset();
    std::filesystem::remove_all(options().folder);
    open();
  }
}

TEST_F(SlotIngestTest, TakesAnArmedCutFirstAndTellsWhatComesAfterIt) {
  const Record before = make_record("before", "1", stamp_at(0, 1));
  move_clock_to(0);
  apply(before);
  ASSERT_TRUE(store_->arm_cut({std::string(kBackup), stamp_at(5), 1, false}).ok());
  const std::string key = keys(1)[0];
  const auto later = ingest(pack({make_record(key, "later", stamp_at(6))}));
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_FALSE(later->after_cut);
  EXPECT_EQ(read_cut(kBackup).size(), 1u) << "the cut has a record stamped after it";
  const auto late = ingest(pack({make_record(keys(1, 4)[0], "late", stamp_at(4))}));
  ASSERT_TRUE(late.ok()) << late.status();
  EXPECT_TRUE(late->after_cut);
  EXPECT_EQ(read_cut(kBackup).size(), 1u);
}

TEST_F(SlotIngestTest, FilesThatACrashLeftAreRemoved) {
  const std::string folder = options().folder + "/ingest";
  store_.reset();
  std::ofstream(folder + "/7-records.sst") << "half of a table";
  open();
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

}  // namespace
}  // namespace sluice
