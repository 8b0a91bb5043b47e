#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "base/status.h"
#include "drivers/dpdk/probe.h"
#include "tests/dpdk/rig.h"

namespace {
constexpr int kSkipped = 77;
}

int main(int argc, char** argv) {
  absl::Status rig = sluice::make_dpdk_rig();
  const sluice::dpdk::Report report = sluice::dpdk::examine();
  if (rig.ok() && !report.usable) rig = sluice::failed_precondition("{}", report.reason);
  if (!rig.ok()) {
    std::printf("dpdk: skipped: %s\n", std::string(sluice::message_of(rig)).c_str());
    return kSkipped;
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
