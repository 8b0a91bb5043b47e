#include "drivers/dpdk/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace sluice::dpdk {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view text) {
  const auto settings = parse_settings(text);
  EXPECT_FALSE(settings.ok()) << text;
  return settings.ok() ? "" : std::string(message_of(settings.status()));
}

TEST(DpdkSettings, ReadTheWholeForm) {
  const auto settings =
      parse_settings("10.12.0.1/24:7001%0000:3b:00.0;gateway=10.12.0.254;mtu=9000;poll=busy");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->ip, 0x0a0c0001u);
  EXPECT_EQ(settings->prefix, 24);
  EXPECT_EQ(settings->udp_port, 7001);
  EXPECT_EQ(settings->device, "0000:3b:00.0");
  EXPECT_EQ(settings->arguments, "");
  EXPECT_EQ(settings->gateway, 0x0a0c00feu);
  EXPECT_EQ(settings->mtu, 9000);
  EXPECT_EQ(settings->polling, Polling::kBusy);
}

TEST(DpdkSettings, ReadTheShortForms) {
  auto settings = parse_settings("10.12.0.9%net_memif0,role=client,socket=/run/a.sock");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->udp_port, 0);
  EXPECT_EQ(settings->device, "net_memif0");
  EXPECT_EQ(settings->arguments, "role=client,socket=/run/a.sock");
  EXPECT_EQ(settings->polling, Polling::kAdaptive);
  EXPECT_EQ(argument_of(settings->arguments, "socket"), "/run/a.sock");
  EXPECT_EQ(argument_of(settings->arguments, "sock"), "");
}

TEST(DpdkSettings, ErrorsSayWhatIsWrong) {
  EXPECT_THAT(error_of(""), HasSubstr("names no device"));
  EXPECT_THAT(error_of("10.12.0.1:7001"), HasSubstr("names no device"));
  EXPECT_THAT(error_of("10.12.0.1:7001%"), HasSubstr("no device after %"));
  EXPECT_THAT(error_of("localhost:7001%net_tap0"), HasSubstr("no IPv4 address"));
  EXPECT_THAT(error_of("127.0.0.1:7001%net_tap0"), HasSubstr("no IPv4 address"));
  EXPECT_THAT(error_of("10.12.0.1:70000%net_tap0"), HasSubstr("UDP port"));
  EXPECT_THAT(error_of("10.12.0.1/33:7001%net_tap0"), HasSubstr("prefix"));
  EXPECT_THAT(error_of("10.12.0.1:7001%net_tap0;mtu=100"), HasSubstr("mtu=100"));
  EXPECT_THAT(error_of("10.12.0.1:7001%net_tap0;speed=9"), HasSubstr("\"speed=9\" is no option"));
  EXPECT_THAT(error_of("10.12.0.1:7001%net_tap0;gateway=10.12.0.254"), HasSubstr("/PREFIX"));
  // They go to terminals.
  EXPECT_THAT(error_of("10.12.0.1:7001\x1b[2J\xff"), HasSubstr("\\x1b[2J\\xff"));
  EXPECT_THAT(error_of("10.12.0.1:7001%net_tap0;\x1b=9"), HasSubstr("\"\\x1b=9\" is no option"));
}

TEST(DpdkSettings, AddressesAreReadStrictly) {
  EXPECT_EQ(parse_address("10.12.0.1:7001", false)->port, 7001);
  for (const char* text : {"", ":", "10.12.0.1", "10.12.0.1:", "10.12.0.1:0", "10.12.0.1:65536",
                           "10.12.0:1", "10.12.0.1.1:1", "10.12.0.256:1", "0.0.0.0:1",
                           "224.0.0.1:1", "10.12.0.1:1x", " 10.12.0.1:1", "10..0.1:1", "host:1"}) {
    EXPECT_FALSE(parse_address(text, false).ok()) << text;
  }
  EXPECT_TRUE(parse_address("10.12.0.1:0", true).ok());
  EXPECT_EQ(address_text(0x0a0c0001, 7001), "10.12.0.1:7001");
}

}  // namespace
}  // namespace sluice::dpdk
