#include "control/client/part_answers.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/checksum.h"
#include "base/status.h"
#include "control/peers/rpc.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

void expect_refused(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_NE(status.message().find("n2"), absl::string_view::npos) << status;
}

class PartListingTest : public ::testing::Test {
 protected:
  static v1::ContentsPage page(uint32_t slot, const std::string& after,
                               const std::vector<std::string>& paths, bool last = false) {
    v1::ContentsPage page;
    page.set_slot(slot);
    page.set_after(after);
    page.set_last(last);
    for (const std::string& path : paths) {
      v1::ContentsEntry* entry = page.add_entries();
      entry->set_path(path);
      entry->set_type(static_cast<uint32_t>(EntryType::kFile));
    }
    return page;
  }
  static ContentsListing below(const std::string& path) {
    ContentsListing listing;
    listing.path = path;
    return listing;
  }
  absl::Status take(v1::ContentsPage page) { return part_.take(page); }

  const std::string node_ = "n2";
  const ContentsListing listing_ = below("docs");
  std::vector<std::string> seen_;
  BackupContents::VisitEntry visit_ = [this](const BackupEntry& entry) {
    EXPECT_EQ(entry.node, "n2");
    seen_.push_back(entry.path);
    return entry.path == "docs/stop" ? aborted("no more") : absl::OkStatus();
  };
  PartListing part_{node_, listing_, visit_};
};

TEST_F(PartListingTest, TakesPagesInOrder) {
  EXPECT_TRUE(take(page(0, "docs/a", {"docs/a"})).ok());
  EXPECT_TRUE(take(page(0, "docs/a", {})).ok());
  EXPECT_TRUE(take(page(3, "", {})).ok());
  EXPECT_TRUE(take(page(3, "docs/b", {"docs/b/c"}, true)).ok());
  EXPECT_EQ(seen_, (std::vector<std::string>{"docs/a", "docs/b/c"}));
  EXPECT_TRUE(part_.done());
  EXPECT_EQ(part_.place().slot, 3U);
  EXPECT_EQ(part_.place().after, "docs/b");
}

TEST_F(PartListingTest, RefusesPagesThatGoBackOrFollowTheLast) {
  ASSERT_TRUE(take(page(2, "docs/b", {})).ok());
  expect_refused(take(page(2, "docs/a", {"docs/a"})));
  expect_refused(take(page(1, "docs/c", {"docs/c"})));
  ASSERT_TRUE(take(page(2, "docs/b", {}, true)).ok());
  expect_refused(take(page(4, "docs/d", {"docs/d"})));
  EXPECT_TRUE(seen_.empty());
}

TEST_F(PartListingTest, RefusesWhatWasNotAskedFor) {
  expect_refused(take(page(0, "", {"docs2/a"})));
  v1::ContentsPage wrong = page(0, "", {"docs/a"});
  wrong.mutable_entries(0)->set_type(kEntryTypes);
  expect_refused(take(wrong));
  wrong = page(0, "", {"docs"});
  wrong.mutable_entries(0)->set_itself(true);
  wrong.mutable_entries(0)->set_type(static_cast<uint32_t>(EntryType::kPrefix));
  expect_refused(take(wrong));
}

TEST_F(PartListingTest, EndsWithTheErrorOfItsCaller) {
  EXPECT_EQ(take(page(0, "", {"docs/stop", "docs/z"})).message(), "no more");
  EXPECT_EQ(seen_.size(), 1U);
}

v1::PartSlots slots_page(const std::vector<uint32_t>& slots, uint32_t bits, bool last = false) {
  v1::PartSlots page;
  page.set_node("n1");
  page.set_slot_bits(bits);
  std::vector<SlotDigest> digests;
  for (const uint32_t slot : slots) {
    page.add_slots(slot);
    digests.emplace_back().records = slot + 1;
  }
  page.set_digests(encode_digests(digests));
  page.set_last(last);
  return page;
}

