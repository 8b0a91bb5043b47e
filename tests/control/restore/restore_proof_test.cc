#include "control/restore/restore_proof.h"

#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "control/table/table.h"

namespace sluice {
namespace {

constexpr uint32_t kSlots = 16;

SlotDigest digest_of(uint64_t records) {
  SlotDigest digest;
  digest.records = records;
  return digest;
}

class CompareDigestsTest : public testing::Test {
 protected:
  void SetUp() override {
    TableInput input;
    for (const char* name : {"a", "b"}) {
      TableMember member;
      member.name = name;
      member.number = static_cast<uint32_t>(input.members.size() + 1);
      member.weight = 1;
      input.members.push_back(member);
      digests_[name] = std::vector<SlotDigest>(kSlots);
    }
    input.replicas = 2;
    input.slot_bits = 4;
    auto change = compute_table(nullptr, input);
    ASSERT_TRUE(change.ok()) << change.status();
    table_ = change->table;
  }

  DistributionTable table_;
  NodeDigests digests_;
};

TEST_F(CompareDigestsTest, EachNamedSlotAndWhereAllTheOthersAsEmpty) {
  const std::map<uint32_t, SlotDigest> expected = {{3, digest_of(7)}};
  digests_["a"][3] = digest_of(7);
  digests_["b"][4] = digest_of(1);
  DigestComparison named = compare_digests(table_, digests_, &expected, false);
  EXPECT_EQ(named.copies, 2);
  EXPECT_EQ(named.equal, 1);
  EXPECT_EQ(named.differing, (std::set<SlotCopy>{{3, "b"}}));
  DigestComparison all = compare_digests(table_, digests_, &expected, true);
  EXPECT_EQ(all.copies, 2 * kSlots);
  EXPECT_EQ(all.differing, (std::set<SlotCopy>{{3, "b"}, {4, "b"}}));
  digests_.erase("b");
  all = compare_digests(table_, digests_, &expected, true);
  EXPECT_EQ(all.unreachable.size(), kSlots);
}

// A node that has lost everything holds nothing that is proved.
TEST_F(CompareDigestsTest, WhereNothingIsKnownNoCopyIsEqual) {
  const DigestComparison unknown = compare_digests(table_, digests_, nullptr, true);
  EXPECT_EQ(unknown.copies, 2 * kSlots);
  EXPECT_EQ(unknown.equal, 0);
  EXPECT_EQ(unknown.differing.size(), 2 * kSlots);
}

}  // namespace
}  // namespace sluice
