#include "base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace sluice {
namespace {

// Golden: what is stored or agreed on depends on these numbers staying what they are.
TEST(RandomTest, TheSequenceOfASeedNeverChanges) {
  Random random(42);
  EXPECT_EQ(random.next(), 13679457532755275413u);
  EXPECT_EQ(random.next(), 2949826092126892291u);
  EXPECT_EQ(random.next(), 5139283748462763858u);
}

TEST(RandomTest, BelowStaysBelowAndReachesAll) {
  Random random(1);
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.below(7));
  EXPECT_EQ(seen, (std::set<uint64_t>{0, 1, 2, 3, 4, 5, 6}));
}

TEST(RandomTest, ShuffleKeepsTheItems) {
  Random random(5);
  std::vector<int> items{1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<int> before = items;
  random.shuffle(items);
  EXPECT_NE(items, before);
  std::sort(items.begin(), items.end());
  EXPECT_EQ(items, before);
}

TEST(RandomTest, UuidsAreDistinctAndOfVersion4) {
  const std::string uuid = make_uuid();
  EXPECT_EQ(uuid.size(), 36u);
  EXPECT_EQ(uuid[14], '4');
  EXPECT_NE(std::string("89ab").find(uuid[19]), std::string::npos);
  EXPECT_NE(uuid, make_uuid());
}

}  // namespace
}  // namespace sluice