TEST(ManifestSlots, GathersPages) {
  const std::string node = "n2";
  ManifestSlots slots(node);
  EXPECT_TRUE(slots.take(slots_page({0, 2}, 2)).ok());
  EXPECT_FALSE(slots.done());
  EXPECT_TRUE(slots.take(slots_page({3}, 2, true)).ok());
  EXPECT_TRUE(slots.done());
  const BackupSlots all = slots.move_out();
  EXPECT_EQ(all.slot_bits, 2U);
  ASSERT_EQ(all.slots.size(), 3U);
  EXPECT_EQ(all.slots.at(2).node, "n1");
  EXPECT_EQ(all.slots.at(2).digest.records, 3U);
}

TEST(ManifestSlots, RefusesWhatNoManifestSays) {
  const std::string node = "n2";
  const auto refused = [&](const std::vector<v1::PartSlots>& pages) {
    ManifestSlots slots(node);
    for (size_t i = 0; i + 1 < pages.size(); ++i) ASSERT_TRUE(slots.take(pages[i]).ok());
    expect_refused(slots.take(pages.back()));
  };
  refused({slots_page({4}, 2)});
  refused({slots_page({}, 0)});
  refused({slots_page({}, kMaxSlotBits + 1)});
  refused({slots_page({0}, 2), slots_page({1}, 3)});
  refused({slots_page({0}, 2), slots_page({0}, 2)});
  refused({slots_page({0}, 2, true), slots_page({1}, 2)});
  v1::PartSlots page = slots_page({0, 1}, 2);
  page.mutable_digests()->pop_back();
  refused({page});
}

class PartValuesTest : public ::testing::Test {
 protected:
  static v1::ContentsPiece piece(uint32_t key, const std::string& bytes,
                                 const std::string& whole = "") {
    v1::ContentsPiece piece;
    piece.set_key(key);
    piece.set_piece(bytes);
    if (!whole.empty()) put(xxh3_128(whole), piece.mutable_digest());
    return piece;
  }
  static v1::ContentsPiece last() {
    v1::ContentsPiece piece;
    piece.set_last(true);
    return piece;
  }
  const std::string node_ = "n2";
  PartValues values_{node_, 4};
};

TEST_F(PartValuesTest, PutsPiecesTogether) {
  EXPECT_TRUE(values_.take(piece(1, "ab")).ok());
  EXPECT_TRUE(values_.take(piece(1, "cd", "abcd")).ok());
  EXPECT_TRUE(values_.take(piece(3, "e", "e")).ok());
  EXPECT_FALSE(values_.done());
  EXPECT_TRUE(values_.take(last()).ok());
  EXPECT_TRUE(values_.done());
  EXPECT_FALSE(values_.move_out(0).has_value());
  EXPECT_EQ(values_.move_out(1), "abcd");
  EXPECT_FALSE(values_.move_out(2).has_value());
  EXPECT_EQ(values_.move_out(3), "e");
  expect_refused(values_.take(last()));
}

TEST_F(PartValuesTest, RefusesOtherBytesThanTheDigestIsOf) {
  expect_refused(values_.take(piece(1, "ab", "abc")));
}

TEST_F(PartValuesTest, RefusesKeysOutOfOrder) {
  ASSERT_TRUE(values_.take(piece(2, "ab", "ab")).ok());
  expect_refused(values_.take(piece(2, "ab", "ab")));
  expect_refused(values_.take(piece(1, "ab", "ab")));
  expect_refused(values_.take(piece(4, "ab", "ab")));
}

TEST_F(PartValuesTest, RefusesValuesThatAreNotWhole) {
  ASSERT_TRUE(values_.take(piece(1, "ab")).ok());
  expect_refused(values_.take(piece(2, "c", "c")));
  expect_refused(values_.take(last()));
}

TEST_F(PartValuesTest, RefusesValuesLongerThanAny) {
  const std::string half(kMaxValueBytes / 2 + 1, 'x');
  ASSERT_TRUE(values_.take(piece(0, half)).ok());
  expect_refused(values_.take(piece(0, half)));
}

}  // namespace
}  // namespace sluice
