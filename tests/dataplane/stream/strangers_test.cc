// What strangers may cost an exchange: silent ones, floods of them, refused ones, too many.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <thread>

#include "base/status.h"
#include "tests/dataplane/stream/exchange_fixture.h"

namespace sluice {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

class StrangersTest : public ExchangeTest {
 protected:
  // Far from every limit of time that would let the test pass.
  static constexpr int64_t kLate = 5'000;

  std::string address() { return nodes_[1].exchange->address(); }
  Transport& transport() { return *network_.transports[0]; }
  // A stream begins, in much less time than silent strangers are waited for.
  void expect_a_stream() {
    const auto began = SteadyClock::now();
    auto [here, there] = pair();
    ASSERT_NE(here, nullptr);
    ASSERT_NE(there, nullptr);
    EXPECT_LT(SteadyClock::now() - began, milliseconds(kLate));
    ASSERT_TRUE(send(*here, *nodes_[0].pool, 5, 10).ok());
    const absl::StatusOr<Message> message = there->receive(kPatience);
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_EQ(message->envelope.sequence, 5u);
  }
};

TEST_P(StrangersTest, SilentOnesMakeRoomForOneThatSpeaks) {
  open(0);
  open(1);
  const size_t buffers = Exchange::Options().hello_buffers;
  std::deque<RawPeer> silent;
  for (size_t i = 0; i < 2 * buffers; ++i) silent.emplace_back(transport(), address(), 0);
  expect_a_stream();
}

TEST_P(StrangersTest, NobodyIsClosedWhileThereIsRoomForAll) {
  open(0);
  open(1);
  std::deque<RawPeer> slow;
  for (size_t i = 0; i < Exchange::Options().hello_buffers; ++i) {
    slow.emplace_back(transport(), address(), 1);
  }
  const auto until = SteadyClock::now() + milliseconds(2 * Exchange::Options().hello_grace_ms);
  EXPECT_TRUE(slow.front().until([&] { return SteadyClock::now() > until; }));
  Hello hello;
  hello.cluster = "cluster";
  nodes_[1].handler.admission.receive_blocks = 1;
  std::vector<std::shared_ptr<Stream>> streams;
  for (RawPeer& peer : slow) {
    peer.send_message(MessageKind::kHello, hello.encode());
    EXPECT_TRUE(peer.until([&] { return !peer.received.empty() || peer.closed; }));
    ASSERT_FALSE(peer.closed);
    streams.push_back(nodes_[1].handler.next());
    ASSERT_NE(streams.back(), nullptr);
  }
}

TEST_P(StrangersTest, MoreThanThereIsRoomForAreTurnedAwayAndTheRestGoesOn) {
  open(0);
  open(1, [](Exchange::Options& options) { options.max_strangers = 4; });
  auto [here, there] = pair();
  ASSERT_NE(there, nullptr);
  std::deque<RawPeer> silent;
  for (int i = 0; i < 40; ++i) silent.emplace_back(transport(), address(), 0);
  const auto open_ones = [&] {
    size_t open = 0;
    for (RawPeer& peer : silent) {
      peer.look();
      open += peer.closed ? 0 : 1;
    }
    return open;
  };
  EXPECT_TRUE(eventually([&] { return open_ones() <= 12; })) << open_ones();
  ASSERT_TRUE(send(*here, *nodes_[0].pool, 7, 10).ok());
  const absl::StatusOr<Message> message = there->receive(kPatience);
  ASSERT_TRUE(message.ok()) << message.status();
  expect_a_stream();
}

TEST_P(StrangersTest, AFloodDoesNotKeepStreamsFromBeginning) {
  open(0);
  open(1);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> connected{0};
  std::thread flood([&] {
    std::deque<RawPeer> silent;
    while (!stop) {
      silent.emplace_back(transport(), address(), 0);
      ++connected;
      if (silent.size() > 60) silent.pop_front();
      std::this_thread::sleep_for(milliseconds(2));  // its rate: some hundred a second
    }
  });
  EXPECT_TRUE(eventually([&] { return connected > 60; }));
  // It is a draw against the flood, from the same host: most are won.
  int begun = 0;
  int lost = 0;
  while (begun < 10 && lost < 10) {
    absl::StatusOr<std::shared_ptr<Stream>> stream = nodes_[0].exchange->connect(to(1));
    if (!stream.ok()) {
      ++lost;
      continue;
    }
    ++begun;
    EXPECT_NE(nodes_[1].handler.next(), nullptr);
  }
  EXPECT_EQ(begun, 10) << lost << " were lost";
  stop = true;
  flood.join();
}

TEST_P(StrangersTest, ARefusedOneThatTakesNoAnswerHoldsNothing) {
  open(0);
  open(1);
  Hello hello;
  hello.cluster = "another";
  std::deque<RawPeer> refused;
  for (size_t i = 0; i < 2 * Exchange::Options().hello_buffers; ++i) {
    refused.emplace_back(transport(), address(), 0);
    refused.back().send_message(MessageKind::kHello, hello.encode());
  }
  expect_a_stream();
  // The answer is not waited for to be taken.
  for (RawPeer& peer : refused) {
    EXPECT_TRUE(peer.until([&] { return peer.closed; }));
    EXPECT_FALSE(peer.close_status.ok());
  }
}

TEST_P(StrangersTest, TheyDoNotKeepThisSideFromConnecting) {
  open(0);
  open(1);
  std::deque<RawPeer> silent;
  for (size_t i = 0; i < 2 * Exchange::Options().hello_buffers; ++i) {
    silent.emplace_back(*network_.transports[1], nodes_[0].exchange->address(), 0);
  }
  expect_a_stream();
}

TEST_P(StrangersTest, AcceptedStreamsDoNotKeepThisSideFromConnecting) {
  const auto few = [](Exchange::Options& options) { options.max_streams = 2; };
  open(0, few);
  open(1);
  ASSERT_TRUE(nodes_[0].exchange->serve(StreamKind::kForward, "", &nodes_[0].handler).ok());
  Exchange::ConnectOptions back;
  back.address = nodes_[0].exchange->address();
  back.kind = StreamKind::kForward;
  std::vector<std::shared_ptr<Stream>> streams;
  for (int i = 0; i < 2; ++i) {
    absl::StatusOr<std::shared_ptr<Stream>> stream = nodes_[1].exchange->connect(back);
    ASSERT_TRUE(stream.ok()) << stream.status();
    streams.push_back(*std::move(stream));
    streams.push_back(nodes_[0].handler.next());
  }
  EXPECT_EQ(nodes_[1].exchange->connect(back).status().code(),
            absl::StatusCode::kResourceExhausted);
  expect_a_stream();
}

TEST_P(StrangersTest, AnErrorThatThePeerDoesNotTakeEndsTheStreamAnyway) {
  open(0);
  open(1);
  RawPeer stubborn(transport(), address(), 1);
  Hello hello;
  hello.cluster = "cluster";
  stubborn.send_message(MessageKind::kHello, hello.encode());
  const std::shared_ptr<Stream> stream = nodes_[1].handler.next();
  ASSERT_NE(stream, nullptr);
  ASSERT_TRUE(stubborn.until([&] { return !stubborn.received.empty(); }));
  // No credit is left for the error, and nobody polls that end.
  stream->close(data_loss("damaged"));
  EXPECT_TRUE(eventually([&] { return nodes_[1].exchange->streams() == 0; }));
}

INSTANTIATE_TEST_SUITE_P(Networks, StrangersTest, testing::ValuesIn(exchange_networks()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace sluice
