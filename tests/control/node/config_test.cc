#include "control/node/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "control/node/arena_budget.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr char kLeast[] = "name = 'n1'\ncluster = 'sqlite:/c.db'\ndata_folder = '/d/'\n";

std::string refusal(const std::string& more) {
  const auto config = parse_node_config(kLeast + more, "n1.toml");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(message_of(config.status()));
}

TEST(NodeConfig, DefaultsAreFilledIn) {
  const auto config = parse_node_config(kLeast, "n1.toml");
  ASSERT_TRUE(config.ok()) << message_of(config.status());
  EXPECT_EQ(config->name, "n1");
  EXPECT_EQ(config->data_folder, "/d");
  EXPECT_EQ(config->archive_folder, "/d-archives");
  EXPECT_EQ(config->control_listen, "127.0.0.1:0");
  EXPECT_FALSE(config->weight.has_value());
}

TEST(NodeConfig, AWeightMayBeWholeOrNot) {
  EXPECT_EQ(parse_node_config(std::string(kLeast) + "weight = 2", "x")->weight, 2.0);
  EXPECT_EQ(parse_node_config(std::string(kLeast) + "weight = 2.5", "x")->weight, 2.5);
}

TEST(NodeConfig, RebalancingCanBeSwitchedOff) {
  const std::string start(kLeast);
  EXPECT_EQ(parse_node_config(start, "x")->rebalance_after_ms, 10'000);
  EXPECT_EQ(parse_node_config(start + "rebalance_after_ms = 0\n", "x")->rebalance_after_ms, 0);
  EXPECT_FALSE(parse_node_config(start + "rebalance_after_ms = -1\n", "x").ok());
}

TEST(NodeConfig, WhatIsWrongIsNamedWithItsLine) {
  EXPECT_THAT(refusal("colour = 'red'"), HasSubstr("n1.toml:4: unknown key 'colour'"));
  EXPECT_THAT(refusal("weight = 'heavy'"), HasSubstr("n1.toml:4: key 'weight'"));
  EXPECT_THAT(refusal("weight = -1"), HasSubstr("weight"));
  EXPECT_THAT(refusal("weight = 0"), HasSubstr("it is 0"));
  EXPECT_THAT(refusal("weight = inf"), HasSubstr("it is inf"));
  EXPECT_THAT(refusal("weight = nan"), HasSubstr("it is nan"));
  EXPECT_THAT(refusal("arena_bytes = 1024"), HasSubstr("arena_bytes"));
  EXPECT_THAT(refusal("archive_folder = '/d/archives'"), HasSubstr("apart"));
  EXPECT_THAT(refusal("rack = "), HasSubstr("n1.toml:4"));
  // It goes to terminals.
  EXPECT_THAT(refusal("\"\\u001b[2J\" = 1"), HasSubstr("unknown key '\\x1b[2J'"));
  EXPECT_THAT(std::string(message_of(parse_node_config("name = 'n1'", "x").status())),
              HasSubstr("missing"));
}

TEST(NodeConfig, ALimitIsAWholeNumberOfBytesASecond) {
  EXPECT_EQ(parse_node_config(kLeast, "x")->bytes_per_second, 0u);
  EXPECT_EQ(parse_node_config(std::string(kLeast) + "[limits]\nbytes_per_second = 1048576", "x")
                ->bytes_per_second,
            1048576u);
  const auto limit = [](const std::string& value) {
    return refusal("[limits]\nbytes_per_second = " + value);
  };
  EXPECT_THAT(limit("0"), HasSubstr("n1.toml:5: key 'limits.bytes_per_second' must be"));
  EXPECT_THAT(limit("0"), HasSubstr("it is 0"));
  EXPECT_THAT(limit("-40"), HasSubstr("it is -40"));
  EXPECT_THAT(limit("1048575"), HasSubstr("it is 1048575"));
  EXPECT_THAT(limit("inf"), HasSubstr("it is inf"));
  EXPECT_THAT(limit("1e7"), HasSubstr("limits.bytes_per_second"));
  EXPECT_THAT(limit("'40 MB'"), HasSubstr("limits.bytes_per_second"));
  EXPECT_THAT(refusal("[limits]\nspeed = 1"), HasSubstr("unknown key 'limits.speed'"));
  EXPECT_THAT(refusal("limits = 7"), HasSubstr("unknown key 'limits'"));
  EXPECT_THAT(refusal("[disk]\nbytes_per_second = 1"), HasSubstr("unknown key 'disk'"));
}

TEST(ArenaBudget, RefusesWhatABackupCannotWorkWithAndSaysWhatWould) {
  for (const size_t nodes : {1, 3, 5, 8, 16}) {
    const uint64_t needed = smallest_arena_bytes(nodes);
    EXPECT_TRUE(check_arena(needed, nodes).ok()) << nodes;
    const absl::Status refused = check_arena(needed - 1, nodes);
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(message_of(refused).find(fmt::format("arena_bytes = {}", needed)),
              std::string_view::npos)
        << message_of(refused);
  }
  EXPECT_EQ(smallest_arena_bytes(64), smallest_arena_bytes(16));
  EXPECT_EQ(smallest_arena_bytes(10'000), smallest_arena_bytes(16));
  EXPECT_TRUE(check_arena(NodeConfig().arena_bytes, 10'000).ok()) << "as configured by default";
  EXPECT_LE(recommended_arena_bytes(12), NodeConfig().arena_bytes);
  EXPECT_FALSE(check_arena(uint64_t{48} << 20, 5).ok());
}

// Its nodes would plan each other out of every backup.
TEST(ArenaBudget, ANodeWithTooSmallAnArenaDoesNotStart) {
  TestCluster cluster;
  cluster.stop(0);
  NodeOptions options;
  options.config.name = "n1";
  options.config.cluster = cluster.url();
  options.config.data_folder = cluster.folder() + "/n1/data";
  options.config.archive_folder = cluster.folder() + "/n1/archives";
  options.config.arena_bytes = smallest_arena_bytes(3) - 1;
  const auto node = Node::start(options);
  EXPECT_EQ(node.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(message_of(node.status()).find("3 nodes"), std::string_view::npos)
      << message_of(node.status());
}

}  // namespace
}  // namespace sluice
