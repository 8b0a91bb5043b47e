// What the tests of drivers/transport.h's contract share: two nodes on any network.
#ifndef SLUICE_TESTS_DRIVERS_CONTRACT_TEST_H_
#define SLUICE_TESTS_DRIVERS_CONTRACT_TEST_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <tuple>

#include "drivers/transport.h"
#include "tests/drivers/network_kinds.h"
#include "tests/drivers/node.h"

namespace sluice {

class ContractTest : public testing::TestWithParam<NetworkKind> {
 protected:
  void SetUp() override { network_ = GetParam().make(); }

  std::unique_ptr<Node> make_node(size_t number, size_t buffers = 24,
                                  size_t buffer_bytes = 128 << 10) {
    return std::make_unique<Node>(network_->transport(number), network_->listen_address(number),
                                  buffers, buffer_bytes);
  }
  // Two connected nodes.
  void make_pair(size_t buffers = 24, size_t buffer_bytes = 128 << 10) {
    a_ = make_node(0, buffers, buffer_bytes);
    b_ = make_node(1, buffers, buffer_bytes);
    std::tie(ab_, ba_) = connect_nodes(*a_, *b_);
    ASSERT_NE(ab_, 0u);
  }
  bool run(const std::function<bool()>& done) { return run_until({a_.get(), b_.get()}, done); }
  Link& at_a() { return a_->link(ab_); }
  Link& at_b() { return b_->link(ba_); }
  // Messages under way in both directions.
  void send_both_ways(uint64_t messages, uint32_t bytes) {
    ASSERT_TRUE(b_->post_receives(ba_, messages));
    ASSERT_TRUE(a_->post_receives(ab_, messages));
    ASSERT_TRUE(run([&] {
      return a_->endpoint->credits(ab_) == messages && b_->endpoint->credits(ba_) == messages;
    }));
    for (uint64_t i = 0; i < messages; ++i) {
      ASSERT_TRUE(a_->send(ab_, bytes, i));
      ASSERT_TRUE(b_->send(ba_, bytes, i));
    }
  }
  void close_and_check_buffers() {
    a_->endpoint->close(ab_);
    ASSERT_TRUE(run([&] { return at_a().closed && at_b().closed; }));
    at_a().received.clear();
    at_b().received.clear();
    EXPECT_TRUE(a_->pool_is_whole());
    EXPECT_TRUE(b_->pool_is_whole());
  }

  std::unique_ptr<Network> network_;
  std::unique_ptr<Node> a_;
  std::unique_ptr<Node> b_;
  ConnectionId ab_ = 0;
  ConnectionId ba_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_DRIVERS_CONTRACT_TEST_H_
