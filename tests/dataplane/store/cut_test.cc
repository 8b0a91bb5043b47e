// The dangerous interleavings of arming, writing, cutting and crashing, one by one.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "dataplane/store/store.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

class CutTest : public StoreTest {
 protected:
  absl::Status arm(int64_t at_ms, std::string_view backup = kBackup) {
    return store_->arm_cut({std::string(backup), stamp_at(at_ms), 7, false});
  }
  std::optional<CutInfo> info(std::string_view backup) {
    for (const CutInfo& cut : store_->cuts()) {
      if (cut.backup == backup) return cut;
    }
    return std::nullopt;
  }
  bool taken(std::string_view backup = kBackup) {
    const auto cut = info(backup);
    return cut.has_value() && cut->taken;
  }
  void take_at(int64_t ms) {
    move_clock_to(ms);
    const auto done = store_->take_due_cut();
    ASSERT_TRUE(done.ok()) << done.status();
    ASSERT_TRUE(*done);
  }
};

TEST_F(CutTest, IsTakenOnceTheClockHasPassedT) {
  apply(make_record("k", "v", stamp_at(1)));
  ASSERT_TRUE(arm(100).ok());
  EXPECT_FALSE(taken());
  move_clock_to(100);
  EXPECT_FALSE(*store_->take_due_cut());
  EXPECT_EQ(store_->open_cut(kBackup).status().code(), absl::StatusCode::kFailedPrecondition);
  take_at(101);
  EXPECT_TRUE(taken());
  EXPECT_EQ(info(kBackup)->cut, stamp_at(100));
  EXPECT_EQ(info(kBackup)->epoch, 7u);
  const auto records = read_cut(kBackup);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records.at("k").value, "v");
  EXPECT_TRUE(*store_->take_due_cut());
}

// The largest number of all has no successor: as a cut it would never be due, and let no other one
// be armed.
TEST_F(CutTest, OfAStampThatNoClockReachesIsRefused) {
  for (const uint64_t stamp :
       {~uint64_t{0}, ~uint64_t{0} - 1, HybridClock::kPeerLimit, HybridClock::kPeerLimit - 1}) {
    const absl::Status armed = store_->arm_cut({std::string(kBackup), stamp, 7, false});
    EXPECT_EQ(armed.code(), absl::StatusCode::kInvalidArgument) << stamp << ": " << armed;
  }
  EXPECT_TRUE(store_->cuts().empty());
  ASSERT_TRUE(arm(100).ok());
}

TEST_F(CutTest, WithNothingArmedNothingIsDue) {
  EXPECT_TRUE(*store_->take_due_cut());
  EXPECT_TRUE(store_->cuts().empty());
  EXPECT_EQ(store_->open_cut(kBackup).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CutTest, OfAnEmptyStoreIsEmpty) {
  ASSERT_TRUE(arm(10).ok());
  take_at(11);
  EXPECT_TRUE(read_cut(kBackup).empty());
}

TEST_F(CutTest, WriteBeforeTWhileArmedIsInTheCut) {
  ASSERT_TRUE(arm(100).ok());
  EXPECT_FALSE(apply(make_record("at", "v", stamp_at(100))).after_cut);
  EXPECT_FALSE(taken());
  take_at(101);
  EXPECT_EQ(read_cut(kBackup).count("at"), 1u);
}

TEST_F(CutTest, WriteAfterTWhileArmedTakesTheCutFirstAndIsNotInIt) {
  apply(make_record("before", "v", stamp_at(1)));
  apply(make_record("both", "old", stamp_at(1)));
  ASSERT_TRUE(arm(100).ok());
  const ApplyResult result = apply(make_record("both", "new", stamp_at(100, 1)));
  EXPECT_TRUE(result.changed());
  EXPECT_FALSE(result.after_cut);
  EXPECT_TRUE(taken());
  const auto records = read_cut(kBackup);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records.at("both").value, "old");
  EXPECT_EQ(get("both"), "new");
}

TEST_F(CutTest, CallWithStampsOnBothSidesOfTIsAllAfterTheCut) {
  ASSERT_TRUE(arm(100).ok());
  const Record early = make_record("early", "v", stamp_at(50)),
               late = make_record("late", "v", stamp_at(150));
  const RecordView views[] = {early.view(), late.view()};
  const auto results = store_->apply(views);
  ASSERT_TRUE(results.ok());
  EXPECT_TRUE((*results)[0].after_cut);
  EXPECT_FALSE((*results)[1].after_cut);
  EXPECT_TRUE(read_cut(kBackup).empty());
  EXPECT_EQ(get("early"), "v");
}

