#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "base/arena.h"
#include "dataplane/store/store.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

class ApplyBlockTest : public StoreTest {
 protected:
  Store::BlockResult apply_block(const Block& block) {
    const auto result = store_->apply_block(block);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : Store::BlockResult{};
  }
};

TEST_F(ApplyBlockTest, AppliesWholeRecordsAndKeepsNewerOnes) {
  const auto names = keys(5);
  apply(make_record(names[1], "newer", stamp_at(50)));
  apply(make_record(names[2], "same", stamp_at(10)));
  std::vector<Record> records;
  for (const std::string& name : names)
    records.push_back(make_record(name, "restored", stamp_at(10)));
  records[2].value = "same";
  records[4] = make_tombstone(names[4], stamp_at(10));
  const auto blocks = pack(records);
  ASSERT_EQ(blocks.size(), 1u);
  const Store::BlockResult result = apply_block(blocks[0]);
  EXPECT_EQ(result.changed, 3u);
  EXPECT_EQ(result.kept_newer, 2u);
  EXPECT_EQ(result.kept_equal, 1u);
  EXPECT_FALSE(result.after_cut);
  EXPECT_EQ(get(names[0]), "restored");
  EXPECT_EQ(get(names[1]), "newer");
  EXPECT_EQ(get(names[4]), "(deleted)");
  const Store::BlockResult again = apply_block(blocks[0]);
  EXPECT_EQ(again.changed, 0u);
  EXPECT_EQ(again.kept_equal, 4u);
  expect_digests_match_scans();
}

TEST_F(ApplyBlockTest, RestampedRecordsWinOverWhatIsOlderThanTheirNewVersion) {
  const auto names = keys(6);
  apply(make_record(names[0], "a mistake", stamp_at(50)));
  apply(make_tombstone(names[1], stamp_at(50)));
  apply(make_record(names[2], "later", stamp_at(70)));
  apply(make_tombstone(names[3], stamp_at(70)));
  apply(make_record(names[4], "restored", stamp_at(50)));
  apply(make_record(names[5], "made again", stamp_at(50)));
  std::vector<Record> records;
  for (const std::string& name : names) {
    records.push_back(make_record(name, "restored", stamp_at(10)));
  }
  records[5] = make_tombstone(names[5], stamp_at(10));
  const auto blocks = pack(records);
  ASSERT_EQ(blocks.size(), 1u);
  const Version restamp{stamp_at(60), 9};
  const auto result = store_->apply_block(blocks[0], restamp);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->changed, 3u);
  EXPECT_EQ(result->replaced, 2u);  // one had this value
  EXPECT_EQ(result->kept_newer, 3u);
  EXPECT_EQ(result->kept_deleted, 1u);
  EXPECT_EQ(get(names[0]), "restored");
  EXPECT_EQ(get(names[1]), "restored");
  EXPECT_EQ(get(names[2]), "later");
  EXPECT_EQ(get(names[3]), "(deleted)");
  EXPECT_EQ(get(names[5]), "made again");  // a tombstone is not restamped
  EXPECT_EQ((*store_->get(names[4]))->version, restamp);
  EXPECT_GE(store_->clock().now(), restamp.stamp);
  const auto again = store_->apply_block(blocks[0], restamp);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->changed, 0u);
  EXPECT_EQ(again->kept(), (KeptRecords{3, 1, 0}));
  expect_digests_match_scans();
}

TEST_F(ApplyBlockTest, RestampedValueThatSpansBlocks) {
  const std::string name = keys(1)[0], value = large_value();
  apply(make_tombstone(name, stamp_at(50)));
  const auto blocks = pack({make_record(name, value, stamp_at(10))});
  const Version restamp{stamp_at(60), 9};
  Store::BlockResult last;
  for (int run = 0; run < 2; ++run) {
    for (const Block& block : blocks) {
      const auto result = store_->apply_block(block, restamp);
      ASSERT_TRUE(result.ok()) << result.status();
      last = *result;
    }
    EXPECT_EQ(last.changed, run == 0 ? 1u : 0u);
    EXPECT_EQ(last.replaced, run == 0 ? 1u : 0u);
    EXPECT_TRUE(get(name) == value);
    EXPECT_EQ((*store_->get(name))->version, restamp);
  }
  expect_digests_match_scans();
}

TEST_F(ApplyBlockTest, TrustsStampsHoweverFarAheadAndMovesTheClock) {
  const auto blocks = pack({make_record(keys(1)[0], "v", stamp_at(10'000'000))});
  EXPECT_EQ(apply_block(blocks[0]).changed, 1u);
  EXPECT_GE(store_->clock().now(), stamp_at(10'000'000));
}

