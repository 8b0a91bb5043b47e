// Exchanges over tcp, over the simulated fabric, and with faults.
#include "dataplane/stream/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "base/random.h"
#include "base/status.h"
#include "drivers/fault.h"
#include "drivers/sim/sim.h"
#include "drivers/tcp/tcp.h"

namespace sluice {
namespace {

constexpr int64_t kPatience = 20'000;

bool eventually(const std::function<bool()>& what) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatience);
  while (!what()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

class Handler final : public StreamHandler {
 public:
  absl::StatusOr<Admission> admit(const Hello& hello) override {
    std::lock_guard lock(mutex_);
    last_hello = hello;
    if (!refusal.ok()) return refusal;
    return admission;
  }
  void accepted(std::shared_ptr<Stream> stream) override {
    {
      std::lock_guard lock(mutex_);
      streams_.push_back(std::move(stream));
    }
    changed_.notify_all();
  }
  std::shared_ptr<Stream> next() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::milliseconds(kPatience),
                           [this] { return !streams_.empty(); })) {
      return nullptr;
    }
    std::shared_ptr<Stream> stream = std::move(streams_.front());
    streams_.pop_front();
    return stream;
  }

  Admission admission;
  absl::Status refusal;
  Hello last_hello;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Stream>> streams_;
};

struct Network {
  std::unique_ptr<SimFabric> fabric;
  std::vector<std::unique_ptr<Transport>> transports;
  std::vector<std::string> listen;
};

struct Kind {
  std::string name;
  std::function<Network()> make;
};

Network tcp_network() {
  Network network;
  for (int i = 0; i < 2; ++i) {
    network.transports.push_back(std::make_unique<TcpTransport>());
    network.listen.push_back("127.0.0.1:0");
  }
  return network;
}

Network sim_network() {
  Network network;
  SimOptions options;
  options.free_running = true;
  network.fabric = std::make_unique<SimFabric>(7, options);
  for (const char* name : {"a", "b"}) {
    network.transports.push_back(std::make_unique<SimTransport>(*network.fabric, name));
    network.listen.push_back(name);
  }
  return network;
}

Network faulty(Network network) {
  FaultOptions faults;
  faults.seed = 11;
  faults.partial_post = 0.2;
  faults.delay = 0.2;
  const size_t count = network.transports.size();
  for (size_t i = 0; i < count; ++i) {
    auto with_faults = std::make_unique<FaultTransport>(*network.transports[i], faults);
    network.transports.push_back(std::move(network.transports[i]));
    network.transports[i] = std::move(with_faults);
  }
  return network;
}

class ExchangeTest : public testing::TestWithParam<Kind> {
 protected:
  struct Node {
    std::unique_ptr<Arena> arena;
    std::unique_ptr<BlockPool> pool;
    std::unique_ptr<Exchange> exchange;
    Handler handler;
  };

  void SetUp() override {
    network_ = GetParam().make();
    for (size_t i = 0; i < 2; ++i) {
      Arena::Options arena;
      arena.bytes = 64 * kBufferBytes;
      nodes_[i].arena = *Arena::create(arena);
      nodes_[i].pool = *nodes_[i].arena->make_pool("test", 12);
    }
  }
  void open(size_t i, const std::function<void(Exchange::Options&)>& adjust = nullptr) {
    Exchange::Options options;
    options.arena = nodes_[i].arena.get();
    options.transport = network_.transports[i].get();
    options.listen = network_.listen[i];
    options.cluster = "cluster";
    options.node = i == 0 ? "a" : "b";
    if (adjust) adjust(options);
    absl::StatusOr<std::unique_ptr<Exchange>> exchange = Exchange::open(options);
    ASSERT_TRUE(exchange.ok()) << exchange.status();
    nodes_[i].exchange = *std::move(exchange);
    ASSERT_TRUE(nodes_[i].exchange->serve(StreamKind::kWrite, "", &nodes_[i].handler).ok());
  }
  void TearDown() override {
    for (Node& node : nodes_) node.exchange.reset();
    for (Node& node : nodes_) {
      EXPECT_EQ(node.pool->free(), node.pool->size());
      node.pool.reset();
      EXPECT_EQ(node.arena->unassigned(), node.arena->buffers());
    }
  }
  Exchange::ConnectOptions to(size_t i) {
    Exchange::ConnectOptions options;
    options.address = nodes_[i].exchange->address();
    options.kind = StreamKind::kWrite;
    options.job = "job";
    return options;
  }
  // A connected pair: this end, and the one accepted by node 1.
  std::pair<std::shared_ptr<Stream>, std::shared_ptr<Stream>> pair(size_t receive_blocks = 0) {
    nodes_[1].handler.admission.receive_blocks = receive_blocks;
    absl::StatusOr<std::shared_ptr<Stream>> stream = nodes_[0].exchange->connect(to(1));
    EXPECT_TRUE(stream.ok()) << stream.status();
    if (!stream.ok()) return {};
    return {*stream, nodes_[1].handler.next()};
  }
  absl::Status send(Stream& stream, BlockPool& pool, uint64_t sequence, uint32_t bytes,
                    int64_t timeout_ms = kPatience) {
    BlockBuffer buffer = pool.take(timeout_ms);
    if (!buffer) return deadline_exceeded("no buffer");
    std::memset(buffer.data(), static_cast<int>(sequence & 0xff), bytes);
    Envelope envelope;
    envelope.kind = MessageKind::kBlock;
    envelope.sequence = sequence;
    envelope.payload_bytes = bytes;
    const uint32_t length = Envelope::seal(envelope, buffer);
    return stream.send(std::move(buffer), length, timeout_ms);
  }

