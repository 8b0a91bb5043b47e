// Exchanges over tcp, over the simulated fabric, and with faults.
#include "dataplane/stream/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/random.h"
#include "base/status.h"
#include "tests/dataplane/stream/exchange_fixture.h"

namespace sluice {
namespace {

TEST_P(ExchangeTest, MessagesArriveWholeAndInOrderBothWays) {
  open(0);
  open(1);
  auto [here, there] = pair();
  ASSERT_NE(there, nullptr);
  EXPECT_EQ(there->hello().node, "a");
  EXPECT_EQ(there->hello().job, "job");
  constexpr uint64_t kMessages = 300;
  const auto send_all = [&](Stream& stream, BlockPool& pool) {
    for (uint64_t i = 0; i < kMessages; ++i) {
      const absl::Status status =
          send(stream, pool, i, static_cast<uint32_t>(1 + i * 997 % 200'000));
      ASSERT_TRUE(status.ok()) << status;
    }
  };
  const auto receive_all = [&](Stream& stream) {
    for (uint64_t i = 0; i < kMessages; ++i) {
      absl::StatusOr<Message> message = stream.receive(kPatience);
      ASSERT_TRUE(message.ok()) << message.status();
      ASSERT_EQ(message->envelope.sequence, i);
      ASSERT_EQ(message->payload().size(), 1 + i * 997 % 200'000);
      for (const uint8_t byte : message->payload()) ASSERT_EQ(byte, i & 0xff);
    }
  };
  std::thread sender([&] { send_all(*here, *nodes_[0].pool); });
  std::thread back([&] { send_all(*there, *nodes_[1].pool); });
  std::thread receiver([&] { receive_all(*here); });
  receive_all(*there);
  sender.join();
  back.join();
  receiver.join();
  EXPECT_EQ(here->counters().sent_messages, kMessages + 1);  // and the hello
  EXPECT_EQ(there->counters().received_bytes, here->counters().sent_bytes);
}

TEST_P(ExchangeTest, HellosThatDoNotFitAreRefusedWithTheReason) {
  open(0);
  open(1);
  Exchange::ConnectOptions options = to(1);
  options.cluster = "another";
  EXPECT_EQ(nodes_[0].exchange->connect(options).status().code(),
            absl::StatusCode::kFailedPrecondition);
  options = to(1);
  options.target = "c";
  EXPECT_EQ(nodes_[0].exchange->connect(options).status().code(),
            absl::StatusCode::kFailedPrecondition);
  options = to(1);
  options.kind = StreamKind::kForward;
  EXPECT_EQ(nodes_[0].exchange->connect(options).status().code(), absl::StatusCode::kNotFound);
  nodes_[1].handler.refusal = aborted("attempt 3 is over");
  const absl::Status refused = nodes_[0].exchange->connect(to(1)).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(message_of(refused)), testing::HasSubstr("attempt 3 is over"));
  nodes_[1].handler.refusal = absl::OkStatus();
  nodes_[1].handler.admission.receive_blocks = 60;
  EXPECT_EQ(nodes_[0].exchange->connect(to(1)).status().code(),
            absl::StatusCode::kResourceExhausted);
  auto [here, there] = pair();
  EXPECT_NE(there, nullptr);
}

// Whoever sends to a job may be a moment ahead of whoever takes it.
TEST_P(ExchangeTest, AHelloWaitsUntilItsJobIsServed) {
  open(0);
  // So long that a test that waits for it fails.
  open(1, [](Exchange::Options& options) { options.serve_wait_ms = 2 * kPatience; });
  Exchange& served = *nodes_[1].exchange;
  Handler job;
  job.refusal = not_found("attempt 2 is to come");
  Exchange::ConnectOptions options = to(1);
  options.kind = StreamKind::kBackupAgreed;
  options.timeout_ms = kPatience;
  absl::StatusOr<std::shared_ptr<Stream>> stream;
  std::thread connecting([&] { stream = nodes_[0].exchange->connect(options); });
  // Neither a handler of another job, nor one that does not take it yet, ends the wait.
  ASSERT_TRUE(served.serve(StreamKind::kBackupAgreed, "another", &nodes_[1].handler).ok());
  ASSERT_TRUE(served.serve(StreamKind::kBackupAgreed, "job", &job).ok());
  EXPECT_TRUE(eventually([&] { return job.asked() > 0; }));
  served.withdraw(StreamKind::kBackupAgreed, "job");
  job.set_refusal(absl::OkStatus());
  ASSERT_TRUE(served.serve(StreamKind::kBackupAgreed, "job", &job).ok());
  connecting.join();
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_NE(job.next(), nullptr);
}

TEST_P(ExchangeTest, AHelloForAJobThatIsNeverServedIsRefusedInTime) {
  open(0);
  open(1, [](Exchange::Options& options) { options.serve_wait_ms = 60; });
  Exchange::ConnectOptions options = to(1);
  options.kind = StreamKind::kBackupAgreed;
  options.timeout_ms = kPatience;
  EXPECT_EQ(nodes_[0].exchange->connect(options).status().code(), absl::StatusCode::kNotFound);
  // Nor does one that waits keep the exchange.
  std::thread connecting([&] {
    options.timeout_ms = 200;
    EXPECT_FALSE(nodes_[0].exchange->connect(options).ok());
  });
  nodes_[1].exchange.reset();
  connecting.join();
}

// Whoever keeps streams in an order has one that no address decides.
TEST_P(ExchangeTest, NumbersItsStreamsAsTheyAreMade) {
  open(0);
  open(1);
  const auto [first, first_there] = pair();
  const auto local = nodes_[0].exchange->connect(to(0));
  ASSERT_TRUE(local.ok()) << local.status();
  const auto local_there = nodes_[0].handler.next();
  const auto [last, last_there] = pair();
  ASSERT_TRUE(first_there != nullptr && local_there != nullptr && last_there != nullptr);
  EXPECT_LT(first->number(), (*local)->number());
  EXPECT_LT((*local)->number(), local_there->number());
  EXPECT_LT(local_there->number(), last->number());
  EXPECT_LT(first_there->number(), last_there->number());
}

TEST_P(ExchangeTest, ASlowConsumerStopsItsOwnPeerAndNobodyElse) {
  open(0);
  open(1);
  auto [slow, slow_there] = pair(2);
  auto [quick, quick_there] = pair(2);
  ASSERT_TRUE(slow_there != nullptr && quick_there != nullptr);
  std::vector<Message> held;
  uint64_t sent = 0;
  for (;; ++sent) {
    if (nodes_[0].pool->free() == 1) break;
    const absl::Status status = send(*slow, *nodes_[0].pool, sent, 1000, 100);
    if (status.code() == absl::StatusCode::kDeadlineExceeded) break;
    ASSERT_TRUE(status.ok()) << status;
  }
  for (int i = 0; i < 2; ++i) {
    absl::StatusOr<Message> message = slow_there->receive(kPatience);
    ASSERT_TRUE(message.ok());
    held.push_back(*std::move(message));
  }
  EXPECT_EQ(slow_there->receive(50).status().code(), absl::StatusCode::kDeadlineExceeded);
  for (uint64_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(send(*quick, *nodes_[0].pool, i, 1000).ok());
    absl::StatusOr<Message> message = quick_there->receive(kPatience);
    ASSERT_TRUE(message.ok());
    EXPECT_EQ(message->envelope.sequence, i);
  }
  held.clear();
  for (uint64_t i = 2; i < sent; ++i) {
    absl::StatusOr<Message> message = slow_there->receive(kPatience);
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_EQ(message->envelope.sequence, i);
  }
}

TEST_P(ExchangeTest, AnErrorIsToldToThePeer) {
  open(0);
  open(1);
  auto [here, there] = pair();
  ASSERT_NE(there, nullptr);
  there->close(data_loss("block 17 is damaged"));
  const absl::Status reason = here->receive(kPatience).status();
  EXPECT_EQ(reason.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(message_of(reason)), testing::HasSubstr("block 17 is damaged"));
  EXPECT_FALSE(send(*here, *nodes_[0].pool, 0, 10).ok());
  EXPECT_TRUE(eventually(
      [&] { return nodes_[0].exchange->streams() == 0 && nodes_[1].exchange->streams() == 0; }));
}

TEST_P(ExchangeTest, WhatWasQueuedBeforeAnOrderlyCloseArrives) {
  open(0);
  open(1);
  auto [here, there] = pair();
  ASSERT_NE(there, nullptr);
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(send(*here, *nodes_[0].pool, i, 100'000).ok());
  here->close(absl::OkStatus());
  for (uint64_t i = 0; i < 6; ++i) {
    absl::StatusOr<Message> message = there->receive(kPatience);
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_EQ(message->envelope.sequence, i);
  }
  EXPECT_EQ(there->receive(kPatience).status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(ExchangeTest, ThePeersDeathEndsTheStreamAndLosesNoBuffer) {
  open(0);
  open(1);
  auto [here, there] = pair();
  ASSERT_NE(there, nullptr);
  for (uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(send(*here, *nodes_[0].pool, i, 500'000).ok());
  there.reset();
  nodes_[1].exchange.reset();
  EXPECT_FALSE(here->receive(kPatience).ok());
  EXPECT_TRUE(here->closed());
  EXPECT_TRUE(eventually([&] { return nodes_[0].pool->free() == nodes_[0].pool->size(); }));
}

TEST_P(ExchangeTest, StreamsOfOneInboxTellOfTheirMessagesAndTheirEnd) {
  open(0);
  open(1);
  nodes_[1].handler.admission.inbox = Inbox::create();
  const std::shared_ptr<Inbox> inbox = nodes_[1].handler.admission.inbox;
  auto [one, one_there] = pair();
  auto [two, two_there] = pair();
  ASSERT_TRUE(one_there != nullptr && two_there != nullptr);
  Envelope end;
  end.kind = MessageKind::kStreamEnd;
  ASSERT_TRUE(one->send_control(end, "", kPatience).ok());
  Inbox::Delivery delivery;
  ASSERT_TRUE(inbox->take(kPatience, &delivery));
  EXPECT_EQ(delivery.stream, one_there);
  EXPECT_EQ(delivery.message.envelope.kind, MessageKind::kStreamEnd);
  two->close(absl::OkStatus());
  delivery = {};
  ASSERT_TRUE(inbox->take(kPatience, &delivery));
  EXPECT_EQ(delivery.stream, two_there);
  EXPECT_TRUE(delivery.closed);
  delivery = {};
  inbox->shut_down();
  EXPECT_FALSE(inbox->take(kPatience, &delivery));
}

TEST_P(ExchangeTest, KeepalivesHoldAQuietStreamOpen) {
  const auto quick = [](Exchange::Options& options) {
    options.keepalive_ms = 60;
    options.idle_timeout_ms = 2000;
  };
  open(0, quick);
  open(1, quick);
  auto [here, there] = pair();
  ASSERT_NE(there, nullptr);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(eventually([&] {
    return std::chrono::steady_clock::now() - began > std::chrono::milliseconds(3000) ||
           here->closed();
  }));
  EXPECT_FALSE(here->closed()) << here->closed_reason();
  EXPECT_FALSE(there->closed());
  EXPECT_GT(here->counters().received_messages, 3u);
}

TEST_P(ExchangeTest, GarbageCostsItsOwnConnectionOnly) {
  open(0);
  open(1);
  auto [here, there] = pair();
  ASSERT_NE(there, nullptr);
  Random random(3);
  for (int i = 0; i < 12; ++i) {
    RawPeer peer(*network_.transports[0], nodes_[1].exchange->address());
    std::string garbage(1 + random.below(5000), '\0');
    for (char& c : garbage) c = static_cast<char>(random.next());
    peer.send_bytes(garbage);
    EXPECT_TRUE(peer.until([&] { return peer.closed; })) << i;
  }
  Hello hello;
  hello.cluster = "cluster";
  hello.node = "raw";
  {
    RawPeer twice(*network_.transports[0], nodes_[1].exchange->address());
    twice.send_message(MessageKind::kHello, hello.encode());
    twice.send_message(MessageKind::kHello, hello.encode());
    EXPECT_TRUE(twice.until([&] { return twice.closed; }));
  }
  hello.protocol_min = hello.protocol_max = 9;
  RawPeer future(*network_.transports[0], nodes_[1].exchange->address());
  future.send_message(MessageKind::kHello, hello.encode());
  ASSERT_TRUE(future.until([&] { return !future.received.empty(); }));
  EXPECT_THAT(future.received.front(), testing::HasSubstr("protocol 9"));
  ASSERT_TRUE(send(*here, *nodes_[0].pool, 5, 10).ok());
  absl::StatusOr<Message> message = there->receive(kPatience);
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->envelope.sequence, 5u);
  nodes_[1].handler.next();  // lets go of the one that said hello twice
}

TEST_P(ExchangeTest, WhoSaysNothingIsLetGoOfInTime) {
  open(0);
  open(1, [](Exchange::Options& options) {
    options.hello_timeout_ms = 200;
    options.idle_timeout_ms = 400;
    options.keepalive_ms = 100;
  });
  RawPeer silent(*network_.transports[0], nodes_[1].exchange->address());
  EXPECT_TRUE(silent.until([&] { return silent.closed; }));
  RawPeer polite(*network_.transports[0], nodes_[1].exchange->address());
  Hello hello;
  hello.cluster = "cluster";
  polite.send_message(MessageKind::kHello, hello.encode());
  const std::shared_ptr<Stream> stream = nodes_[1].handler.next();
  ASSERT_NE(stream, nullptr);
  EXPECT_TRUE(polite.until([&] { return stream->closed(); }));
  EXPECT_THAT(std::string(message_of(stream->closed_reason())), testing::HasSubstr("nothing from"));
}

TEST_P(ExchangeTest, AWithdrawnHandlerIsNotCalledAndAnotherMayServe) {
  open(0);
  open(1);
  Handler second;
  EXPECT_EQ(nodes_[1].exchange->serve(StreamKind::kWrite, "", &second).code(),
            absl::StatusCode::kAlreadyExists);
  nodes_[1].exchange->withdraw(StreamKind::kWrite, "");
  EXPECT_EQ(nodes_[0].exchange->connect(to(1)).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(nodes_[1].exchange->serve(StreamKind::kWrite, "job", &second).ok());
  absl::StatusOr<std::shared_ptr<Stream>> stream = nodes_[0].exchange->connect(to(1));
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_NE(second.next(), nullptr);
}

INSTANTIATE_TEST_SUITE_P(Networks, ExchangeTest, testing::ValuesIn(exchange_networks()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace sluice
