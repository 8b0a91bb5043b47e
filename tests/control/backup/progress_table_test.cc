#include "control/backup/progress_table.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

NodeProgress progress_of(const std::string& node, uint64_t attempt, uint64_t sent) {
  NodeProgress progress;
  progress.node = node;
  progress.attempt = attempt;
  progress.sent_slots = sent;
  return progress;
}

TEST(ProgressTable, TheNewestReportOfANodeCounts) {
  ProgressTable table("b");
  EXPECT_TRUE(table.add(progress_of("n1", 1, 5), {1, 7, 2}));
  // Late.
  EXPECT_FALSE(table.add(progress_of("n1", 1, 4), {1, 7, 1}));
  EXPECT_FALSE(table.add(progress_of("n1", 1, 4), {1, 7, 2}));
  EXPECT_EQ(table.all().at("n1").sent_slots, 5u);
  // Numbers begin anew after a restart, and with an attempt.
  EXPECT_TRUE(table.add(progress_of("n1", 1, 6), {1, 8, 1}));
  EXPECT_TRUE(table.add(progress_of("n1", 2, 0), {2, 8, 1}));
  EXPECT_FALSE(table.add(progress_of("n1", 1, 9), {1, 8, 9}));
  EXPECT_TRUE(table.add(progress_of("n2", 1, 3), {1, 1, 1}));
  EXPECT_EQ(table.of_attempt(2).size(), 1u);
  EXPECT_EQ(table.of_attempt(1).at("n2").sent_slots, 3u);
  EXPECT_EQ(table.all().size(), 2u);
}

TEST(ProgressTable, WhatIsStoredStandsUntilANodeReports) {
  ProgressTable table("b");
  EXPECT_TRUE(table.add(progress_of("n1", 2, 5), {2, 1, 1}));
  table.add_stored({progress_of("n1", 1, 1), progress_of("n2", 1, 2)});
  EXPECT_EQ(table.all().at("n1").sent_slots, 5u);
  EXPECT_EQ(table.all().at("n2").sent_slots, 2u);
  EXPECT_TRUE(table.add(progress_of("n2", 2, 7), {2, 1, 1}));
  EXPECT_EQ(table.all().at("n2").sent_slots, 7u);
}

TEST(ProgressTable, StoresEachReportOnceUnlessItCouldNotBeStored) {
  ProgressTable table("b");
  table.add_stored({progress_of("n0", 1, 1)});
  EXPECT_FALSE(table.has_unstored());
  for (const char* node : {"n1", "n2", "n3"}) table.add(progress_of(node, 1, 1), {1, 1, 1});
  const auto first = table.take_unstored(2);
  ASSERT_EQ(first.size(), 2u);
  const auto rest = table.take_unstored(2);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_FALSE(table.has_unstored());
  table.give_back(first);
  // Newer by now.
  table.add(progress_of("n1", 1, 9), {1, 1, 2});
  const auto again = table.take_unstored(10);
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[0].key, backup_progress_key("b", "n1"));
  EXPECT_EQ(decode_node_progress(again[0].key, again[0].value)->sent_slots, 9u);
}

}  // namespace
}  // namespace sluice
