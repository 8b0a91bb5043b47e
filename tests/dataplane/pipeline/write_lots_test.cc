#include "dataplane/pipeline/write_lots.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

constexpr uint64_t kLot = 77;

class WriteLotsTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    make_lots({});
  }
  void make_lots(const WriteLots::Options& lots_options) {
    lots_ = std::make_unique<WriteLots>(*store_, clock_, lots_options);
  }
  void TearDown() override { lots_.reset(); }

  static Record record_of(uint32_t slot) {
    return make_record(keys(1, slot)[0], fmt::format("value of {}", slot), stamp_at(5));
  }
  uint64_t add(uint32_t slot, uint64_t lot = kLot) {
    const auto token = lots_->add(lot, pack({record_of(slot)})[0]);
    EXPECT_TRUE(token.ok()) << token.status();
    return token.ok() ? *token : 0;
  }
  // What a sender's end was answered, once it was.
  struct Ended {
    int answers = 0;
    absl::StatusOr<WriteLots::Result> result = absl::UnknownError("not answered");
  };
  std::shared_ptr<Ended> end(const std::string& sender, uint32_t senders, uint64_t token,
                             uint64_t lot = kLot) {
    auto ended = std::make_shared<Ended>();
    lots_->end(lot, {sender, senders, token}, [ended](const absl::StatusOr<WriteLots::Result>& r) {
      ++ended->answers;
      ended->result = r;
    });
    return ended;
  }
  bool is_here(uint32_t slot) { return !store_->digest(slot).empty(); }
  void pass_ms(int64_t ms) {
    clock_.advance_ns(ms * 1'000'000);
    lots_->tick();
  }

  ManualClock clock_{kStartMs};
  std::unique_ptr<WriteLots> lots_;
};

TEST_F(WriteLotsTest, NothingIsHereBeforeAllSendersHaveEnded) {
  const uint64_t token = add(1);
  EXPECT_EQ(add(2), token);
  EXPECT_GT(lots_->bytes(), 0u);
  const auto first = end("a", 2, token);
  EXPECT_EQ(first->answers, 0);
  EXPECT_FALSE(is_here(1));
  // The same sender again, as after a lost answer, is still one sender.
  const auto again = end("a", 2, token);
  EXPECT_EQ(again->answers, 0);
  const auto second = end("b", 2, token);
  for (const auto& ended : {first, again, second}) {
    EXPECT_EQ(ended->answers, 1);
    EXPECT_TRUE(ended->result.ok()) << ended->result.status();
  }
  EXPECT_TRUE(is_here(1) && is_here(2));
  EXPECT_EQ(lots_->bytes(), 0u);
  expect_digests_match_scans();
}

TEST_F(WriteLotsTest, ASenderWithNothingToSendIsWaitedForAsWell) {
  const uint64_t token = add(1);
  const auto with = end("a", 2, token);
  EXPECT_EQ(with->answers, 0);
  const auto without = end("b", 2, 0);
  EXPECT_EQ(with->answers, 1);
  EXPECT_EQ(without->answers, 1);
  EXPECT_TRUE(with->result.ok() && without->result.ok());
}

TEST_F(WriteLotsTest, AnAnswerThatWasLostIsGivenAgain) {
  const uint64_t token = add(1);
  ASSERT_TRUE(end("a", 1, token)->result.ok());
  const auto again = end("a", 1, token);
  EXPECT_EQ(again->answers, 1);
  EXPECT_TRUE(again->result.ok());
}

TEST_F(WriteLotsTest, BlocksThatAreGoneAreNotConfirmed) {
  const uint64_t token = add(1);
  make_lots({});  // as after a restart
  const auto ended = end("a", 1, token);
  EXPECT_EQ(ended->answers, 1);
  EXPECT_EQ(ended->result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(is_here(1));
  // Nor by what came later.
  const uint64_t later = add(2);
  EXPECT_NE(later, token);
  EXPECT_FALSE(end("a", 1, token)->result.ok());
  EXPECT_TRUE(end("a", 1, later)->result.ok());
}

TEST_F(WriteLotsTest, ALateSenderIsNotWaitedForForLongAndEachTimeForLess) {
  for (const int64_t patience_ms : {8'000, 4'000, 2'000}) {
    const uint64_t lot = kLot + static_cast<uint64_t>(patience_ms);
    const auto ended = end("a", 2, add(1, lot), lot);
    pass_ms(patience_ms - 1);
    EXPECT_EQ(ended->answers, 0);
    pass_ms(1);
    EXPECT_EQ(ended->answers, 1);
    EXPECT_TRUE(ended->result.ok());
  }
  EXPECT_TRUE(is_here(1));
  // What the late one sends becomes a lot of its own, which waits for the others in vain.
  const uint64_t late = add(3, kLot + 8'000);
  const auto ended = end("b", 2, late, kLot + 8'000);
  EXPECT_EQ(ended->answers, 0);
  pass_ms(1'000);
  EXPECT_TRUE(ended->result.ok());
  EXPECT_TRUE(is_here(3));
}

TEST_F(WriteLotsTest, ALotThatNobodyEndsIsLetGo) {
  const uint64_t token = add(1);
  pass_ms(60'000);
  EXPECT_EQ(lots_->bytes(), 0u);
  EXPECT_FALSE(end("a", 1, token)->result.ok());
  EXPECT_FALSE(is_here(1));
}

TEST_F(WriteLotsTest, MemoryAndNumberAreBounded) {
  WriteLots::Options small;
  small.max_bytes = 4'000;
  small.max_lots = 2;
  make_lots(small);
  const auto block = pack({make_record(keys(1)[0], std::string(3'000, 'v'), stamp_at(1))})[0];
  ASSERT_TRUE(lots_->add(1, block).ok());
  EXPECT_EQ(lots_->add(1, block).status().code(), absl::StatusCode::kResourceExhausted);
  make_lots(small);
  add(1, 1);
  add(1, 2);
  EXPECT_EQ(lots_->add(3, pack({record_of(1)})[0]).status().code(),
            absl::StatusCode::kResourceExhausted);
  // Whoever has nothing there is answered all the same.
  EXPECT_TRUE(end("a", 2, 0, 3)->result.ok());
}

TEST_F(WriteLotsTest, TellsBySlotWhatWasKept) {
  Record newer = record_of(1);
  newer.version.stamp = stamp_at(50);
  newer.value = "newer";
  apply(newer);
  add(1);
  const auto ended = end("a", 1, add(2));
  ASSERT_TRUE(ended->result.ok());
  EXPECT_EQ(ended->result->kept_different, (std::map<uint32_t, KeptRecords>{{1, {1, 0, 0}}}));
  EXPECT_EQ(get(newer.key), "newer");
}

TEST(LotEnd, GivesBackWhatWasEncodedAndRefusesAnythingElse) {
  const LotEnd end{"part of n3", 7, 123456789};
  const std::string bytes = end.encode();
  const auto decoded = LotEnd::decode(bytes);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->sender, end.sender);
  EXPECT_EQ(decoded->senders, end.senders);
  EXPECT_EQ(decoded->token, end.token);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(LotEnd::decode(bytes.substr(0, size)).ok());
  }
  EXPECT_FALSE(LotEnd::decode(bytes + "x").ok());
  EXPECT_FALSE(LotEnd::decode(LotEnd{"s", 0, 1}.encode()).ok());
}

}  // namespace
}  // namespace sluice
