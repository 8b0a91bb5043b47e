#include "control/node/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

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

TEST(NodeConfig, WhatIsWrongIsNamedWithItsLine) {
  EXPECT_THAT(refusal("colour = 'red'"), HasSubstr("n1.toml:4: unknown key 'colour'"));
  EXPECT_THAT(refusal("weight = 'heavy'"), HasSubstr("n1.toml:4: key 'weight'"));
  EXPECT_THAT(refusal("weight = -1"), HasSubstr("weight"));
  EXPECT_THAT(refusal("arena_bytes = 1024"), HasSubstr("arena_bytes"));
  EXPECT_THAT(refusal("archive_folder = '/d/archives'"), HasSubstr("apart"));
  EXPECT_THAT(refusal("rack = "), HasSubstr("n1.toml:4"));
  EXPECT_THAT(std::string(message_of(parse_node_config("name = 'n1'", "x").status())),
              HasSubstr("missing"));
}

}  // namespace
}  // namespace sluice
