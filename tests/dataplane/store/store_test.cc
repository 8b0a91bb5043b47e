#include "dataplane/store/store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

TEST_F(StoreTest, KeepsTheNewestVersion) {
  EXPECT_TRUE(apply(make_record("k", "one", stamp_at(1))).changed());
  EXPECT_EQ(get("k"), "one");
  EXPECT_TRUE(apply(make_record("k", "two", stamp_at(2))).changed());
  EXPECT_EQ(get("k"), "two");
  EXPECT_FALSE(apply(make_record("k", "one", stamp_at(1))).changed());
  EXPECT_EQ(get("k"), "two");
  EXPECT_FALSE(apply(make_record("k", "two", stamp_at(2))).changed());
  EXPECT_EQ(store_->digest(slot_of("k", 4)).records, 1u);
  expect_digests_match_scans();
}

TEST_F(StoreTest, BreaksTiesByNodeThenTombstoneThenValue) {
  apply(make_record("k", "a", stamp_at(1), 1));
  EXPECT_TRUE(apply(make_record("k", "b", stamp_at(1), 2)).changed());
  EXPECT_FALSE(apply(make_record("k", "z", stamp_at(1), 1)).changed());
  EXPECT_TRUE(apply(make_tombstone("k", stamp_at(1), 2)).changed());
  EXPECT_FALSE(apply(make_record("k", "b", stamp_at(1), 2)).changed());
  EXPECT_EQ(get("k"), "(deleted)");

  const Record first = make_record("v", "x", stamp_at(1)),
               second = make_record("v", "y", stamp_at(1));
  const bool second_wins = second.view().summary() > first.view().summary();
  apply(first);
  EXPECT_EQ(apply(second).changed(), second_wins);
  EXPECT_EQ(get("v"), second_wins ? "y" : "x");
  expect_digests_match_scans();
}

TEST_F(StoreTest, TellsAppliedFromEqualAndSuperseded) {
  using Outcome = ApplyResult::Outcome;
  const Record one = make_record("k", "one", stamp_at(1)),
               two = make_record("k", "two", stamp_at(2));
  EXPECT_EQ(apply(one).outcome, Outcome::kApplied);
  EXPECT_EQ(apply(one).outcome, Outcome::kEqual);
  EXPECT_EQ(apply(two).outcome, Outcome::kApplied);
  const ApplyResult behind = apply(one);
  EXPECT_EQ(behind.outcome, Outcome::kSuperseded);
  EXPECT_EQ(behind.newer, two.version);
  // The same value with an older version is not a repeat.
  EXPECT_EQ(apply(make_record("k", "two", stamp_at(1))).outcome, Outcome::kSuperseded);
  // Nor is another value with the same version: a tombstone beats a value, then the digest decides.
  EXPECT_EQ(apply(make_tombstone("k", stamp_at(2))).outcome, Outcome::kApplied);
  const ApplyResult same_version = apply(two);
  EXPECT_EQ(same_version.outcome, Outcome::kSuperseded);
  EXPECT_EQ(same_version.newer, two.version);
  EXPECT_EQ(apply(make_tombstone("k", stamp_at(2))).outcome, Outcome::kEqual);
}

TEST_F(StoreTest, TombstonesAreKeptAndCounted) {
  apply(make_record("k", "value", stamp_at(1)));
  apply(make_tombstone("k", stamp_at(2)));
  apply(make_tombstone("never-there", stamp_at(2)));
  EXPECT_EQ(get("k"), "(deleted)");
  const SlotDigest digest = store_->digest(slot_of("k", 4));
  EXPECT_EQ(digest.records, 0u);
  EXPECT_GE(digest.tombstones, 1u);
  EXPECT_EQ(digest.bytes, 0u);
  EXPECT_FALSE(apply(make_record("k", "late", stamp_at(1, 5))).changed());
  expect_digests_match_scans();
}

TEST_F(StoreTest, UnknownKeyIsNoError) { EXPECT_EQ(get("nobody"), "(none)"); }

