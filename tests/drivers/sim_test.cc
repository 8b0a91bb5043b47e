// What is special to the simulated fabric: virtual time, determinism, faults.
#include "drivers/sim/sim.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tests/drivers/node.h"

namespace sluice {
namespace {

using testing::HasSubstr;

class SimTest : public testing::Test {
 protected:
  void start(const SimOptions& options = {}) {
    fabric_ = std::make_unique<SimFabric>(5, options);
    left_ = std::make_unique<SimTransport>(*fabric_, "left");
    right_ = std::make_unique<SimTransport>(*fabric_, "right");
    a_ = std::make_unique<Node>(*left_, "left");
    b_ = std::make_unique<Node>(*right_, "right");
    std::tie(ab_, ba_) = connect_nodes(*a_, *b_);
    ASSERT_NE(ab_, 0u);
  }
  void pump() {
    while (a_->pump() + b_->pump() > 0) {
    }
  }

  std::unique_ptr<SimFabric> fabric_;
  std::unique_ptr<SimTransport> left_;
  std::unique_ptr<SimTransport> right_;
  std::unique_ptr<Node> a_;
  std::unique_ptr<Node> b_;
  ConnectionId ab_ = 0;
  ConnectionId ba_ = 0;
};

TEST_F(SimTest, DelayAndBandwidthSetTheTimeOfArrival) {
  SimOptions options;
  options.delay_ns = 1'000'000;
  options.bytes_per_second = 100'000'000;
  start(options);
  ASSERT_TRUE(b_->post_receives(ba_, 2));
  fabric_->advance(10'000'000);
  const int64_t begin = fabric_->now_ns();
  ASSERT_TRUE(a_->try_send(ab_, 100'000, 1));  // 1 ms on the wire each
  ASSERT_TRUE(a_->try_send(ab_, 100'000, 2));
  fabric_->advance(1'900'000);
  pump();
  EXPECT_EQ(b_->link(ba_).received.size(), 0u);
  fabric_->advance(200'000);
  pump();
  EXPECT_EQ(b_->link(ba_).received.size(), 1u);
  EXPECT_EQ(a_->link(ab_).sent, 0u);
  fabric_->advance(1'000'000);
  pump();
  EXPECT_EQ(b_->link(ba_).received.size(), 2u);
  EXPECT_EQ(fabric_->now_ns() - begin, 3'100'000);
}

// Moved by hand.
class TimeByHand final : public SimTime {
 public:
  int64_t now_ns() const override { return now_ns_; }
  void call_at(int64_t at_ns, std::function<void()> due) override {
    at_ns_ = at_ns;
    due_ = std::move(due);
  }
  void forget() override { due_ = nullptr; }
  // To the time that was asked for last; false where none was.
  bool move() {
    if (!due_) return false;
    now_ns_ = at_ns_;
    std::exchange(due_, nullptr)();
    return true;
  }
  int64_t asked_for() const { return due_ ? at_ns_ : -1; }

 private:
  int64_t now_ns_ = 1'000'000;
  int64_t at_ns_ = 0;
  std::function<void()> due_;
};

TEST(SimFabricTime, FromOutsideIsAskedForEachEventAndRunsIt) {
  TimeByHand time;
  SimOptions options;
  options.time = &time;
  options.delay_ns = 1'000;
  std::string happened;
  {
    SimFabric fabric(5, options);
    EXPECT_EQ(fabric.now_ns(), 1'000'000);
    {
      const std::lock_guard lock(fabric.mutex());
      fabric.schedule(1'000'900, [&] { happened += "b"; });
      EXPECT_EQ(time.asked_for(), 1'000'900);
      // An earlier one comes before it, a later one after.
      fabric.schedule(1'000'700, [&] {
        happened += "a";
        fabric.schedule(1'000'800, [&] { happened += "+"; });
      });
      fabric.schedule(1'005'000, [&] { happened += "c"; });
    }
    EXPECT_EQ(time.asked_for(), 1'000'700);
    EXPECT_TRUE(time.move());
    EXPECT_EQ(happened, "a");
    EXPECT_EQ(time.asked_for(), 1'000'800);
    EXPECT_TRUE(time.move());
    EXPECT_TRUE(time.move());
    EXPECT_EQ(happened, "a+b");
    EXPECT_EQ(time.asked_for(), 1'005'000);
  }
  // It is gone: nothing calls it.
  EXPECT_FALSE(time.move());
  EXPECT_EQ(happened, "a+b");
}

TEST_F(SimTest, WaitMovesVirtualTimeByItsTimeoutAtMost) {
  start();
  while (fabric_->step()) {
  }
  pump();
  const int64_t begin = fabric_->now_ns();
  a_->endpoint->wait(7'000'000'000);
  EXPECT_EQ(fabric_->now_ns() - begin, 7'000'000'000);
}

TEST_F(SimTest, APartitionHoldsMessagesUntilItHeals) {
  start();
  ASSERT_TRUE(b_->post_receives(ba_, 3));
  fabric_->advance(1'000'000);
  fabric_->partition("left", "right");
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(a_->try_send(ab_, 500, i));
  fabric_->advance(5'000'000'000);
  pump();
  EXPECT_TRUE(b_->link(ba_).received.empty());
  fabric_->heal("right", "left");
  fabric_->advance(1'000'000);
  pump();
  ASSERT_EQ(b_->link(ba_).received.size(), 3u);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_TRUE(has_content(b_->link(ba_).received[i], 500, i));
  fabric_->advance(60'000'000'000);
  pump();
  EXPECT_FALSE(a_->link(ab_).closed);
}

TEST_F(SimTest, ALongPartitionCutsBothEnds) {
  start();
  fabric_->partition("left", "right");
  fabric_->advance(SimOptions().dead_peer_timeout_ns + 1);
  pump();
  EXPECT_FALSE(a_->link(ab_).close_status.ok());
  EXPECT_FALSE(b_->link(ba_).close_status.ok());
  auto again = a_->endpoint->connect("right");
  ASSERT_TRUE(again.ok());
  fabric_->advance(10'000'000'000);
  pump();
  EXPECT_EQ(a_->link(*again).close_status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(SimTest, ACutReturnsTheBuffersOfBothEnds) {
  start();
  ASSERT_TRUE(b_->post_receives(ba_, 4));
  fabric_->advance(1'000'000);
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(a_->try_send(ab_, 100'000, i));
  fabric_->cut("left", "right");
  pump();
  EXPECT_EQ(a_->link(ab_).send_failed, 3u);
  EXPECT_EQ(b_->link(ba_).receive_failed, 4u);
  EXPECT_THAT(b_->link(ba_).close_status.ToString(), HasSubstr("left"));
  EXPECT_TRUE(a_->pool_is_whole());
  EXPECT_TRUE(b_->pool_is_whole());
  fabric_->advance(1'000'000'000);
  pump();
  EXPECT_NE(connect_nodes(*a_, *b_).first, 0u);
}

TEST_F(SimTest, ACrashedNodeIsGoneUntilItRestarts) {
  start();
  ASSERT_TRUE(b_->post_receives(ba_, 2));
  fabric_->advance(1'000'000);
  ASSERT_TRUE(a_->try_send(ab_, 100, 1));
  fabric_->crash("right");
  fabric_->advance(1'000'000);
  pump();
  EXPECT_THAT(a_->link(ab_).close_status.ToString(), HasSubstr("crashed"));
  EXPECT_TRUE(b_->link(ba_).closed);
  EXPECT_TRUE(a_->pool_is_whole());
  auto refused = a_->endpoint->connect("right");
  ASSERT_TRUE(refused.ok());
  fabric_->advance(1'000'000);
  pump();
  EXPECT_THAT(a_->link(*refused).close_status.ToString(), HasSubstr("nobody listens"));
  EXPECT_FALSE(right_->open(*b_->arena, "right").ok());
  fabric_->restart("right");
  Node reborn(*right_, "right");
  EXPECT_NE(connect_nodes(*a_, reborn).first, 0u);
}

TEST_F(SimTest, OtherBufferSizesAreRefusedOnBothSides) {
  start();
  Node small(*left_, "", 4, 4096);
  auto id = small.endpoint->connect("right");
  ASSERT_TRUE(id.ok());
  fabric_->advance(1'000'000);
  small.pump();
  EXPECT_THAT(small.link(*id).close_status.ToString(), HasSubstr("same arena buffer size"));
}

// A run's log: what each node saw, and when.
std::vector<std::string> log_of(uint64_t seed) {
  SimOptions options;
  options.jitter_ns = 100'000;
  SimFabric fabric(seed, options);
  std::vector<std::unique_ptr<SimTransport>> transports;
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<std::string> log;
  for (int i = 0; i < 3; ++i) {
    const std::string name(1, static_cast<char>('a' + i));
    transports.push_back(std::make_unique<SimTransport>(fabric, name));
    nodes.push_back(std::make_unique<Node>(*transports.back(), name));
    nodes.back()->on_received = [&fabric, &log, name](ConnectionId id, Message message) {
      log.push_back(fmt::format("{} {} {} {}", name, id, message.bytes, fabric.now_ns()));
    };
  }
  std::vector<std::pair<size_t, ConnectionId>> calls;
  for (size_t from = 0; from < 3; ++from) {
    for (size_t to = 0; to < 3; ++to) {
      if (from == to) continue;
      const auto [there, here] = connect_nodes(*nodes[from], *nodes[to]);
      EXPECT_TRUE(nodes[to]->post_receives(here, 4));
      calls.emplace_back(from, there);
    }
  }
  fabric.advance(1'000'000);
  for (uint32_t i = 0; i < 4; ++i) {
    for (auto [node, id] : calls) EXPECT_TRUE(nodes[node]->try_send(id, 100 + i, i));
  }
  while (fabric.step()) {
    for (auto& node : nodes) node->pump();
  }
  EXPECT_EQ(log.size(), 24u);
  return log;
}

TEST(Sim, TheSameSeedGivesTheSameRun) {
  EXPECT_EQ(log_of(11), log_of(11));
  EXPECT_NE(log_of(11), log_of(12));
}

}  // namespace
}  // namespace sluice
