// What the tests of exchanges share: two nodes on each network, and peers that are not exchanges.
#ifndef SLUICE_TESTS_DATAPLANE_STREAM_EXCHANGE_FIXTURE_H_
#define SLUICE_TESTS_DATAPLANE_STREAM_EXCHANGE_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "dataplane/stream/exchange.h"
#include "drivers/fault.h"
#include "drivers/sim/sim.h"
#include "drivers/tcp/tcp.h"
#include "tests/drivers/real_time.h"

namespace sluice {

inline constexpr int64_t kPatience = 20'000;

inline bool eventually(const std::function<bool()>& what) {
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
    ++asked_;
    if (!refusal.ok()) return refusal;
    return admission;
  }
  int asked() {
    std::lock_guard lock(mutex_);
    return asked_;
  }
  void set_refusal(absl::Status status) {
    std::lock_guard lock(mutex_);
    refusal = std::move(status);
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
  int asked_ = 0;
};

struct Network {
  std::unique_ptr<SimTime> time;
  std::unique_ptr<SimFabric> fabric;
  std::vector<std::unique_ptr<Transport>> transports;
  std::vector<std::string> listen;
};

struct Kind {
  std::string name;
  std::function<Network()> make;
};

inline Network tcp_network() {
  Network network;
  for (int i = 0; i < 2; ++i) {
    network.transports.push_back(std::make_unique<TcpTransport>());
    network.listen.push_back("127.0.0.1:0");
  }
  return network;
}

inline Network sim_network() {
  Network network;
  SimOptions options;
  network.time = std::make_unique<RealTime>();
  options.time = network.time.get();
  network.fabric = std::make_unique<SimFabric>(7, options);
  for (const char* name : {"a", "b"}) {
    network.transports.push_back(std::make_unique<SimTransport>(*network.fabric, name));
    network.listen.push_back(name);
  }
  return network;
}

inline Network faulty(Network network) {
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

inline std::vector<Kind> exchange_networks() {
  return {{"tcp", tcp_network},
          {"sim", sim_network},
          {"tcp_with_faults", [] { return faulty(tcp_network()); }},
          {"sim_with_faults", [] { return faulty(sim_network()); }}};
}

// A peer that is not an exchange: an endpoint that says what the test wants.
class RawPeer {
 public:
  // Gives `credits` credits.
  RawPeer(Transport& transport, const std::string& address, int credits = 3) {
    Arena::Options options;
    options.bytes = 6 * kBufferBytes;
    arena_ = *Arena::create(options);
    pool_ = *arena_->make_pool("raw", 6);
    endpoint_ = *transport.open(*arena_, "");
    connection_ = *endpoint_->connect(address);
    EXPECT_TRUE(until([this] { return connected_ || closed; }));
    for (int i = 0; i < credits; ++i) {
      BlockBuffer buffer = pool_->try_take();
      EXPECT_TRUE(until([&] {
        return endpoint_->post_recv(connection_, {&buffer, 1}) == 1 || closed;
      }));
    }
  }
  // Polls once; whether something had happened.
  bool look() {
    Completion completions[8];
    const size_t count = endpoint_->poll(completions);
    for (size_t i = 0; i < count; ++i) {
      Completion& completion = completions[i];
      connected_ |= completion.kind == CompletionKind::kConnected;
      closed |= completion.kind == CompletionKind::kClosed;
      if (completion.kind == CompletionKind::kClosed) close_status = completion.status;
      if (completion.kind == CompletionKind::kReceived && completion.status.ok()) {
        received.emplace_back(reinterpret_cast<const char*>(completion.buffer.data()),
                              completion.bytes);
      }
    }
    return count > 0;
  }
  bool until(const std::function<bool()>& what) {
    return eventually([&] {
      if (!look()) endpoint_->wait(1'000'000);
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
  absl::Status close_status;
  std::vector<std::string> received;

 private:
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<Endpoint> endpoint_;
  ConnectionId connection_ = 0;
  bool connected_ = false;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_DATAPLANE_STREAM_EXCHANGE_FIXTURE_H_
