#include "base/socket_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/status.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string error_of(std::string_view text) {
  const auto address = parse_address(text);
  EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(message_of(address.status()));
}

TEST(SocketAddress, WhatIsReadIsWrittenAgain) {
  for (const char* text : {"127.0.0.1:7001", "[::1]:7001", "0.0.0.0:0", "[fe80::1]:65535"}) {
    const auto address = parse_address(text);
    ASSERT_TRUE(address.ok()) << message_of(address.status());
    EXPECT_EQ(to_string(*address), text);
  }
  EXPECT_EQ(to_string(*parse_address("localhost:7001")), "127.0.0.1:7001");
}

TEST(SocketAddress, ErrorsSayWhatIsWrongInPrintableText) {
  EXPECT_THAT(error_of("127.0.0.1"), HasSubstr("it has no port"));
  EXPECT_THAT(error_of("127.0.0.1:65536"), HasSubstr("port"));
  EXPECT_THAT(error_of("n1.example.org:7001"), HasSubstr("names are not looked up"));
  EXPECT_THAT(error_of("[::1:7001"), HasSubstr("host"));
  EXPECT_THAT(error_of("\x1b[2J:70\xff"), HasSubstr("\"\\x1b[2J:70\\xff\""));
}

// The C library would read the part before it.
TEST(SocketAddress, AZeroByteIsPartOfNoAddress) {
  EXPECT_THAT(error_of(std::string("127.0.0.1\0.example.org:7001", 27)), HasSubstr("zero byte"));
  EXPECT_THAT(error_of(std::string("[::1\0]:7001", 11)), HasSubstr("zero byte"));
}

}  // namespace
}  // namespace sluice
