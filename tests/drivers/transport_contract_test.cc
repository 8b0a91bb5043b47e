// The contract of drivers/transport.h, checked on every transport, plain and with faults, through
// its interface alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/status.h"
#include "drivers/transport.h"
#include "tests/drivers/contract_test.h"
#include "tests/drivers/node.h"

namespace sluice {
namespace {

class TransportContract : public ContractTest {};

TEST_P(TransportContract, LimitsAndNames) {
  Transport& transport = network_->transport(0);
  EXPECT_FALSE(transport.name().empty());
  const TransportLimits limits = transport.limits();
  EXPECT_GT(limits.max_message_bytes, 0u);
  EXPECT_GT(limits.receive_depth, 0u);
  EXPECT_GT(limits.send_depth, 0u);
  auto node = make_node(0);
  EXPECT_FALSE(node->endpoint->address().empty());
  Node only_connects(network_->transport(1), "");
  EXPECT_EQ(only_connects.endpoint->address(), "");
}

TEST_P(TransportContract, MessagesOfEveryLengthArriveWholeAndInOrder) {
  make_pair(8, kBufferBytes);
  const auto max = static_cast<uint32_t>(kBufferBytes);
  std::vector<uint32_t> lengths;
  for (int round = 0; round < 3; ++round) {
    for (uint32_t n :
         {1u, 2u, 63u, 64u, 65u, 4095u, 4096u, 4097u, 65535u, 65536u, 65537u, max - 1, max, 1u}) {
      lengths.push_back(n);
    }
  }
  size_t sent = 0;
  size_t checked = 0;
  size_t posted = 0;
  ASSERT_TRUE(run([&] {
    if (posted < lengths.size() && posted - checked < 4) {
      EXPECT_TRUE(b_->post_receives(ba_, 1));
      ++posted;
    }
    if (sent < lengths.size() && a_->try_send(ab_, lengths[sent], sent)) ++sent;
    while (!at_b().received.empty()) {
      EXPECT_TRUE(has_content(at_b().received.front(), lengths[checked], checked))
          << "message " << checked;
      at_b().received.pop_front();
      ++checked;
    }
    return checked == lengths.size() && at_a().sent == lengths.size();
  }));
  uint64_t total = 0;
  for (uint32_t n : lengths) total += n;
  EXPECT_EQ(at_a().sent_bytes, total);
  EXPECT_EQ(at_b().received_total, lengths.size());
  close_and_check_buffers();
}

TEST_P(TransportContract, CreditsAreTheReceiversPostedBuffers) {
  make_pair();
  EXPECT_EQ(a_->endpoint->credits(ab_), 0u);
  SendRequest refused{a_->pool->try_take(), 10};
  EXPECT_EQ(a_->endpoint->post_send(ab_, {&refused, 1}), 0u);
  EXPECT_TRUE(refused.buffer);
  refused.buffer.reset();
  ASSERT_TRUE(b_->post_receives(ba_, 3));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 3; }));
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(a_->send(ab_, 100, i));
  EXPECT_EQ(a_->endpoint->credits(ab_), 0u);
  EXPECT_FALSE(a_->try_send(ab_, 100, 3));
  ASSERT_TRUE(run([&] { return at_b().received.size() == 3; }));
  EXPECT_EQ(a_->endpoint->credits(ab_), 0u);
  ASSERT_TRUE(b_->post_receives(ba_, 2));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 2; }));
  close_and_check_buffers();
}

TEST_P(TransportContract, PostsAcceptAPrefixAndLeaveTheRest) {
  make_pair();
  ASSERT_TRUE(b_->post_receives(ba_, 2));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 2; }));
  std::vector<SendRequest> requests(5);
  for (SendRequest& request : requests) {
    request.buffer = a_->pool->try_take();
    request.bytes = 1000;
    fill(request.buffer.data(), 1000, 7);
  }
  size_t accepted = 0;
  ASSERT_TRUE(run([&] {
    accepted += a_->endpoint->post_send(ab_, std::span(requests).subspan(accepted));
    return at_b().received.size() == 2;
  }));
  EXPECT_EQ(accepted, 2u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(static_cast<bool>(requests[i].buffer), i >= 2);
  for (SendRequest& request : requests) request.buffer.reset();
  close_and_check_buffers();
}

