// Single records, imports and exports over a whole cluster, with nodes that come and go.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string why_of(const absl::Status& status) { return std::string(message_of(status)); }

TEST(Records, ArePutReadDeletedAndCounted) {
  TestCluster cluster;
  const auto client = cluster.client();
  EXPECT_TRUE(client->put("a", "1").ok());
  EXPECT_TRUE(client->put("b", std::string("\0\n\xff", 3)).ok());
  EXPECT_TRUE(client->put("empty", "").ok());
  EXPECT_EQ(client->get("a").value(), "1");
  EXPECT_EQ(client->get("b").value(), std::string("\0\n\xff", 3));
  EXPECT_EQ(client->get("empty").value(), "");
  EXPECT_EQ(client->get("none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(client->put("a", "2").ok());
  EXPECT_EQ(client->get("a").value(), "2");
  EXPECT_EQ(client->count().value(), 3u);
  EXPECT_TRUE(client->erase("a").ok());
  EXPECT_EQ(client->get("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client->count().value(), 2u);
  EXPECT_EQ(client->put("", "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client->put(std::string(kMaxKeyBytes + 1, 'k'), "x").code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Records, LargeValuesAreKeptWhole) {
  TestCluster cluster;
  const auto client = cluster.client();
  const std::string value(5'000'001, 'v');
  ASSERT_TRUE(client->put("large", value).ok());
  EXPECT_EQ(client->get("large").value(), value);
  EXPECT_EQ(read_cluster(*client).at("large"), value);
}

TEST(Records, ImportAndExportHoldTheSame) {
  TestCluster cluster;
  const auto client = cluster.client();
  std::map<std::string, std::string> expected;
  const auto import = client->import();
  for (int i = 0; i < 3000; ++i) {
    const std::string key = fmt::format("{}/{:05}", i % 3 == 0 ? "x" : "y", i);
    expected[key] = std::string(static_cast<size_t>(i % 700), static_cast<char>('a' + i % 26));
    ASSERT_TRUE(import->put(key, expected[key]).ok());
  }
  const WriteTotals totals = import->finish();
  EXPECT_EQ(totals.records, 3000u);
  EXPECT_EQ(totals.failed, 0u);
  EXPECT_EQ(client->count().value(), 3000u);
  EXPECT_EQ(client->count("x/").value(), 1000u);
  EXPECT_EQ(read_cluster(*client), expected);
  const auto nodes = client->nodes();
  ASSERT_TRUE(nodes.ok());
  for (const NodeView& node : *nodes) {
    EXPECT_EQ(node.state, NodeState::kLive);
    EXPECT_EQ(node.slots, 64u);
    EXPECT_EQ(node.records, 3000u);
  }
}

TEST(Records, AMinorityOfDeadNodesCostsNothingAndAMajorityIsNamed) {
  TestCluster cluster;
  const auto client = cluster.client();
  ASSERT_TRUE(client->put("before", "1").ok());
  cluster.stop(2);
  for (int i = 0; i < 50; ++i) {
    const absl::Status status = client->put(fmt::format("k{}", i), "v");
    ASSERT_TRUE(status.ok()) << message_of(status);
  }
  EXPECT_EQ(client->get("before").value(), "1");
  EXPECT_EQ(client->count().value(), 51u);
  cluster.stop(1);
  const absl::Status refused = client->put("lost", "x");
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(why_of(refused), HasSubstr("slot "));
  EXPECT_THAT(why_of(refused), HasSubstr("n2"));
  EXPECT_THAT(why_of(refused), HasSubstr("n3"));
  const auto unread = client->get("before");
  EXPECT_EQ(unread.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(why_of(unread.status()), HasSubstr("n2"));
}

TEST(Records, AReplicaThatMissedWritesDoesNotHideThem) {
  TestCluster cluster;
  const auto client = cluster.client();
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(client->put(fmt::format("k{}", i), "old").ok());
  cluster.stop(2);
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(client->put(fmt::format("k{}", i), "new").ok());
  ASSERT_TRUE(client->erase("k7").ok());
  cluster.start(2);
  cluster.stop(0);
  for (int i = 0; i < 30; ++i) {
    const auto value = client->get(fmt::format("k{}", i));
    if (i == 7) {
      EXPECT_EQ(value.status().code(), absl::StatusCode::kNotFound);
    } else {
      ASSERT_TRUE(value.ok()) << message_of(value.status());
      EXPECT_EQ(*value, "new");
    }
  }
  EXPECT_EQ(client->count().value(), 29u);
  EXPECT_EQ(read_cluster(*client).size(), 29u);
}

}  // namespace
}  // namespace sluice
