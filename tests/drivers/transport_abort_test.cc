// abort() of drivers/transport.h, on every transport, plain and with faults: whatever the peer does
// or leaves undone, all that was posted comes back, and stays untouched from then on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "drivers/transport.h"
#include "tests/drivers/contract_test.h"

namespace sluice {
namespace {

constexpr uint32_t kLarge = 128 << 10;
constexpr uint8_t kMark = 0xa5;

class TransportAbort : public ContractTest {
 protected:
  // Only this node is polled, and few times: nobody else is waited for.
  static void expect_closed(Node& node, ConnectionId id) {
    for (int i = 0; i < 400 && !node.link(id).closed; ++i) {
      if (node.pump() == 0) node.endpoint->wait(1'000'000);
    }
    EXPECT_TRUE(node.link(id).closed);
    EXPECT_TRUE(absl::IsCancelled(node.link(id).close_status)) << node.link(id).close_status;
  }
  // Takes a node's free buffers and marks all of their bytes.
  static std::vector<BlockBuffer> mark_free(Node& node) {
    std::vector<BlockBuffer> taken;
    while (BlockBuffer buffer = node.pool->try_take()) {
      std::fill_n(buffer.data(), buffer.capacity(), kMark);
      taken.push_back(std::move(buffer));
    }
    return taken;
  }
  static bool all_marked(const std::vector<BlockBuffer>& buffers) {
    return std::all_of(buffers.begin(), buffers.end(), [](const BlockBuffer& buffer) {
      return std::all_of(buffer.data(), buffer.data() + buffer.capacity(),
                         [](uint8_t byte) { return byte == kMark; });
    });
  }
  // A new connection between the two works.
  void expect_usable() {
    const auto [ab, ba] = connect_nodes(*a_, *b_);
    ASSERT_NE(ab, 0u);
    EXPECT_NE(ab, ab_);
    EXPECT_NE(ba, ba_);
    ASSERT_TRUE(b_->post_receives(ba, 1));
    ASSERT_TRUE(run([&, id = ab] { return a_->endpoint->credits(id) == 1; }));
    ASSERT_TRUE(a_->send(ab, 5000, 77));
    ASSERT_TRUE(run([&, id = ba] { return b_->link(id).received.size() == 1; }));
    EXPECT_TRUE(has_content(b_->link(ba).received.front(), 5000, 77));
    b_->link(ba).received.clear();
    a_->endpoint->close(ab);
    ASSERT_TRUE(run([&, ab = ab, ba = ba] { return a_->link(ab).closed && b_->link(ba).closed; }));
  }
};

TEST_P(TransportAbort, WaitsForNobodyAndGivesAllBack) {
  make_pair();
  ASSERT_TRUE(b_->post_receives(ba_, 6));
  ASSERT_TRUE(a_->post_receives(ab_, 3));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 6; }));
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(a_->send(ab_, kLarge, i));
  // From here on the peer neither reads nor answers.
  a_->endpoint->abort(ab_);
  EXPECT_EQ(a_->endpoint->credits(ab_), 0u);
  SendRequest late{a_->pool->try_take(), 10};
  EXPECT_EQ(a_->endpoint->post_send(ab_, {&late, 1}), 0u);
  EXPECT_EQ(a_->endpoint->post_recv(ab_, {&late.buffer, 1}), 0u);
  late.buffer.reset();
  expect_closed(*a_, ab_);
  EXPECT_EQ(at_a().receive_failed, 3u);
  EXPECT_EQ(at_a().sent + at_a().send_failed, 6u);
  EXPECT_EQ(at_a().cancelled, at_a().receive_failed + at_a().send_failed);
  EXPECT_TRUE(a_->pool_is_whole());
  // The peer hears of it, with an error, and gets its own back. What it received is whole.
  ASSERT_TRUE(run([&] { return at_b().closed; }));
  EXPECT_FALSE(at_b().close_status.ok());
  EXPECT_FALSE(message_of(at_b().close_status).empty());
  EXPECT_EQ(at_b().received.size() + at_b().receive_failed, 6u);
  for (uint64_t i = 0; i < at_b().received.size(); ++i) {
    EXPECT_TRUE(has_content(at_b().received[i], kLarge, i)) << i;
  }
  at_b().received.clear();
  EXPECT_TRUE(b_->pool_is_whole());
  expect_usable();
}

