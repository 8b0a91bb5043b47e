#include "control/local/description.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/control/local/some_description.h"

namespace sluice {
namespace {

using testing::some_description;

// The text with its first `from` as `to`.
std::string with(const std::string& from, const std::string& to) {
  std::string text = to_json(some_description());
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

void expect_refused(const std::string& text) {
  const auto parsed = parse_description(text);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kDataLoss) << text;
}

TEST(LocalDescription, IsReadAsItWasWritten) {
  const auto parsed = parse_description(to_json(some_description()));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, some_description());
}

TEST(LocalDescription, OfAnEarlierVersionIsComplete) {
  const auto parsed = parse_description(with("\"complete\": true,", ""));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->complete);
}

TEST(LocalDescription, ThatIsNotJsonIsRefused) {
  for (const char* text : {"", "[]", "{", "null"}) expect_refused(text);
  expect_refused(with("\"slots\": 4096,", ""));
}

// The library would make other numbers of them.
TEST(LocalDescription, OfNumbersThatDoNotFitIsRefused) {
  for (const char* slots : {"4294971392", "-4096", "4096.5", "1e300", "\"4096\"", "0", "3", "1"}) {
    expect_refused(with("4096", slots));
  }
  expect_refused(with("\"replicas\": 2", "\"replicas\": 0"));
  expect_refused(with("2.5", "-2.5"));
}

// A name is part of paths, and of configuration files that are written.
TEST(LocalDescription, OfANodeThatLeavesTheDirectoryIsRefused) {
  for (const char* name : {"../n1", "", ".", "n1/x"}) {
    expect_refused(with("\"n1\"", "\"" + std::string(name) + "\""));
  }
  expect_refused(with("\"n1\"", "\"n2\""));
}

TEST(LocalDescription, WithoutNodesIsRefused) {
  LocalDescription description = some_description();
  description.nodes.clear();
  expect_refused(to_json(description));
}

TEST(LocalDescription, OfAddressesThatAreNoneIsRefused) {
  expect_refused(with("127.0.0.1:7001", "127.0.0.1"));
  expect_refused(with("/tmp/demo\"", "demo\""));
  expect_refused(with("sqlite:", "sqlight:"));
}

}  // namespace
}  // namespace sluice