TEST_P(TransportContract, ReceiveDepthIsALimitNotAnError) {
  const size_t depth = network_->transport(1).limits().receive_depth;
  a_ = make_node(0, 4, 4096);
  b_ = make_node(1, depth + 8, 4096);
  std::tie(ab_, ba_) = connect_nodes(*a_, *b_);
  ASSERT_NE(ab_, 0u);
  ASSERT_TRUE(b_->post_receives(ba_, depth));
  BlockBuffer surplus = b_->pool->try_take();
  EXPECT_EQ(b_->endpoint->post_recv(ba_, {&surplus, 1}), 0u);
  EXPECT_TRUE(surplus);
  surplus.reset();
  close_and_check_buffers();
  EXPECT_EQ(at_b().receive_failed, depth);
}

TEST_P(TransportContract, BothDirectionsAtOnceKeepContentAndOrder) {
  make_pair();
  constexpr uint64_t kMessages = 600;
  Random lengths(GetParam().name.size());
  std::vector<uint32_t> bytes;
  for (uint64_t i = 0; i < kMessages; ++i) {
    bytes.push_back(
        static_cast<uint32_t>(1 + lengths.below(lengths.chance(0.5) ? 300 : 128 << 10)));
  }
  struct Side {
    Node* node;
    ConnectionId id;
    uint64_t salt;
    uint64_t peer_salt;
    uint64_t sent = 0;
    uint64_t checked = 0;
    uint64_t posted = 0;
  };
  Side sides[2] = {{a_.get(), ab_, 1000, 2000}, {b_.get(), ba_, 2000, 1000}};
  ASSERT_TRUE(run([&] {
    bool done = true;
    for (Side& side : sides) {
      Link& link = side.node->link(side.id);
      while (!link.received.empty()) {
        EXPECT_TRUE(
            has_content(link.received.front(), bytes[side.checked], side.peer_salt + side.checked));
        link.received.pop_front();
        ++side.checked;
      }
      while (side.posted < kMessages && side.posted - side.checked < 6) {
        EXPECT_TRUE(side.node->post_receives(side.id, 1));
        ++side.posted;
      }
      while (side.sent < kMessages &&
             side.node->try_send(side.id, bytes[side.sent], side.salt + side.sent)) {
        ++side.sent;
      }
      done = done && side.checked == kMessages && link.sent == kMessages;
    }
    return done;
  }));
  close_and_check_buffers();
}