TEST_F(CutTest, LateWriteIsAppliedAndSaysSoForGood) {
  apply(make_record("k", "in time", stamp_at(1)));
  ASSERT_TRUE(arm(100).ok());
  take_at(101);
  const ApplyResult late = apply(make_record("k", "late", stamp_at(100)));
  EXPECT_TRUE(late.changed());
  EXPECT_TRUE(late.after_cut);
  EXPECT_EQ(get("k"), "late");
  EXPECT_EQ(read_cut(kBackup).at("k").value, "in time");
  EXPECT_FALSE(apply(make_record("k", "new", stamp_at(101))).after_cut);

  open();
  EXPECT_TRUE(apply(make_record("l", "late", stamp_at(99))).after_cut);
  ASSERT_TRUE(store_->drop_cut(kBackup).ok());
  EXPECT_TRUE(apply(make_record("m", "late", stamp_at(100))).after_cut);
  open();
  EXPECT_TRUE(apply(make_record("n", "late", stamp_at(100))).after_cut);
  EXPECT_FALSE(apply(make_record("o", "new", stamp_at(102))).after_cut);
}

TEST_F(CutTest, RepeatOfAWriteThatIsInTheCutStillDoesNotCount) {
  apply(make_record("k", "v", stamp_at(1)));
  ASSERT_TRUE(arm(100).ok());
  take_at(101);
  const ApplyResult repeat = apply(make_record("k", "v", stamp_at(1)));
  EXPECT_FALSE(repeat.changed());
  EXPECT_TRUE(repeat.after_cut);
}

TEST_F(CutTest, NodeWhoseClockHasPassedTMissesIt) {
  move_clock_to(101);
  const absl::Status missed = arm(100);
  EXPECT_EQ(missed.code(), absl::StatusCode::kOutOfRange);
  EXPECT_NE(message_of(missed).find("missed"), std::string_view::npos);
  EXPECT_TRUE(store_->cuts().empty());
  EXPECT_TRUE(arm(101).ok());
}

TEST_F(CutTest, NodeThatAppliedAWriteAfterTMissesItWhateverItsWallClockSays) {
  apply(make_record("k", "v", stamp_at(500)));
  EXPECT_EQ(arm(100).code(), absl::StatusCode::kOutOfRange);
  open();
  EXPECT_EQ(arm(100).code(), absl::StatusCode::kOutOfRange);
}

