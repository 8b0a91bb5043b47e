#include "drivers/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace sluice {
namespace {

using testing::HasSubstr;

TEST(Registry, TcpIsAlwaysThere) {
  auto transport = make_transport("tcp");
  ASSERT_TRUE(transport.ok());
  EXPECT_EQ((*transport)->name(), "tcp");
}

TEST(Registry, UnknownDriversAreRefused) {
  for (const char* name : {"", "sim", "TCP", "udp"}) {
    EXPECT_EQ(make_transport(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST(Registry, OtherDriversAreMadeWhereTheyCanWorkAndRefusedWithTheFixElsewhere) {
  for (const char* name : {"rdma", "dpdk"}) {
    const auto transport = make_transport(name);
    if (transport.ok()) {
      EXPECT_EQ((*transport)->name(), name);
      continue;
    }
    EXPECT_EQ(transport.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(message_of(transport.status())), HasSubstr(name));
    EXPECT_THAT(std::string(message_of(transport.status())), HasSubstr("--driver tcp"));
  }
}

TEST(Registry, TheReportAgreesWithWhatCanBeMade) {
  for (const DriverReport& report : examine_drivers()) {
    EXPECT_EQ(make_transport(report.name).ok(), report.usable) << report.name;
    EXPECT_FALSE(report.reason.empty());
    EXPECT_EQ(report.fix.empty(), report.usable) << report.name;
  }
}

}  // namespace
}  // namespace sluice
