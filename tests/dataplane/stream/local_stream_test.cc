// Streams of a node to itself keep the rules of all streams, without the wire.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/dataplane/stream/exchange_fixture.h"

namespace sluice {
namespace {

using testing::HasSubstr;

class LocalStreamTest : public ExchangeTest {
 protected:
  using Ends = std::pair<std::shared_ptr<Stream>, std::shared_ptr<Stream>>;
  Ends self(size_t receive_blocks = 0, std::shared_ptr<Inbox> inbox = nullptr) {
    nodes_[0].handler.admission.receive_blocks = receive_blocks;
    nodes_[0].handler.admission.inbox = std::move(inbox);
    auto stream = nodes_[0].exchange->connect(to(0));
    EXPECT_TRUE(stream.ok()) << stream.status();
    if (!stream.ok()) return {};
    return {*stream, nodes_[0].handler.next()};
  }
  absl::Status say(Stream& stream, uint64_t number, int64_t timeout_ms = kPatience) {
    return send(stream, *nodes_[0].pool, number, 1000, timeout_ms);
  }
};

TEST_P(LocalStreamTest, AMessageIsHandedOverInItsBuffer) {
  open(0);
  auto [here, there] = self();
  ASSERT_NE(there, nullptr);
  EXPECT_EQ(there->hello().node, "a");
  EXPECT_EQ(there->hello().job, "job");
  EXPECT_EQ(nodes_[0].exchange->streams(), 2u);
  const TransportCounters before = nodes_[0].exchange->counters();
  BlockBuffer buffer = nodes_[0].pool->take(kPatience);
  const uint8_t* const memory = buffer.data();
  Envelope envelope;
  envelope.kind = MessageKind::kBlock;
  envelope.payload_bytes = 500;
  envelope.sequence = 9;
  const uint32_t bytes = Envelope::seal(envelope, buffer);
  ASSERT_TRUE(here->send(std::move(buffer), bytes, kPatience).ok());
  const auto message = there->receive(kPatience);
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(message->buffer.data(), memory);
  EXPECT_EQ(message->envelope.sequence, 9u);
  EXPECT_EQ(here->counters().sent_bytes, bytes);
  EXPECT_EQ(there->counters().received_bytes, bytes);
  EXPECT_EQ(nodes_[0].exchange->local_bytes(), bytes);
  EXPECT_EQ(nodes_[0].exchange->counters().sent_bytes, before.sent_bytes);
}

TEST_P(LocalStreamTest, MessagesKeepTheirOrderAndTheReceiversBound) {
  open(0);
  auto [here, there] = self(3);
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(say(*here, i).ok());
  EXPECT_EQ(say(*here, 3, 20).code(), absl::StatusCode::kDeadlineExceeded);
  {
    const auto held = there->receive(kPatience);
    ASSERT_TRUE(held.ok());
    EXPECT_EQ(held->envelope.sequence, 0u);
    EXPECT_EQ(say(*here, 3, 20).code(), absl::StatusCode::kDeadlineExceeded)
        << "a message that is held has its credit";
    // Control messages have a bound of their own.
    Envelope small;
    small.kind = MessageKind::kSlotsDurable;
    EXPECT_TRUE(here->send_control(small, "abcd", 20).ok());
    EXPECT_TRUE(here->send_control(small, "efgh", 20).ok());
    EXPECT_EQ(here->send_control(small, "ijkl", 20).code(), absl::StatusCode::kDeadlineExceeded);
  }
  ASSERT_TRUE(say(*here, 3).ok());
  for (const uint64_t sequence : {1, 2}) {
    EXPECT_EQ(there->receive(kPatience)->envelope.sequence, sequence);
  }
  EXPECT_EQ(there->receive(kPatience)->payload()[0], 'a');
  EXPECT_EQ(there->receive(kPatience)->payload()[0], 'e');
  EXPECT_EQ(there->receive(kPatience)->envelope.sequence, 3u);
}

TEST_P(LocalStreamTest, ACloseIsToldBehindTheMessagesBeforeIt) {
  open(0);
  const std::shared_ptr<Inbox> inbox = Inbox::create();
  auto [here, there] = self(4, inbox);
  ASSERT_TRUE(say(*here, 1).ok());
  here->close(data_loss("block 17 is damaged"));
  EXPECT_FALSE(say(*here, 2).ok());
  Inbox::Delivery delivery;
  ASSERT_TRUE(inbox->take(kPatience, &delivery));
  EXPECT_EQ(delivery.message.envelope.sequence, 1u);
  EXPECT_FALSE(delivery.closed);
  ASSERT_TRUE(inbox->take(kPatience, &delivery));
  EXPECT_TRUE(delivery.closed);
  EXPECT_EQ(delivery.stream, there);
  EXPECT_EQ(there->closed_reason().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(there->closed_reason().message()), HasSubstr("block 17"));
  EXPECT_FALSE(inbox->take(20, &delivery));
  EXPECT_EQ(nodes_[0].exchange->streams(), 0u);
}

TEST_P(LocalStreamTest, TheLastReferenceCloses) {
  open(0);
  auto [here, there] = self();
  here.reset();
  EXPECT_EQ(there->receive(kPatience).status().code(), absl::StatusCode::kUnavailable);
}

// What an inbox no longer takes goes back without a lock that it needs.
TEST_P(LocalStreamTest, AnInboxThatIsShutDownTakesNothingAndHoldsNothing) {
  open(0);
  const std::shared_ptr<Inbox> inbox = Inbox::create();
  auto [here, there] = self(2, inbox);
  ASSERT_TRUE(say(*here, 1).ok());
  inbox->shut_down();
  for (uint64_t i = 0; i < 5; ++i) ASSERT_TRUE(say(*here, i).ok());
  there.reset();
  here->close(absl::OkStatus());
}

TEST_P(LocalStreamTest, TheRulesOfAHelloHold) {
  open(0, [](Exchange::Options& options) { options.max_streams = 2; });
  Exchange::ConnectOptions options = to(0);
  options.target = "b";
  EXPECT_EQ(nodes_[0].exchange->connect(options).status().code(),
            absl::StatusCode::kFailedPrecondition);
  options = to(0);
  options.kind = StreamKind::kForward;
  EXPECT_EQ(nodes_[0].exchange->connect(options).status().code(), absl::StatusCode::kNotFound);
  nodes_[0].handler.refusal = aborted("attempt 3 is over");
  EXPECT_EQ(nodes_[0].exchange->connect(to(0)).status().code(), absl::StatusCode::kAborted);
  nodes_[0].handler.refusal = absl::OkStatus();
  const Ends first = self();
  const Ends second = self();
  EXPECT_EQ(nodes_[0].exchange->connect(to(0)).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_P(LocalStreamTest, AHelloWaitsUntilItsJobIsServed) {
  open(0, [](Exchange::Options& options) { options.serve_wait_ms = 2 * kPatience; });
  nodes_[0].exchange->withdraw(StreamKind::kWrite, "");
  std::atomic<bool> connected{false};
  std::thread connecting([&] {
    Exchange::ConnectOptions options = to(0);
    options.timeout_ms = kPatience;
    const auto stream = nodes_[0].exchange->connect(options);
    EXPECT_TRUE(stream.ok()) << stream.status();
    connected = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_FALSE(connected);
  EXPECT_TRUE(nodes_[0].exchange->serve(StreamKind::kWrite, "job", &nodes_[0].handler).ok());
  connecting.join();
  EXPECT_TRUE(connected);
}

TEST_P(LocalStreamTest, ANodeThatMayNotServeDoesNotServeItself) {
  open(0, [](Exchange::Options& options) {
    options.gate = [] { return unavailable("it has not joined"); };
  });
  EXPECT_EQ(nodes_[0].exchange->connect(to(0)).status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(LocalStreamTest, ManyThreadsEndTogether) {
  open(0);
  for (int round = 0; round < 20; ++round) {
    const std::shared_ptr<Inbox> inbox = Inbox::create();
    auto [here, there] = self(2, inbox);
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, stream = here] {
        while (say(*stream, 0, 50).ok()) {
        }
      });
    }
    threads.emplace_back([&] {
      Inbox::Delivery delivery;
      for (int i = 0; i < 200 && inbox->take(kPatience, &delivery); ++i) delivery = {};
    });
    threads.back().join();
    there->close(absl::OkStatus());
    inbox->shut_down();
    for (int t = 0; t < 3; ++t) threads[static_cast<size_t>(t)].join();
  }
}

TEST_P(LocalStreamTest, StreamsEndWithTheExchange) {
  open(0);
  auto [here, there] = self();
  nodes_[0].exchange.reset();
  EXPECT_TRUE(here->closed() && there->closed());
  EXPECT_EQ(here->receive(10).status().code(), absl::StatusCode::kCancelled);
}

INSTANTIATE_TEST_SUITE_P(Networks, LocalStreamTest,
                         testing::Values(Kind{"tcp", tcp_network}, Kind{"sim", sim_network}),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace sluice