// However far ahead of this machine's clock a stamp is, it is after T: the cut comes first.
TEST_F(CutTest, AWriteThatIsFarAheadTakesTheCutFirst) {
  ASSERT_TRUE(arm(100).ok());
  EXPECT_FALSE(apply(make_record("far", "v", stamp_at(60'000))).after_cut);
  EXPECT_TRUE(taken());
  EXPECT_TRUE(apply(make_record("late", "v", stamp_at(90))).after_cut);
  EXPECT_EQ(read_cut(kBackup).size(), 0u);
}

TEST_F(CutTest, LocalStampsPassTOnlyThroughApply) {
  ASSERT_TRUE(arm(100).ok());
  move_clock_to(200);
  const uint64_t stamp = *store_->clock().stamp();
  EXPECT_FALSE(taken());
  EXPECT_FALSE(apply(make_record("before", "v", stamp_at(100))).after_cut);
  EXPECT_FALSE(apply(make_record("after", "v", stamp)).after_cut);
  EXPECT_TRUE(taken());
  const auto records = read_cut(kBackup);
  EXPECT_EQ(records.size(), 1u);
  EXPECT_EQ(records.count("before"), 1u);
}

TEST_F(CutTest, ArmingAgainIsFineAndAnotherBackupHasToWait) {
  ASSERT_TRUE(arm(100).ok());
  EXPECT_TRUE(arm(100).ok());
  EXPECT_EQ(arm(120, kOtherBackup).code(), absl::StatusCode::kAlreadyExists);
  // A coordinator that was told "missed" elsewhere tries again with a later T.
  EXPECT_TRUE(arm(110).ok());
  EXPECT_EQ(info(kBackup)->cut, stamp_at(110));
  EXPECT_FALSE(apply(make_record("k", "v", stamp_at(105))).after_cut);
  EXPECT_FALSE(taken());
  take_at(111);
  EXPECT_TRUE(arm(110).ok());
  EXPECT_EQ(arm(300).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(read_cut(kBackup).size(), 1u);
  EXPECT_TRUE(arm(200, kOtherBackup).ok());
  take_at(201);
  EXPECT_EQ(store_->cuts().size(), 2u);
}

TEST_F(CutTest, NamesThatAreNoUuidAreRefused) {
  for (const std::string_view name : {"", "..", "../records", "a/b", "a b"}) {
    EXPECT_EQ(arm(100, name).code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(store_->drop_cut(name).code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST_F(CutTest, RestartBetweenArmAndCutTakesItBeforeAnythingElse) {
  apply(make_record("k", "v", stamp_at(1)));
  ASSERT_TRUE(arm(100'000).ok());
  open();
  EXPECT_TRUE(taken());
  EXPECT_EQ(read_cut(kBackup).size(), 1u);
  EXPECT_TRUE(apply(make_record("k", "late", stamp_at(2))).after_cut);
}

TEST_F(CutTest, HalfMadeCheckpointIsRetaken) {
  apply(make_record("k", "v", stamp_at(1)));
  ASSERT_TRUE(arm(100).ok());
  store_.reset();
  const std::string folder = options().folder + "/cuts/" + std::string(kBackup);
  for (const std::string& half : {folder, folder + ".tmp"}) {
    std::filesystem::create_directories(half);
    std::ofstream(half + "/CURRENT") << "MANIFEST-0";
    std::ofstream(half + "/000007.sst") << "half";
  }
  open();
  EXPECT_TRUE(taken());
  EXPECT_EQ(read_cut(kBackup).size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(folder + ".tmp"));
}

TEST_F(CutTest, SurvivesRestartsWithItsDigests) {
  Random random(3);
  for (int i = 0; i < 50; ++i) {
    apply(make_record(fmt::format("k{}", i), random_bytes(random, random.below(200'000)),
                      stamp_at(i)));
  }
  ASSERT_TRUE(arm(100).ok());
  take_at(101);
  const std::vector<SlotDigest> digests = (*store_->open_cut(kBackup))->digests();
  for (int i = 0; i < 50; i += 2)
    apply(make_record(fmt::format("k{}", i), "changed", stamp_at(200 + i)));
  for (int round = 0; round < 2; ++round) {
    open();
    EXPECT_TRUE(taken());
    EXPECT_EQ((*store_->open_cut(kBackup))->digests(), digests);
    const auto records = read_cut(kBackup);
    EXPECT_EQ(records.size(), 50u);
    for (const auto& [key, record] : records) EXPECT_LE(record.version.stamp, stamp_at(100));
  }
  expect_digests_match_scans();
}

TEST_F(CutTest, DroppingIsIdempotentAndFreesTheFolder) {
  apply(make_record("k", "v", stamp_at(1)));
  ASSERT_TRUE(arm(100).ok());
  take_at(101);
  const std::string folder = options().folder + "/cuts/" + std::string(kBackup);
  EXPECT_TRUE(std::filesystem::exists(folder));
  {
    const auto reader = store_->open_cut(kBackup);
    ASSERT_TRUE(reader.ok());
    EXPECT_EQ(*store_->open_cut(kBackup), *reader);
    EXPECT_EQ(store_->drop_cut(kBackup).code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_TRUE(store_->drop_cut(kBackup).ok());
  EXPECT_FALSE(std::filesystem::exists(folder));
  EXPECT_TRUE(store_->drop_cut(kBackup).ok());
  EXPECT_TRUE(store_->drop_cut(kOtherBackup).ok());
  open();
  EXPECT_TRUE(store_->cuts().empty());
  EXPECT_EQ(get("k"), "v");
}

TEST_F(CutTest, DroppingAnArmedCutDisarmsIt) {
  ASSERT_TRUE(arm(100).ok());
  ASSERT_TRUE(store_->drop_cut(kBackup).ok());
  EXPECT_TRUE(*store_->take_due_cut());
  EXPECT_FALSE(apply(make_record("k", "v", stamp_at(101))).after_cut);
  EXPECT_FALSE(apply(make_record("l", "v", stamp_at(100))).after_cut);
  open();
  EXPECT_TRUE(store_->cuts().empty());
}

TEST_F(CutTest, FolderLeftByAnInterruptedDropIsRemoved) {
  store_.reset();
  const std::string folder = options().folder + "/cuts/" + std::string(kOtherBackup);
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/000007.sst") << "left";
  open();
  EXPECT_FALSE(std::filesystem::exists(folder));
}

// Writers race the cut. Some stamp early and write late, as a slow coordinator does.
TEST_F(CutTest, UnderConcurrentWritesHoldsExactlyWhatWasAnsweredAsBeforeIt) {
  struct Answer {
    uint64_t stamp;
    bool after_cut;
  };
  constexpr int kThreads = 4, kWrites = 600;
  std::mutex mutex;
  std::map<std::string, Answer> answers;
  ASSERT_TRUE(arm(100).ok());
  const auto write = [&](const Record& record) {
    const ApplyResult result = apply(record);
    EXPECT_TRUE(result.changed());
    std::lock_guard lock(mutex);
    answers[record.key] = {record.version.stamp, result.after_cut};
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Random random(static_cast<uint64_t>(t) + 1);
      std::deque<Record> held;
      for (int i = 0; i < kWrites; ++i) {
        wall_.advance_ns(100'000);
        Record record = make_record(fmt::format("{}-{}", t, i), std::string(random.below(300), 'v'),
                                    *store_->clock().stamp());
        if (random.chance(0.2)) {
          held.push_back(std::move(record));
        } else {
          write(record);
        }
        if (held.size() > 20) write(held.front()), held.pop_front();
      }
      for (const Record& record : held) write(record);
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(taken());
  const auto records = read_cut(kBackup);
  size_t in_time = 0, late = 0, after = 0;
  for (const auto& [key, answer] : answers) {
    const bool expected = answer.stamp <= stamp_at(100) && !answer.after_cut;
    EXPECT_EQ(records.count(key), expected ? 1u : 0u) << key;
    in_time += expected;
    late += answer.after_cut;
    after += answer.stamp > stamp_at(100);
    if (answer.stamp > stamp_at(100)) {
      EXPECT_FALSE(answer.after_cut);
    }
  }
  EXPECT_EQ(answers.size(), size_t{kThreads} * kWrites);
  EXPECT_GT(in_time, 0u);
  EXPECT_GT(late, 0u);
  EXPECT_GT(after, 0u);
  expect_digests_match_scans();
}

// Writes stamped before T keep coming while the checkpoint is made: each is in it, or says that it
// is not.
TEST_F(CutTest, LateWritesDuringTheCutAreInItOrSayThatTheyAreNot) {
  for (int round = 0; round < 8; ++round) {
    const std::string backup = fmt::format("00000000-0000-4000-8000-{:012}", round);
    const int64_t at = 1000 * (round + 1);
    ASSERT_TRUE(arm(at, backup).ok());
    std::atomic<bool> stop = false;
    std::mutex mutex;
    std::map<std::string, bool> after_cut;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; !stop; ++i) {
          const std::string key = fmt::format("{}-{}-{}", round, t, i);
          const ApplyResult result = apply(make_record(key, std::string(500, 'v'), stamp_at(at)));
          std::lock_guard lock(mutex);
          after_cut[key] = result.after_cut;
        }
      });
    }
    const auto written = [&] {
      std::lock_guard lock(mutex);
      return after_cut.size();
    };
    while (written() < 50) std::this_thread::yield();
    move_clock_to(at + 1);
    ASSERT_TRUE(*store_->take_due_cut());
    const size_t at_cut = written();
    while (written() < at_cut + 50) std::this_thread::yield();
    stop = true;
    for (std::thread& thread : threads) thread.join();
    const auto records = read_cut(backup);
    for (const auto& [key, late] : after_cut) {
      ASSERT_EQ(records.count(key), late ? 0u : 1u) << key;
    }
    ASSERT_TRUE(store_->drop_cut(backup).ok());
  }
}

// The cut is due by the clock alone; writers and the timer race for it, and arming of the next one
// with both.
TEST_F(CutTest, TimerAndWritersTakeEachCutOnce) {
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; !stop; ++i) {
        wall_.advance_ns(500'000);
        apply(make_record(fmt::format("{}-{}", t, i % 50), "v", *store_->clock().stamp()));
      }
    });
  }
  for (int round = 0; round < 10; ++round) {
    const std::string backup = fmt::format("00000000-0000-4000-8000-{:012}", round);
    const uint64_t cut = store_->clock().now() + Version::make_stamp(20, 0);
    ASSERT_TRUE(store_->arm_cut({backup, cut, 1, false}).ok());
    while (!taken(backup)) ASSERT_TRUE(store_->take_due_cut().ok());
    for (const auto& [key, record] : read_cut(backup)) EXPECT_LE(record.version.stamp, cut);
    ASSERT_TRUE(store_->drop_cut(backup).ok());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  expect_digests_match_scans();
}

}  // namespace
}  // namespace sluice