TEST_F(ApplyBlockTest, RecordThatSpansBlocksIsVisibleWithTheLast) {
  const auto names = keys(3);
  const std::string value = large_value();
  const std::vector<Record> records = {make_record(names[0], "before", stamp_at(1)),
                                       make_record(names[1], value, stamp_at(1)),
                                       make_record(names[2], "behind", stamp_at(1))};
  const auto blocks = pack(records);
  ASSERT_GE(blocks.size(), 4u);
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(get(names[1]), "(none)");
    apply_block(blocks[i]);
  }
  EXPECT_TRUE(get(names[1]) == value);
  EXPECT_EQ(store_->digest(3), digest_of(records));
  expect_digests_match_scans();
  open();
  EXPECT_TRUE(get(names[1]) == value);
  expect_digests_match_scans();
}

TEST_F(ApplyBlockTest, RunReplacesAnOlderLargeValueAndYieldsToANewerOne) {
  const std::string name = keys(1)[0];
  apply(make_record(name, std::string(900'000, 'o'), stamp_at(1)));
  const std::string value = large_value();
  const auto blocks = pack({make_record(name, value, stamp_at(2))});
  uint64_t changed = 0;
  for (const Block& block : blocks) {
    EXPECT_EQ(get(name).size(), 900'000u);
    changed += apply_block(block).changed;
  }
  EXPECT_EQ(changed, 1u);
  EXPECT_TRUE(get(name) == value);

  const auto older = pack({make_record(name, large_value(2'500'000), stamp_at(1, 5))});
  Store::BlockResult last;
  for (const Block& block : older) last = apply_block(block);
  EXPECT_EQ(last.kept_newer, 1u);
  EXPECT_EQ(last.kept_equal, 0u);
  for (const Block& block : blocks) last = apply_block(block);
  EXPECT_EQ(last.kept_equal, 1u);
  EXPECT_TRUE(get(name) == value);
  expect_digests_match_scans();
  EXPECT_EQ(fragment_bytes_on_disk(), value.size());
}

TEST_F(ApplyBlockTest, StagingTheSameVersionNeverTouchesTheVisibleValue) {
  const std::string name = keys(1)[0];
  const std::string value = large_value(), other = std::string(value.size(), 'x');
  apply(make_record(name, value, stamp_at(1)));
  const auto blocks = pack({make_record(name, other, stamp_at(1))});
  for (size_t i = 0; i + 1 < blocks.size(); ++i) {
    apply_block(blocks[i]);
    ASSERT_TRUE(get(name) == value);
  }
  const bool wins = make_record(name, other, stamp_at(1)).view().summary() >
                    make_record(name, value, stamp_at(1)).view().summary();
  EXPECT_EQ(apply_block(blocks.back()).changed, wins ? 1u : 0u);
  EXPECT_TRUE(get(name) == (wins ? other : value));
  expect_digests_match_scans();
}

TEST_F(ApplyBlockTest, RunThatIsGivenUpIsBegunAgain) {
  const std::string name = keys(1)[0], value = large_value();
  const auto blocks = pack({make_record(name, value, stamp_at(1))});
  apply_block(blocks[0]);
  apply_block(blocks[1]);
  for (const Block& block : blocks) apply_block(block);
  EXPECT_TRUE(get(name) == value);
  expect_digests_match_scans();
  EXPECT_EQ(fragment_bytes_on_disk(), value.size());
}

TEST_F(ApplyBlockTest, RepeatedBlocksOfARunAreHarmless) {
  const std::string name = keys(1)[0], value = large_value();
  const auto blocks = pack({make_record(name, value, stamp_at(1))});
  for (const Block& block : blocks) {
    apply_block(block);
    if (&block != &blocks.front()) apply_block(block);
  }
  EXPECT_EQ(apply_block(blocks.back()).kept_equal, 1u);
  EXPECT_TRUE(get(name) == value);
}

TEST_F(ApplyBlockTest, BlockOutOfItsOrderIsRefused) {
  const std::string name = keys(1)[0];
  const auto blocks = pack({make_record(name, large_value(), stamp_at(1))});
  EXPECT_EQ(store_->apply_block(blocks[1]).status().code(), absl::StatusCode::kFailedPrecondition);
  apply_block(blocks[0]);
  EXPECT_EQ(store_->apply_block(blocks[2]).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->apply_block(blocks.back()).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(get(name), "(none)");
  for (const Block& block : blocks) apply_block(block);
  EXPECT_EQ(get(name).size(), 3'500'000u);
}

TEST_F(ApplyBlockTest, StagingThatARestartInterruptsIsRemoved) {
  const std::string name = keys(1)[0], value = large_value();
  const auto blocks = pack({make_record(name, value, stamp_at(1))});
  apply_block(blocks[0]);
  apply_block(blocks[1]);
  EXPECT_GT(fragment_bytes_on_disk(), 1'000'000u);
  open();
  EXPECT_EQ(fragment_bytes_on_disk(), 0u);
  open();
  EXPECT_EQ(get(name), "(none)");
  EXPECT_EQ(store_->apply_block(blocks[2]).status().code(), absl::StatusCode::kFailedPrecondition);
  for (const Block& block : blocks) apply_block(block);
  EXPECT_TRUE(get(name) == value);
  expect_digests_match_scans();
}

TEST_F(ApplyBlockTest, RunsOfManyKeysAtOnceAreBounded) {
  const auto names = keys(20);
  std::vector<std::vector<Block>> runs;
  for (const std::string& name : names) {
    runs.push_back(pack({make_record(name, large_value(2'200'000), stamp_at(1))}));
    apply_block(runs.back()[0]);
  }
  size_t given_up = 0;
  for (const auto& run : runs) given_up += !store_->apply_block(run[1]).ok();
  EXPECT_EQ(given_up, names.size() - 8);
  for (const auto& run : runs) {
    for (const Block& block : run) apply_block(block);
  }
  for (const std::string& name : names) EXPECT_EQ(get(name).size(), 2'200'000u);
  expect_digests_match_scans();
  EXPECT_EQ(fragment_bytes_on_disk(), names.size() * 2'200'000);
}

TEST_F(ApplyBlockTest, DamagedBlocksChangeNothing) {
  const auto names = keys(50);
  std::vector<Record> records;
  for (const std::string& name : names)
    records.push_back(make_record(name, std::string(100, 'v'), stamp_at(1)));
  const Block good = pack(records)[0];
  Random random(5);
  for (int i = 0; i < 300; ++i) {
    Block bad = good;
    bad[random.below(bad.size())] ^= static_cast<uint8_t>(1 + random.below(255));
    EXPECT_FALSE(store_->apply_block(bad).ok());
    EXPECT_FALSE(store_->apply_block({good.data(), random.below(good.size())}).ok());
  }
  EXPECT_TRUE(store_->digest(3).empty());
  EXPECT_EQ(apply_block(good).changed, names.size());
}

TEST_F(ApplyBlockTest, BlockOfAClusterWithOtherSlotBitsIsRefused) {
  const auto blocks = pack({make_record("k", "v", stamp_at(1))}, 5);
  EXPECT_EQ(store_->apply_block(blocks[0]).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ApplyBlockTest, TakesAnArmedCutFirstAndSaysWhatCameAfterIt) {
  const auto names = keys(2);
  ASSERT_TRUE(store_->arm_cut({std::string(kBackup), stamp_at(100), 1, false}).ok());
  EXPECT_FALSE(apply_block(pack({make_record(names[0], "in", stamp_at(100))})[0]).after_cut);
  EXPECT_FALSE(apply_block(pack({make_record(names[1], "out", stamp_at(101))})[0]).after_cut);
  EXPECT_TRUE(store_->cuts().at(0).taken);
  const auto records = read_cut(kBackup);
  EXPECT_EQ(records.size(), 1u);
  EXPECT_EQ(records.count(names[0]), 1u);
  EXPECT_TRUE(apply_block(pack({make_record(names[0], "late", stamp_at(100, 0), 2)})[0]).after_cut);
}

TEST_F(ApplyBlockTest, CutInTheMiddleOfARunDoesNotShowIt) {
  const std::string name = keys(1)[0], value = large_value();
  const auto blocks = pack({make_record(name, value, stamp_at(1))});
  apply_block(blocks[0]);
  apply_block(blocks[1]);
  ASSERT_TRUE(store_->arm_cut({std::string(kBackup), stamp_at(100), 1, false}).ok());
  move_clock_to(101);
  ASSERT_TRUE(*store_->take_due_cut());
  Store::BlockResult last;
  for (size_t i = 2; i < blocks.size(); ++i) last = apply_block(blocks[i]);
  EXPECT_TRUE(last.after_cut);
  EXPECT_TRUE(get(name) == value);
  EXPECT_TRUE(read_cut(kBackup).empty());
}

TEST_F(ApplyBlockTest, BlocksAndWritesOfOneSlotRaceToTheNewest) {
  const auto names = keys(200);
  std::vector<Record> records;
  for (const std::string& name : names)
    records.push_back(make_record(name, "restored", stamp_at(100)));
  const Block block = pack(records)[0];
  std::thread restore([&] {
    for (int i = 0; i < 20; ++i) apply_block(block);
  });
  for (size_t i = 0; i < names.size(); ++i) {
    apply(make_record(names[i], "written", stamp_at(i % 2 == 0 ? 50 : 150)));
  }
  restore.join();
  for (size_t i = 0; i < names.size(); ++i)
    EXPECT_EQ(get(names[i]), i % 2 == 0 ? "restored" : "written");
  expect_digests_match_scans();
}

}  // namespace
}  // namespace sluice