TEST_P(TransportAbort, OfASilentPeerReturnsWhatWasPostedForIt) {
  make_pair();
  ASSERT_TRUE(b_->post_receives(ba_, 4));
  b_->endpoint->abort(ba_);
  expect_closed(*b_, ba_);
  EXPECT_EQ(at_b().receive_failed, 4u);
  EXPECT_EQ(at_b().cancelled, 4u);
  EXPECT_TRUE(b_->pool_is_whole());
  ASSERT_TRUE(run([&] { return at_a().closed; }));
  EXPECT_FALSE(at_a().close_status.ok());
  expect_usable();
}

TEST_P(TransportAbort, InTheMiddleOfMessagesLeavesReturnedMemoryAlone) {
  make_pair();
  ASSERT_TRUE(a_->post_receives(ab_, 8));
  ASSERT_TRUE(b_->post_receives(ba_, 8));
  ASSERT_TRUE(
      run([&] { return a_->endpoint->credits(ab_) == 8 && b_->endpoint->credits(ba_) == 8; }));
  for (uint64_t i = 0; i < 8; ++i) {
    ASSERT_TRUE(a_->send(ab_, kLarge, i));
    ASSERT_TRUE(b_->send(ba_, kLarge, 100 + i));
  }
  // Until the first has come: the others are under way, both ways.
  ASSERT_TRUE(run([&] { return !at_a().received.empty(); }));
  a_->endpoint->abort(ab_);
  expect_closed(*a_, ab_);
  EXPECT_EQ(at_a().received.size() + at_a().receive_failed, 8u);
  EXPECT_EQ(at_a().sent + at_a().send_failed, 8u);
  for (uint64_t i = 0; i < at_a().received.size(); ++i) {
    EXPECT_TRUE(has_content(at_a().received[i], kLarge, 100 + i)) << i;
  }
  at_a().received.clear();
  EXPECT_TRUE(a_->pool_is_whole());
  const std::vector<BlockBuffer> marked = mark_free(*a_);
  ASSERT_TRUE(run([&] { return at_b().closed; }));
  for (int i = 0; i < 20; ++i) {
    a_->pump();
    b_->pump();
  }
  EXPECT_TRUE(all_marked(marked));
  EXPECT_FALSE(at_b().close_status.ok());
  EXPECT_EQ(at_b().sent + at_b().send_failed, 8u);
  EXPECT_EQ(at_b().received.size() + at_b().receive_failed, 8u);
  for (uint64_t i = 0; i < at_b().received.size(); ++i) {
    EXPECT_TRUE(has_content(at_b().received[i], kLarge, i)) << i;
  }
  at_b().received.clear();
  EXPECT_TRUE(b_->pool_is_whole());
}

TEST_P(TransportAbort, RightAfterConnect) {
  a_ = make_node(0);
  b_ = make_node(1);
  for (int polls = 0; polls < 4; ++polls) {
    auto id = a_->endpoint->connect(b_->endpoint->address());
    ASSERT_TRUE(id.ok()) << id.status();
    std::vector<BlockBuffer> buffers(1);
    buffers[0] = a_->pool->try_take();
    const size_t posted = a_->endpoint->post_recv(*id, buffers);
    buffers.clear();
    for (int i = 0; i < polls; ++i) {
      a_->pump();
      b_->pump();
    }
    a_->endpoint->abort(*id);
    expect_closed(*a_, *id);
    EXPECT_EQ(a_->link(*id).cancelled, posted);
    EXPECT_TRUE(a_->pool_is_whole());
  }
  // Those that the peer has seen end there too.
  ASSERT_TRUE(run([&] {
    return std::all_of(b_->accepted.begin(), b_->accepted.end(),
                       [&](ConnectionId id) { return b_->link(id).closed; });
  }));
  for (ConnectionId id : b_->accepted) EXPECT_FALSE(b_->link(id).close_status.ok());
  expect_usable();
}

