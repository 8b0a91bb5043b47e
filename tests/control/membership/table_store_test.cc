#include "control/membership/table_store.h"

#include <gtest/gtest.h>

#include "base/status.h"
#include "control/cluster_block/memory_cluster_block.h"

namespace sluice {
namespace {

TableInput input(uint32_t slot_bits = 6, uint32_t members = 4) {
  TableInput in;
  for (uint32_t i = 1; i <= members; ++i) in.members.push_back({"n" + std::to_string(i), i, 1, ""});
  in.replicas = 3;
  in.slot_bits = slot_bits;
  return in;
}

TEST(TableStore, KeepsEpochs) {
  const auto block = make_memory_cluster_block();
  EXPECT_TRUE(absl::IsNotFound(load_table(*block).status()));
  DistributionTable table = compute_table(nullptr, input())->table;
  for (uint64_t epoch = 1; epoch <= 12; ++epoch) {
    ASSERT_TRUE(publish_table(*block, table).ok());
    ASSERT_TRUE(publish_table(*block, table).ok());
    EXPECT_EQ(*load_table(*block), table);
    EXPECT_EQ(*load_table(*block, epoch), table);
    EXPECT_EQ(load_table_head(*block)->epoch, epoch);
    table = compute_table(&table, input())->table;
  }
  EXPECT_TRUE(absl::IsNotFound(load_table(*block, 4).status()));
  EXPECT_TRUE(load_table(*block, 5).ok());
  EXPECT_TRUE(absl::IsNotFound(load_table(*block, 13).status()));
}

TEST(TableStore, TheFirstOfTwoWritersWins) {
  const auto block = make_memory_cluster_block();
  const DistributionTable first = compute_table(nullptr, input())->table;
  ASSERT_TRUE(publish_table(*block, first).ok());
  const DistributionTable a = compute_table(&first, input(6, 5))->table;
  const DistributionTable b = compute_table(&first, input(6, 6))->table;
  ASSERT_TRUE(publish_table(*block, a).ok());
  EXPECT_TRUE(absl::IsAborted(publish_table(*block, b)));
  EXPECT_TRUE(absl::IsAborted(publish_table(*block, first)));
  EXPECT_EQ(*load_table(*block), a);
}

TEST(TableStore, LargeTablesAreChunked) {
  const auto block = make_memory_cluster_block();
  const DistributionTable table = compute_table(nullptr, input(20))->table;
  ASSERT_TRUE(publish_table(*block, table).ok());
  EXPECT_GT(load_table_head(*block)->chunks, 10u);
  EXPECT_EQ(*load_table(*block), table);
  const auto listing = block->list("table/");
  for (const ClusterEntry& entry : listing->entries) EXPECT_LT(entry.value.size(), 512u << 10);
}

TEST(TableStore, DamageIsNamed) {
  const auto block = make_memory_cluster_block();
  const DistributionTable table = compute_table(nullptr, input())->table;
  ASSERT_TRUE(publish_table(*block, table).ok());
  const auto listing = block->list("table/");
  for (const ClusterEntry& entry : listing->entries) {
    ASSERT_TRUE(block->put(entry.key, "x").ok());
    const absl::Status status = absl::IsDataLoss(load_table(*block).status())
                                    ? load_table(*block).status()
                                    : load_table(*block, 1).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << entry.key;
    EXPECT_NE(message_of(status).find("table/"), std::string_view::npos) << status;
    ASSERT_TRUE(block->put(entry.key, entry.value).ok());
  }
  EXPECT_EQ(*load_table(*block), table);
}

TEST(TableStore, MembersComeByNumber) {
  Member a;
  a.info.name = "a";
  a.info.number = 2;
  a.info.weight = 3;
  a.info.rack = "r";
  Member b = a;
  b.info.name = "b";
  b.info.number = 1;
  const auto members = table_members({a, b});
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[0].name, "b");
  EXPECT_EQ(members[1], (TableMember{"a", 2, 3, "r"}));
}

}  // namespace
}  // namespace sluice