  Network network_;
  Node nodes_[2];
};

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

// A peer that is no exchange: an endpoint that says what the test wants.
class RawPeer {
 public:
  RawPeer(Transport& transport, const std::string& address) {
    Arena::Options options;
    options.bytes = 8 * kBufferBytes;
    arena_ = *Arena::create(options);
    pool_ = *arena_->make_pool("raw", 8);
    endpoint_ = *transport.open(*arena_, "");
    connection_ = *endpoint_->connect(address);
    EXPECT_TRUE(until([this] { return connected_ || closed; }));
    for (int i = 0; i < 3; ++i) {
      BlockBuffer buffer = pool_->try_take();
      EXPECT_TRUE(until([&] {
        return endpoint_->post_recv(connection_, {&buffer, 1}) == 1 || closed;
      }));
    }
  }
  bool until(const std::function<bool()>& what) {
    return eventually([&] {
      Completion completions[8];
      const size_t count = endpoint_->poll(completions);
      for (size_t i = 0; i < count; ++i) {
        Completion& completion = completions[i];
        connected_ |= completion.kind == CompletionKind::kConnected;
        closed |= completion.kind == CompletionKind::kClosed;
        if (completion.kind == CompletionKind::kReceived && completion.status.ok()) {
          received.emplace_back(reinterpret_cast<const char*>(completion.buffer.data()),
                                completion.bytes);
        }
      }
      if (count == 0) endpoint_->wait(1'000'000);
      return what();
    });
  }
  void send_bytes(std::string_view bytes) {
    ASSERT_TRUE(until([this] { return closed || endpoint_->credits(connection_) > 0; }));
    SendRequest request;
    request.buffer = pool_->try_take();
    std::memcpy(request.buffer.data(), bytes.data(), bytes.size());
    request.bytes = static_cast<uint32_t>(bytes.size());
    post(request);
  }
  void send_message(MessageKind kind, std::string_view payload) {
    ASSERT_TRUE(until([this] { return closed || endpoint_->credits(connection_) > 0; }));
    SendRequest request;
    request.buffer = pool_->try_take();
    std::memcpy(request.buffer.data(), payload.data(), payload.size());
    Envelope envelope;
    envelope.kind = kind;
    envelope.payload_bytes = static_cast<uint32_t>(payload.size());
    request.bytes = Envelope::seal(envelope, request.buffer);
    post(request);
  }
  void post(SendRequest& request) {
    EXPECT_TRUE(until([&] {
      return closed || endpoint_->post_send(connection_, {&request, 1}) == 1;
    }));
  }
  ~RawPeer() { endpoint_.reset(); }

  bool closed = false;
  std::vector<std::string> received;

 private:
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<Endpoint> endpoint_;
  ConnectionId connection_ = 0;
  bool connected_ = false;
};

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

INSTANTIATE_TEST_SUITE_P(
    Networks, ExchangeTest,
    testing::Values(Kind{"tcp", tcp_network}, Kind{"sim", sim_network},
                    Kind{"tcp_with_faults", [] { return faulty(tcp_network()); }},
                    Kind{"sim_with_faults", [] { return faulty(sim_network()); }}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace sluice
