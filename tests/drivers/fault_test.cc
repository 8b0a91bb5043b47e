#include "drivers/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <string>
#include <vector>

#include "base/status.h"
#include "drivers/sim/sim.h"
#include "tests/drivers/node.h"

namespace sluice {
namespace {

using testing::HasSubstr;

class FaultTest : public testing::Test {
 protected:
  SimFabric fabric_{1};
  SimTransport left_{fabric_, "left"};
  SimTransport right_{fabric_, "right"};
};

TEST_F(FaultTest, PostsAcceptPrefixesOfEveryLengthAndAllGetsThrough) {
  FaultOptions options;
  options.partial_post = 1;
  FaultTransport faulty(left_, options);
  Node a(faulty, "left", 40, 4096);
  Node b(right_, "right", 40, 4096);
  const auto [ab, ba] = connect_nodes(a, b);
  ASSERT_NE(ab, 0u);
  size_t shorter = 0;
  for (int round = 0; round < 50; ++round) {
    std::vector<BlockBuffer> buffers;
    for (int i = 0; i < 4; ++i) buffers.push_back(a.pool->try_take());
    const size_t accepted = a.endpoint->post_recv(ab, buffers);
    shorter += accepted < 4 ? 1 : 0;
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(static_cast<bool>(buffers[i]), i >= accepted);
    if (a.pool->free() < 20) break;
  }
  EXPECT_GT(shorter, 0u);
}

TEST_F(FaultTest, ACutConnectionReturnsEverythingWithTheSeed) {
  FaultOptions options;
  options.seed = 77;
  options.cut_after_messages = 5;
  FaultTransport faulty(left_, options);
  Node a(faulty, "left");
  Node b(right_, "right");
  const auto [ab, ba] = connect_nodes(a, b);
  ASSERT_TRUE(b.post_receives(ba, 12));
  ASSERT_TRUE(run_until({&a, &b}, [&, id = ab] { return a.endpoint->credits(id) == 12; }));
  size_t posted = 0;
  while (posted < 12 && a.try_send(ab, 100, posted)) ++posted;
  ASSERT_TRUE(run_until({&a, &b}, [&, id = ab] { return a.link(id).closed; }));
  EXPECT_EQ(a.link(ab).sent, 5u);
  EXPECT_EQ(a.link(ab).send_failed, posted - 5);
  EXPECT_THAT(a.link(ab).close_status.ToString(), HasSubstr("seed 77"));
  EXPECT_EQ(a.endpoint->credits(ab), 0u);
  EXPECT_TRUE(a.pool_is_whole());
}

TEST_F(FaultTest, ConnectsFailWithAnIdOfTheirOwn) {
  FaultOptions options;
  options.connect_failure = 1;
  FaultTransport faulty(left_, options);
  Node a(faulty, "left");
  auto first = a.endpoint->connect("right");
  auto second = a.endpoint->connect("right");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(*first, *second);
  ASSERT_TRUE(run_until({&a}, [&] { return a.link(*first).closed && a.link(*second).closed; }));
  EXPECT_THAT(a.link(*first).close_status.ToString(), HasSubstr("fault injection"));
}

TEST_F(FaultTest, FlipsExactlyOneBitOfLongEnoughMessages) {
  FaultOptions options;
  options.flip_bit = 1;
  options.flip_from_bytes = 500;
  FaultTransport faulty(right_, options);
  Node a(left_, "left");
  Node b(faulty, "right");
  const auto [ab, ba] = connect_nodes(a, b);
  ASSERT_TRUE(b.post_receives(ba, 2));
  ASSERT_TRUE(a.send(ab, 499, 1));
  ASSERT_TRUE(a.send(ab, 500, 2));
  ASSERT_TRUE(run_until({&a, &b}, [&, id = ba] { return b.link(id).received.size() == 2; }));
  EXPECT_TRUE(has_content(b.link(ba).received[0], 499, 1));
  std::vector<uint8_t> expected(500);
  fill(expected.data(), expected.size(), 2);
  int flipped = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    flipped +=
        std::popcount(static_cast<uint8_t>(expected[i] ^ b.link(ba).received[1].buffer.data()[i]));
  }
  EXPECT_EQ(flipped, 1);
}

// The order in which a run's completions come, as connection numbers.
std::vector<ConnectionId> order_of(uint64_t seed) {
  SimFabric fabric(1);
  SimTransport left(fabric, "left");
  SimTransport right(fabric, "right");
  FaultOptions options;
  options.seed = seed;
  options.delay = 0.5;
  FaultTransport faulty(right, options);
  Node a(left, "left");
  Node b(faulty, "right");
  std::vector<ConnectionId> order;
  b.on_received = [&](ConnectionId id, Message) { order.push_back(id); };
  std::vector<ConnectionId> calls;
  for (int i = 0; i < 4; ++i) {
    const auto [ab, ba] = connect_nodes(a, b);
    EXPECT_TRUE(b.post_receives(ba, 5));
    calls.push_back(ab);
  }
  EXPECT_TRUE(run_until({&a}, [&] {
    for (ConnectionId id : calls) {
      if (a.endpoint->credits(id) != 5) return false;
    }
    return true;
  }));
  for (int round = 0; round < 5; ++round) {
    for (ConnectionId id : calls) EXPECT_TRUE(a.try_send(id, 64, 1));
  }
  EXPECT_TRUE(run_until({&a, &b}, [&] { return order.size() == 20; }));
  return order;
}

TEST(Fault, ReordersBetweenConnectionsTheSameWayForTheSameSeed) {
  EXPECT_EQ(order_of(3), order_of(3));
  EXPECT_NE(order_of(3), order_of(4));
}

}  // namespace
}  // namespace sluice