TEST_P(TransportContract, OrderlyCloseDeliversWhatWasSentBefore) {
  make_pair();
  ASSERT_TRUE(b_->post_receives(ba_, 8));
  ASSERT_TRUE(a_->post_receives(ab_, 4));
  ASSERT_TRUE(
      run([&] { return a_->endpoint->credits(ab_) == 8 && b_->endpoint->credits(ba_) == 4; }));
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(a_->send(ab_, 100'000, i));
  for (uint64_t i = 0; i < 2; ++i) ASSERT_TRUE(b_->send(ba_, 70'000, 100 + i));
  a_->endpoint->close(ab_);
  EXPECT_EQ(a_->endpoint->credits(ab_), 0u);
  SendRequest late{a_->pool->try_take(), 10};
  EXPECT_EQ(a_->endpoint->post_send(ab_, {&late, 1}), 0u);
  EXPECT_EQ(a_->endpoint->post_recv(ab_, {&late.buffer, 1}), 0u);
  late.buffer.reset();
  ASSERT_TRUE(run([&] { return at_a().closed && at_b().closed; }));
  EXPECT_TRUE(at_a().close_status.ok()) << at_a().close_status;
  EXPECT_TRUE(at_b().close_status.ok()) << at_b().close_status;
  EXPECT_EQ(at_b().received.size(), 6u);
  for (uint64_t i = 0; i < at_b().received.size(); ++i) {
    EXPECT_TRUE(has_content(at_b().received[i], 100'000, i));
  }
  EXPECT_EQ(at_a().received.size(), 2u);
  EXPECT_EQ(at_a().sent, 6u);
  EXPECT_EQ(at_b().sent, 2u);
  EXPECT_EQ(at_a().send_failed + at_b().send_failed, 0u);
  EXPECT_EQ(at_b().receive_failed, 2u);
  EXPECT_EQ(at_a().receive_failed, 2u);
  at_a().received.clear();
  at_b().received.clear();
  EXPECT_TRUE(a_->pool_is_whole());
  EXPECT_TRUE(b_->pool_is_whole());
}

TEST_P(TransportContract, BothMayCloseAtOnce) {
  make_pair();
  ASSERT_NO_FATAL_FAILURE(send_both_ways(4, 90'000));
  a_->endpoint->close(ab_);
  b_->endpoint->close(ba_);
  a_->endpoint->close(ab_);
  ASSERT_TRUE(run([&] { return at_a().closed && at_b().closed; }));
  EXPECT_TRUE(at_a().close_status.ok()) << at_a().close_status;
  EXPECT_TRUE(at_b().close_status.ok()) << at_b().close_status;
  EXPECT_EQ(at_a().received.size(), 4u);
  EXPECT_EQ(at_b().received.size(), 4u);
  EXPECT_EQ(at_a().sent, 4u);
  EXPECT_EQ(at_b().sent, 4u);
}

TEST_P(TransportContract, UnknownAndClosedConnectionsAreIgnored) {
  make_pair();
  BlockBuffer buffer = a_->pool->try_take();
  for (ConnectionId id : {ConnectionId{0}, ConnectionId{987654321}}) {
    EXPECT_EQ(a_->endpoint->credits(id), 0u);
    EXPECT_EQ(a_->endpoint->post_recv(id, {&buffer, 1}), 0u);
    SendRequest request{std::move(buffer), 5};
    EXPECT_EQ(a_->endpoint->post_send(id, {&request, 1}), 0u);
    buffer = std::move(request.buffer);
    a_->endpoint->close(id);
  }
  buffer.reset();
  close_and_check_buffers();
  a_->endpoint->close(ab_);
  EXPECT_EQ(a_->endpoint->credits(ab_), 0u);
  EXPECT_EQ(a_->pump(), 0u);
}

TEST_P(TransportContract, ADestroyedPeerEndsTheConnectionAndReturnsBuffers) {
  make_pair();
  ASSERT_TRUE(b_->post_receives(ba_, 6));
  ASSERT_TRUE(a_->post_receives(ab_, 3));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 6; }));
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(a_->send(ab_, 128 << 10, i));
  b_->endpoint.reset();
  at_b().received.clear();
  EXPECT_TRUE(b_->pool_is_whole());
  ASSERT_TRUE(run_until({a_.get()}, [&] { return at_a().closed; }));
  EXPECT_FALSE(at_a().close_status.ok());
  EXPECT_FALSE(message_of(at_a().close_status).empty());
  EXPECT_EQ(at_a().receive_failed, 3u);
  EXPECT_EQ(at_a().sent + at_a().send_failed, 6u);
  EXPECT_TRUE(a_->pool_is_whole());
}

TEST_P(TransportContract, DestroyingAnEndpointSendsItsBuffersHome) {
  make_pair();
  ASSERT_TRUE(b_->post_receives(ba_, 6));
  ASSERT_TRUE(a_->post_receives(ab_, 3));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 6; }));
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(a_->send(ab_, 128 << 10, i));
  a_->endpoint.reset();
  EXPECT_TRUE(a_->pool_is_whole());
  ASSERT_TRUE(run_until({b_.get()}, [&] { return at_b().closed; }));
  EXPECT_FALSE(at_b().close_status.ok());
  EXPECT_EQ(at_b().received.size() + at_b().receive_failed, 6u);
  at_b().received.clear();
  EXPECT_TRUE(b_->pool_is_whole());
}

TEST_P(TransportContract, ConnectingToNobodyFailsWithItsAddress) {
  a_ = make_node(0);
  const std::string nobody = network_->nobody();
  auto id = a_->endpoint->connect(nobody);
  ASSERT_TRUE(id.ok()) << id.status();
  ASSERT_TRUE(run_until({a_.get()}, [&] { return a_->link(*id).closed; }));
  EXPECT_FALSE(a_->link(*id).up);
  EXPECT_FALSE(a_->link(*id).close_status.ok());
  EXPECT_THAT(std::string(message_of(a_->link(*id).close_status)), testing::HasSubstr(nobody));
}

TEST_P(TransportContract, ReceivesPostedBeforeTheConnectionFailsComeBack) {
  a_ = make_node(0);
  auto id = a_->endpoint->connect(network_->nobody());
  ASSERT_TRUE(id.ok()) << id.status();
  std::vector<BlockBuffer> buffers;
  for (int i = 0; i < 3; ++i) buffers.push_back(a_->pool->try_take());
  const size_t accepted = a_->endpoint->post_recv(*id, buffers);
  buffers.clear();
  ASSERT_TRUE(run_until({a_.get()}, [&] { return a_->link(*id).closed; }));
  EXPECT_EQ(a_->link(*id).receive_failed, accepted);
  EXPECT_TRUE(a_->pool_is_whole());
}

TEST_P(TransportContract, NonsenseIsNoAddress) {
  a_ = make_node(0);
  EXPECT_EQ(a_->endpoint->connect(network_->nonsense()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(network_->transport(1).open(*a_->arena, network_->nonsense()).ok());
}

TEST_P(TransportContract, AnAddressInUseIsAnErrorThatNamesIt) {
  a_ = make_node(0);
  const std::string taken = a_->endpoint->address();
  auto second = network_->transport(0).open(*a_->arena, taken);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(message_of(second.status())), testing::HasSubstr(taken));
}

TEST_P(TransportContract, WakeEndsWait) {
  a_ = make_node(0);
  run_until({a_.get()}, [&] { return true; });
  const int64_t begin = system_clock().monotonic_ns();
  std::thread other([&] { a_->endpoint->wake(); });
  a_->endpoint->wait(60'000'000'000);
  other.join();
  EXPECT_LT(system_clock().monotonic_ns() - begin, 20'000'000'000);
}

TEST_P(TransportContract, AWakeBeforeWaitCounts) {
  a_ = make_node(0);
  a_->endpoint->wake();
  a_->pump();
  const int64_t begin = system_clock().monotonic_ns();
  a_->endpoint->wait(60'000'000'000);
  EXPECT_LT(system_clock().monotonic_ns() - begin, 20'000'000'000);
}

TEST_P(TransportContract, ManyConnectionsDoNotMix) {
  constexpr size_t kConnections = 40;
  a_ = make_node(0, kConnections * 2, 16384);
  b_ = make_node(1, kConnections * 2, 16384);
  std::vector<std::pair<ConnectionId, ConnectionId>> pairs;
  for (size_t i = 0; i < kConnections; ++i) pairs.push_back(connect_nodes(*a_, *b_));
  for (auto [ab, ba] : pairs) {
    ASSERT_NE(ab, 0u);
    ASSERT_TRUE(b_->post_receives(ba, 2));
  }
  for (uint64_t round = 0; round < 2; ++round) {
    for (auto [ab, ba] : pairs) {
      size_t sent = 0;
      ASSERT_TRUE(run([&, id = ab, seed = ba * 10 + round] {
        sent += a_->try_send(id, 9000, seed) ? 1 : 0;
        return sent == 1;
      }));
    }
  }
  ASSERT_TRUE(run([&] {
    for (auto [ab, ba] : pairs) {
      if (b_->link(ba).received.size() != 2) return false;
    }
    return true;
  }));
  for (auto [ab, ba] : pairs) {
    for (uint64_t round = 0; round < 2; ++round) {
      EXPECT_TRUE(has_content(b_->link(ba).received[round], 9000, ba * 10 + round));
    }
    b_->link(ba).received.clear();
    a_->endpoint->close(ab);
  }
  ASSERT_TRUE(run([&] {
    for (auto [ab, ba] : pairs) {
      if (!a_->link(ab).closed || !b_->link(ba).closed) return false;
    }
    return true;
  }));
  EXPECT_TRUE(a_->pool_is_whole());
  EXPECT_TRUE(b_->pool_is_whole());
}

TEST_P(TransportContract, OneBrokenConnectionLeavesTheOthers) {
  make_pair();
  auto c = make_node(2);
  const auto [cb, bc] = connect_nodes(*c, *b_);
  ASSERT_NE(cb, 0u);
  c->endpoint.reset();
  ASSERT_TRUE(run([&, id = bc] { return b_->link(id).closed; }));
  ASSERT_TRUE(b_->post_receives(ba_, 1));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 1; }));
  ASSERT_TRUE(a_->send(ab_, 5000, 5));
  ASSERT_TRUE(run([&] { return at_b().received.size() == 1; }));
  EXPECT_TRUE(has_content(at_b().received.front(), 5000, 5));
  close_and_check_buffers();
}

TEST_P(TransportContract, CountersCountMessagesAndAtLeastTheirBytes) {
  make_pair();
  ASSERT_TRUE(b_->post_receives(ba_, 5));
  ASSERT_TRUE(run([&] { return a_->endpoint->credits(ab_) == 5; }));
  for (uint64_t i = 0; i < 5; ++i) ASSERT_TRUE(a_->send(ab_, 40'000, i));
  ASSERT_TRUE(run([&] { return at_b().received.size() == 5 && at_a().sent == 5; }));
  const TransportCounters sent = a_->endpoint->counters();
  const TransportCounters received = b_->endpoint->counters();
  EXPECT_EQ(sent.sent_messages, 5u);
  EXPECT_EQ(received.received_messages, 5u);
  EXPECT_EQ(sent.received_messages + received.sent_messages, 0u);
  EXPECT_GE(sent.sent_bytes, 5u * 40'000);
  EXPECT_GE(received.received_bytes, 5u * 40'000);
  if (network_->exact_bytes()) {
    EXPECT_LT(sent.sent_bytes, 5u * 40'000 + 10'000);
  }
  close_and_check_buffers();
  if (!network_->exact_bytes()) return;
  EXPECT_EQ(a_->endpoint->counters().sent_bytes, b_->endpoint->counters().received_bytes);
  EXPECT_EQ(b_->endpoint->counters().sent_bytes, a_->endpoint->counters().received_bytes);
}

TEST_P(TransportContract, EndpointsRunInThreadsOfTheirOwn) {
  if (!network_->threads()) GTEST_SKIP() << "its time moves with whichever thread waits";
  make_pair();
  constexpr uint64_t kMessages = 400;
  std::atomic<bool> in_order{true};
  std::thread receiver([&] {
    uint64_t posted = 0;
    uint64_t checked = 0;
    const bool done = run_until({b_.get()}, [&] {
      while (!at_b().received.empty()) {
        if (!has_content(at_b().received.front(), 60'000, checked)) in_order = false;
        at_b().received.pop_front();
        ++checked;
      }
      while (posted < kMessages && posted - checked < 8 && b_->post_receives(ba_, 1)) ++posted;
      return at_b().closed;
    });
    if (!done || checked != kMessages) in_order = false;
  });
  uint64_t sent = 0;
  const bool all_sent = run_until({a_.get()}, [&] {
    while (sent < kMessages && a_->try_send(ab_, 60'000, sent)) ++sent;
    return at_a().sent == kMessages;
  });
  a_->endpoint->close(ab_);
  const bool closed = run_until({a_.get()}, [&] { return at_a().closed; });
  receiver.join();
  EXPECT_TRUE(all_sent);
  EXPECT_TRUE(closed);
  EXPECT_TRUE(in_order);
  EXPECT_TRUE(at_b().close_status.ok()) << at_b().close_status;
  EXPECT_TRUE(a_->pool_is_whole());
  EXPECT_TRUE(b_->pool_is_whole());
}

INSTANTIATE_TEST_SUITE_P(All, TransportContract, testing::ValuesIn(network_kinds()),
                         [](const testing::TestParamInfo<NetworkKind>& kind) {
                           return kind.param.name;
                         });

}  // namespace
}  // namespace sluice
