// The transport on ports that differ.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "drivers/dpdk/dpdk.h"
#include "tests/dpdk/rig.h"
#include "tests/drivers/node.h"

namespace sluice {
namespace {

TEST(DpdkTransport, PeersOfDifferentMtuAgreeOnTheSmallerOne) {
  const auto transport = dpdk::make_dpdk_transport();
  Node large(*transport, rig_listen(0));
  Node small(*transport, rig_listen(1) + ";mtu=1500");
  ASSERT_TRUE(large.endpoint != nullptr && small.endpoint != nullptr);
  const auto [to_small, to_large] = connect_nodes(large, small);
  ASSERT_NE(to_small, 0u);
  constexpr uint32_t kBytes = 100'000;
  ASSERT_TRUE(small.post_receives(to_large, 4));
  ASSERT_TRUE(
      run_until({&large, &small}, [&, id = to_small] { return large.endpoint->credits(id) > 0; }));
  ASSERT_TRUE(large.try_send(to_small, kBytes, 7));
  ASSERT_TRUE(run_until({&large, &small},
                        [&, id = to_large] { return small.link(id).received.size() == 1; }));
  EXPECT_TRUE(has_content(small.link(to_large).received.front(), kBytes, 7));
}

TEST(DpdkTransport, AnEndpointThatOnlyConnectsNeedsADevice) {
  unsetenv(dpdk::kPortVariable);
  auto arena = Arena::create({.bytes = size_t{4} << 20});
  const auto endpoint = dpdk::make_dpdk_transport()->open(**arena, "");
  ASSERT_FALSE(endpoint.ok());
  EXPECT_NE(endpoint.status().message().find(dpdk::kPortVariable), std::string::npos)
      << endpoint.status();
}

}  // namespace
}  // namespace sluice