TEST_F(StoreTest, RefusesIllegalRecordsBeforeChangingAnything) {
  const Record good = make_record("good", "v", stamp_at(1));
  const Record bad[] = {make_record("", "v", stamp_at(1)),
                        make_record(std::string(kMaxKeyBytes + 1, 'k'), "v", stamp_at(1)),
                        make_record("k", std::string(kMaxValueBytes + 1, 'v'), stamp_at(1)),
                        Record{"k", "value", {stamp_at(1), 1}, true}};
  for (const Record& record : bad) {
    const RecordView views[] = {good.view(), record.view()};
    EXPECT_EQ(store_->apply(views).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(get("good"), "(none)");
  EXPECT_EQ(store_->get("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(apply(make_record(std::string(kMaxKeyBytes, 'k'), "", stamp_at(1))).changed());
}

TEST_F(StoreTest, RefusesImpossibleStampsBeforeChangingAnythingAndNoOthers) {
  const Record good = make_record("good", "v", stamp_at(1)),
               damaged = make_record("damaged", "v", HybridClock::kPeerLimit);
  const RecordView views[] = {good.view(), damaged.view()};
  EXPECT_EQ(store_->apply(views).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(get("good"), "(none)");
  // From a clock that was a day ahead: what is written next wins over it.
  EXPECT_TRUE(apply(make_record("fast", "v", stamp_at(24 * 3600 * 1000))).changed());
  EXPECT_TRUE(apply(make_record("fast", "w", *store_->clock().stamp())).changed());
  EXPECT_EQ(get("fast"), "w");
}

TEST_F(StoreTest, SameKeyTwiceInOneCallIsAppliedInOrder) {
  const std::string large_a(300'000, 'a'), large_b(200'000, 'b');
  const Record records[] = {
      make_record("k", large_a, stamp_at(1)), make_record("k", large_b, stamp_at(3)),
      make_record("k", "older", stamp_at(2)), make_record("k", large_b, stamp_at(3)),
      make_record("other", "o", stamp_at(1))};
  std::vector<RecordView> views;
  for (const Record& record : records) views.push_back(record.view());
  const auto results = store_->apply(views);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_TRUE((*results)[0].changed());
  EXPECT_TRUE((*results)[1].changed());
  EXPECT_FALSE((*results)[2].changed());
  EXPECT_FALSE((*results)[3].changed());
  EXPECT_TRUE((*results)[4].changed());
  EXPECT_EQ(get("k"), large_b);
  expect_digests_match_scans();
}

TEST_F(StoreTest, ValuesOfEverySizeRoundTrip) {
  Random random(7);
  const size_t sizes[] = {0,      1,      65535,   65536,          65537,
                          524288, 524289, 1 << 20, (3 << 20) + 17, kMaxValueBytes};
  for (const size_t size : sizes) {
    const std::string value = random_bytes(random, size);
    const std::string key = fmt::format("size-{}", size);
    ASSERT_TRUE(apply(make_record(key, value, stamp_at(1))).changed());
    ASSERT_TRUE(get(key) == value) << size;
  }
  expect_digests_match_scans();
  open();
  expect_digests_match_scans();
  for (const size_t size : sizes) EXPECT_EQ(get(fmt::format("size-{}", size)).size(), size);
}

TEST_F(StoreTest, ReplacedFragmentsAreGone) {
  Random random(9);
  for (int i = 1; i <= 10; ++i) {
    apply(make_record("k", random_bytes(random, (5 << 20) - static_cast<size_t>(i) * 77'777),
                      stamp_at(i)));
  }
  EXPECT_EQ(fragment_bytes_on_disk(), (5u << 20) - 777'770u);
  open();
  apply(make_record("k", "small", stamp_at(30)));
  EXPECT_EQ(fragment_bytes_on_disk(), 0u);
  open();
  EXPECT_EQ(get("k"), "small");
  EXPECT_TRUE(apply(make_record("k", std::string(100'000, 'x'), stamp_at(31))).changed());
  EXPECT_EQ(get("k"), std::string(100'000, 'x'));
  apply(make_tombstone("k", stamp_at(32)));
  EXPECT_EQ(fragment_bytes_on_disk(), 0u);
}

TEST_F(StoreTest, KeysThatArePrefixesOrHoldZerosStayApart) {
  using namespace std::string_literals;
  const std::string keys[] = {"a"s,  "a\0"s,     "a\0\0"s, "a\0\xff"s, "a\0\0\0\0\0\0\0\0"s,
                              "\0"s, "\xff\xff"s};
  for (size_t i = 0; i < std::size(keys); ++i) {
    apply(make_record(keys[i], std::string(70'000 + i, static_cast<char>('0' + i)), stamp_at(1)));
  }
  for (size_t i = 0; i < std::size(keys); ++i) {
    EXPECT_TRUE(get(keys[i]) == std::string(70'000 + i, static_cast<char>('0' + i))) << i;
  }
  apply(make_record(keys[1], "", stamp_at(2)));
  EXPECT_EQ(get(keys[0]).size(), 70'000u);
  EXPECT_EQ(get(keys[2]).size(), 70'002u);
  expect_digests_match_scans();
}

TEST_F(StoreTest, ScanIsInKeyOrderFromTheFirstKeyAndOfOneSlot) {
  std::map<uint32_t, std::vector<std::string>> by_slot;
  for (int i = 0; i < 300; ++i) {
    const std::string key = fmt::format("key-{:03}", i);
    by_slot[slot_of(key, 4)].push_back(key);
    apply(make_record(key, "v", stamp_at(1)));
  }
  for (const auto& [slot, keys] : by_slot) {
    std::vector<std::string> got;
    for (const Record& record : read_all(*store_->scan(slot))) got.push_back(record.key);
    EXPECT_EQ(got, keys);
    const size_t middle = keys.size() / 2;
    got.clear();
    for (const Record& record : read_all(*store_->scan(slot, keys[middle])))
      got.push_back(record.key);
    EXPECT_EQ(got,
              std::vector<std::string>(keys.begin() + static_cast<ptrdiff_t>(middle), keys.end()));
  }
}

TEST_F(StoreTest, ScanSeesTheStoreAsItWas) {
  const std::string large(500'000, 'a');
  apply(make_record("k", large, stamp_at(1)));
  const auto scan = store_->scan(slot_of("k", 4));
  apply(make_record("k", std::string(500'000, 'b'), stamp_at(2)));
  const auto records = read_all(*scan);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_TRUE(records[0].value == large);
}

TEST_F(StoreTest, ReadValueReadsAnyPart) {
  Random random(11);
  for (const size_t size : {size_t{1000}, size_t{3} << 20}) {
    const std::string value = random_bytes(random, size);
    apply(make_record("k", value,
                      stamp_at(static_cast<int64_t>(size % 1000) + (size > 1000 ? 1 : 0))));
    const auto scan = store_->scan(slot_of("k", 4));
    SlotScan::Item item;
    std::vector<uint8_t> into(size + 1);
    EXPECT_FALSE(scan->read_value(0, {into.data(), 1}).ok());
    ASSERT_TRUE(*scan->next(&item));
    for (int i = 0; i < 200; ++i) {
      const size_t offset = random.below(size + 1), bytes = random.below(size - offset + 1);
      ASSERT_TRUE(scan->read_value(offset, {into.data(), bytes}).ok());
      ASSERT_EQ(std::memcmp(into.data(), value.data() + offset, bytes), 0)
          << offset << " " << bytes;
    }
    EXPECT_EQ(scan->read_value(1, {into.data(), size}).code(), absl::StatusCode::kOutOfRange);
    EXPECT_FALSE(*scan->next(&item));
    EXPECT_FALSE(*scan->next(&item));
  }
}

TEST_F(StoreTest, ReopeningKeepsRecordsDigestsAndStoreIdAndCountsIncarnations) {
  for (int i = 0; i < 100; ++i) apply(make_record(fmt::format("k{}", i), "v", stamp_at(i)));
  const std::vector<SlotDigest> before = store_->digests();
  const std::string id = store_->store_id();
  const uint64_t incarnation = store_->incarnation();
  const uint64_t stamp = *store_->clock().stamp();
  wall_.set_wall_ms(kStartMs - 1000);
  open();
  EXPECT_EQ(store_->digests(), before);
  EXPECT_EQ(store_->store_id(), id);
  EXPECT_EQ(id.size(), 36u);
  EXPECT_EQ(store_->incarnation(), incarnation + 1);
  EXPECT_GT(*store_->clock().stamp(), stamp);
  expect_digests_match_scans();
}

TEST_F(StoreTest, RefusesFoldersOfOthers) {
  store_.reset();
  const auto refused = [&](auto change, std::string_view word) {
    Store::Options other = options();
    change(other);
    const absl::Status status = Store::open(other).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_NE(message_of(status).find(other.folder), std::string_view::npos) << status;
    EXPECT_NE(message_of(status).find(word), std::string_view::npos) << status;
  };
  refused([](Store::Options& o) { o.cluster = "another-cluster"; }, "another-cluster");
  refused([](Store::Options& o) { o.node = "n2"; }, "n2");
  refused([](Store::Options& o) { o.node_number = 2; }, "node number");
  refused([](Store::Options& o) { o.slot_bits = 5; }, "slot bits");
  Store::Options illegal = options();
  illegal.slot_bits = 21;
  EXPECT_EQ(Store::open(illegal).status().code(), absl::StatusCode::kInvalidArgument);
  open();
}

TEST_F(StoreTest, RefusesAFolderInUse) {
  const absl::Status status = Store::open(options()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_NE(message_of(status).find("open already"), std::string_view::npos) << status;
  // The refusal took nothing from the first.
  EXPECT_TRUE(apply(make_record("k", "one", stamp_at(1))).changed());
  EXPECT_EQ(Store::open(options()).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(StoreTest, FreeBytesIsThatOfTheFileSystem) {
  const auto free = store_->free_bytes();
  ASSERT_TRUE(free.ok());
  EXPECT_GT(*free, 0u);
  EXPECT_LE(*free, std::filesystem::space(folder_.path()).capacity);
}

// Random operations against a map, with reopening.
TEST_F(StoreTest, BehavesLikeAMapOfNewestVersions) {
  const uint64_t seed = entropy();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  Random random(seed);
  std::map<std::string, Record> model;
  for (int round = 0; round < 400; ++round) {
    std::vector<Record> records;
    const size_t count = 1 + random.below(8);
    for (size_t i = 0; i < count; ++i) {
      const size_t size = random.chance(0.1) ? random.below(400'000) : random.below(200);
      Record record =
          make_record(fmt::format("key-{}", random.below(150)), random_bytes(random, size),
                      stamp_at(static_cast<int64_t>(random.below(500))),
                      static_cast<uint32_t>(random.below(3)));
      if (random.chance(0.15)) record.tombstone = true, record.value.clear();
      records.push_back(std::move(record));
    }
    std::vector<RecordView> views;
    for (const Record& record : records) views.push_back(record.view());
    const auto results = store_->apply(views);
    ASSERT_TRUE(results.ok()) << results.status();
    for (size_t i = 0; i < records.size(); ++i) {
      const auto known = model.find(records[i].key);
      const bool wins = known == model.end() || views[i].summary() > known->second.view().summary();
      ASSERT_EQ((*results)[i].changed(), wins);
      if (wins) model[records[i].key] = records[i];
    }
    if (random.chance(0.02)) open();
    const std::string probe = fmt::format("key-{}", random.below(150));
    const auto known = model.find(probe);
    const std::string expected = known == model.end()      ? "(none)"
                                 : known->second.tombstone ? "(deleted)"
                                                           : known->second.value;
    ASSERT_TRUE(get(probe) == expected) << probe;
  }
  open();
  expect_digests_match_scans();
  std::map<std::string, Record> stored;
  for (uint32_t slot = 0; slot < 16; ++slot) {
    for (Record& record : read_all(*store_->scan(slot))) stored[record.key] = std::move(record);
  }
  ASSERT_EQ(stored.size(), model.size());
  for (const auto& [key, record] : model) {
    EXPECT_EQ(stored[key].view().summary(), record.view().summary()) << key;
  }
}

TEST_F(StoreTest, ThreadsThatFightForKeysAgreeOnTheNewest) {
  constexpr int kThreads = 4, kWrites = 300;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Random random(static_cast<uint64_t>(t));
      for (int i = 0; i < kWrites; ++i) {
        const Record a = make_record(
            fmt::format("k{}", random.below(20)), fmt::format("{}-{}", t, i),
            stamp_at(static_cast<int64_t>(random.below(1000))), static_cast<uint32_t>(t));
        const Record b = make_record(fmt::format("k{}", random.below(20)), std::string(70'000, 'b'),
                                     stamp_at(static_cast<int64_t>(random.below(1000))),
                                     static_cast<uint32_t>(t));
        const RecordView views[] = {a.view(), b.view()};
        ASSERT_TRUE(store_->apply(views).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect_digests_match_scans();
}

TEST_F(StoreTest, AnEarlierStateOfTheFolderHasAnEarlierSequenceHoweverOftenItIsOpened) {
  const std::string node = options().folder;
  const std::string joining = store_->found().joining;
  EXPECT_EQ(store_->found().joined, "");
  EXPECT_FALSE(joining.empty());
  ASSERT_TRUE(store_->confirm_join().ok());
  apply(make_record("before", "value", stamp_at(1)));
  const uint64_t copied = store_->durable_sequence();
  std::filesystem::copy(node, folder_.path() + "/copy", std::filesystem::copy_options::recursive);
  const std::string lock = store_->lock_identity();
  apply(make_record("after", "value", stamp_at(2)));
  EXPECT_GT(store_->durable_sequence(), copied);
  open();
  EXPECT_EQ(store_->found().joined, joining);
  EXPECT_NE(store_->found().joining, joining);
  EXPECT_GT(store_->found().sequence, copied);
  EXPECT_EQ(store_->lock_identity(), lock);
  store_.reset();
  std::filesystem::remove_all(node);
  std::filesystem::rename(folder_.path() + "/copy", node);
  std::string tried;
  for (int i = 0; i < 20; ++i) {
    open();
    EXPECT_EQ(store_->found().joined, joining);
    EXPECT_LE(store_->found().sequence, copied);
    if (i > 0) {
      EXPECT_EQ(store_->found().joining, tried);
    }
    tried = store_->found().joining;
    EXPECT_NE(store_->lock_identity(), lock);
  }
  ASSERT_TRUE(store_->confirm_join().ok());
  open();
  EXPECT_EQ(store_->found().joined, tried);
  EXPECT_NE(store_->found().joining, tried);
}

}  // namespace
}  // namespace sluice