TEST_P(TransportAbort, EndsACloseThatThePeerHoldsUp) {
  make_pair();
  ASSERT_TRUE(b_->post_receives(ba_, 8));
  ASSERT_TRUE(a_->post_receives(ab_, 2));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 8; }));
  for (uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(a_->send(ab_, kLarge, i));
  a_->endpoint->close(ab_);
  a_->pump();
  const bool closed_in_order = at_a().closed;  // a simulated peer may answer without being polled
  a_->endpoint->abort(ab_);
  a_->endpoint->abort(ab_);
  if (!closed_in_order) expect_closed(*a_, ab_);
  EXPECT_EQ(at_a().receive_failed, 2u);
  EXPECT_EQ(at_a().sent + at_a().send_failed, 8u);
  EXPECT_TRUE(a_->pool_is_whole());
  ASSERT_TRUE(run([&] { return at_b().closed; }));
  at_b().received.clear();
  EXPECT_TRUE(b_->pool_is_whole());
}

TEST_P(TransportAbort, IsIgnoredWhereNothingIsOpen) {
  make_pair();
  for (ConnectionId id : {ConnectionId{0}, ConnectionId{987654321}}) a_->endpoint->abort(id);
  close_and_check_buffers();
  a_->endpoint->abort(ab_);
  a_->endpoint->close(ab_);
  EXPECT_EQ(a_->pump(), 0u);
  const ConnectionId first = ab_;
  std::tie(ab_, ba_) = connect_nodes(*a_, *b_);
  EXPECT_NE(ab_, first);
  a_->endpoint->abort(ab_);
  a_->endpoint->abort(ab_);
  a_->endpoint->close(ab_);
  expect_closed(*a_, ab_);
  a_->endpoint->abort(ab_);
  EXPECT_EQ(a_->pump(), 0u);
  expect_usable();
}

TEST_P(TransportAbort, MayComeFromBothSidesAtOnce) {
  make_pair();
  ASSERT_NO_FATAL_FAILURE(send_both_ways(4, 90'000));
  a_->endpoint->abort(ab_);
  b_->endpoint->abort(ba_);
  expect_closed(*a_, ab_);
  ASSERT_TRUE(run([&] { return at_b().closed; }));
  EXPECT_FALSE(at_b().close_status.ok());
  at_a().received.clear();
  at_b().received.clear();
  EXPECT_TRUE(a_->pool_is_whole());
  EXPECT_TRUE(b_->pool_is_whole());
  expect_usable();
}

TEST_P(TransportAbort, LeavesAGoodConnectionBesideItAlone) {
  make_pair(40);
  const auto [good_a, good_b] = connect_nodes(*a_, *b_);
  ASSERT_NE(good_a, 0u);
  constexpr uint64_t kMessages = 60;
  uint64_t posted = 0;
  uint64_t sent = 0;
  uint64_t checked = 0;
  ASSERT_TRUE(b_->post_receives(ba_, 6));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 6; }));
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(a_->send(ab_, kLarge, i));
  bool aborted = false;
  ASSERT_TRUE(run([&, here = good_a, there = good_b] {
    Link& link = b_->link(there);
    while (!link.received.empty()) {
      EXPECT_TRUE(has_content(link.received.front(), 70'000, 500 + checked));
      link.received.pop_front();
      ++checked;
    }
    if (posted < kMessages && posted - checked < 4) posted += b_->post_receives(there, 1) ? 1 : 0;
    if (sent < kMessages && a_->try_send(here, 70'000, 500 + sent)) ++sent;
    if (checked >= kMessages / 3 && !aborted) {
      aborted = true;
      b_->endpoint->abort(ba_);
    }
    return checked == kMessages && at_a().closed && at_b().closed;
  }));
  EXPECT_FALSE(a_->link(good_a).closed);
  at_b().received.clear();
  a_->endpoint->close(good_a);
  ASSERT_TRUE(run([&, id = good_b] { return b_->link(id).closed; }));
  EXPECT_TRUE(b_->link(good_b).close_status.ok()) << b_->link(good_b).close_status;
}

INSTANTIATE_TEST_SUITE_P(All, TransportAbort, testing::ValuesIn(network_kinds()),
                         [](const testing::TestParamInfo<NetworkKind>& kind) {
                           return kind.param.name;
                         });

}  // namespace
}  // namespace sluice
