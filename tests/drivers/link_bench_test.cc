#include "drivers/link_bench.h"

#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "drivers/fault.h"
#include "drivers/tcp/tcp.h"
#include "tests/drivers/node.h"

namespace sluice {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

std::unique_ptr<Arena> make_arena() {
  Arena::Options options;
  options.bytes = 8 * options.buffer_bytes;
  return std::move(*Arena::create(options));
}

struct Both {
  absl::StatusOr<LinkResult> sender;
  absl::StatusOr<LinkResult> receiver;
};

// `before` is called with the receiver's address when it listens, before the sender begins.
Both run_link(
    Transport& sending, Transport& receiving, size_t block_bytes, bool checksum,
    int64_t patience_ns = 20 * kSecond,
    const std::function<void(const std::string& address)>& before = [](const std::string&) {},
    const LinkOptions& options = {}) {
  auto arena = make_arena();
  auto other_arena = make_arena();
  std::promise<std::string> bound;
  absl::StatusOr<LinkResult> received = unavailable("did not run");
  std::thread receiver([&] {
    received = run_link_receiver(
        receiving, *other_arena, "127.0.0.1:0",
        [&](std::string_view address) { bound.set_value(std::string(address)); }, patience_ns,
        options);
  });
  const std::string address = bound.get_future().get();
  before(address);
  auto sent = run_link_sender(sending, *arena, address, 0.1, block_bytes, checksum, options);
  receiver.join();
  return {std::move(sent), std::move(received)};
}

TEST(LinkBench, SilentPeersHoldNoSenderUp) {
  TcpTransport transport;
  std::vector<std::unique_ptr<Node>> silent;
  std::vector<std::unique_ptr<Node>> quiet;
  const auto crowd = [&](const std::string& address) {
    for (int i = 0; i < 50; ++i) {
      silent.push_back(std::make_unique<Node>(transport, "", 2, 4096));
      ASSERT_TRUE(silent.back()->endpoint->connect(address).ok());
      silent.back()->pump();
    }
    // An arena of another buffer size is refused; these are silent without even saying that.
    for (int i = 0; i < 10; ++i) {
      quiet.push_back(std::make_unique<Node>(transport, "", 2, kBufferBytes));
      auto id = quiet.back()->endpoint->connect(address);
      ASSERT_TRUE(id.ok());
      ASSERT_TRUE(run_until({quiet.back().get()}, [&] {
        return quiet.back()->link(*id).up || quiet.back()->link(*id).closed;
      }));
    }
  };
  const Both both = run_link(transport, transport, 5000, true, 60 * kSecond, crowd);
  ASSERT_TRUE(both.sender.ok()) << both.sender.status();
  ASSERT_TRUE(both.receiver.ok()) << both.receiver.status();
  EXPECT_EQ(both.receiver->blocks, both.sender->blocks);
  EXPECT_EQ(both.receiver->bad_blocks, 0u);
}

TEST(LinkBench, CountsWhatWasVerified) {
  TcpTransport transport;
  for (bool checksum : {true, false}) {
    for (size_t block : {size_t{1}, kLinkHeaderBytes, kLinkHeaderBytes + 1, size_t{5000},
                         kMaxBlockBytes, kBufferBytes}) {
      const Both both = run_link(transport, transport, block, checksum);
      ASSERT_TRUE(both.sender.ok()) << both.sender.status();
      ASSERT_TRUE(both.receiver.ok()) << both.receiver.status();
      EXPECT_GT(both.sender->blocks, 0u);
      EXPECT_EQ(both.sender->bytes, both.sender->blocks * block);
      EXPECT_EQ(both.sender->bad_blocks, 0u);
      EXPECT_GT(both.sender->gbit_s, 0);
      EXPECT_EQ(both.receiver->blocks, both.sender->blocks);
      EXPECT_EQ(both.receiver->bytes, both.sender->bytes);
      EXPECT_EQ(both.receiver->bad_blocks, 0u);
    }
  }
}

TEST(LinkBench, StreamsAreVerifiedEachAndCountedInSum) {
  TcpTransport transport;
  const auto nothing = [](const std::string&) {};
  for (const LinkOptions options : {LinkOptions{.streams = 4, .buffers = 8}, {.streams = 3}}) {
    const Both both = run_link(transport, transport, 5000, true, 20 * kSecond, nothing, options);
    ASSERT_TRUE(both.sender.ok()) << both.sender.status();
    ASSERT_TRUE(both.receiver.ok()) << both.receiver.status();
    EXPECT_GE(both.sender->blocks, options.streams);
    EXPECT_EQ(both.sender->bytes, both.sender->blocks * 5000);
    EXPECT_EQ(both.sender->bad_blocks, 0u);
    EXPECT_EQ(both.receiver->blocks, both.sender->blocks);
    EXPECT_EQ(both.receiver->bytes, both.sender->bytes);
  }
}

// Where few blocks are in flight as well: otherwise many buffers would measure the cache.
TEST(LinkBench, TheSendersBuffersAreUsedInTurn) {
  TcpTransport transport({.send_by = TcpOptions::SendBy::kWrite});
  Node receiver(transport, "127.0.0.1:0", 4, kBufferBytes);
  std::set<uint64_t> contents;
  uint64_t blocks = 0;
  receiver.on_received = [&](ConnectionId id, Message message) {
    // Each buffer has bytes of its own behind the header.
    contents.insert(load_le<uint64_t>(message.buffer.data() + kLinkHeaderBytes));
    if (++blocks == 32) receiver.endpoint->abort(id);
    receiver.endpoint->post_recv(id, {&message.buffer, 1});
  };
  std::thread sender([&] {
    auto arena = make_arena();
    EXPECT_FALSE(run_link_sender(transport, *arena, receiver.endpoint->address(), 30,
                                 kMaxBlockBytes, true, {.buffers = 8})
                     .ok());
  });
  EXPECT_TRUE(run_until({&receiver}, [&] { return !receiver.accepted.empty(); }));
  const ConnectionId id = receiver.accepted.front();
  EXPECT_TRUE(receiver.post_receives(id, 4));
  EXPECT_TRUE(run_until({&receiver}, [&] { return receiver.link(id).closed; }));
  sender.join();
  EXPECT_GE(blocks, 32u);
  EXPECT_EQ(contents.size(), 7u) << "one of the 8 is for the report";
}

TEST(LinkBench, ASenderOfFewerStreamsIsNotWaitedForForever) {
  TcpTransport transport;
  auto arena = make_arena();
  auto other_arena = make_arena();
  std::promise<std::string> bound;
  absl::StatusOr<LinkResult> received = unavailable("did not run");
  std::thread receiver([&] {
    received =
        run_link_receiver(transport, *other_arena, "127.0.0.1:0",
                          [&](std::string_view address) { bound.set_value(std::string(address)); },
                          kSecond / 2, {.streams = 2});
  });
  auto sent = run_link_sender(transport, *arena, bound.get_future().get(), 0.1, 5000, true, {});
  receiver.join();
  EXPECT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(received.status().code(), absl::StatusCode::kDeadlineExceeded) << received.status();
}

TEST(LinkBench, DamageIsFoundAndReportedToTheSender) {
  TcpTransport transport;
  FaultOptions options;
  options.flip_bit = 0.2;
  options.flip_from_bytes = 1000;  // blocks, not the messages that end the run
  FaultTransport damaging(transport, options);
  const Both both = run_link(transport, damaging, 100'000, true);
  ASSERT_TRUE(both.sender.ok()) << both.sender.status();
  ASSERT_TRUE(both.receiver.ok()) << both.receiver.status();
  EXPECT_GT(both.sender->bad_blocks, 0u);
  EXPECT_LT(both.sender->bad_blocks, both.sender->blocks);
  EXPECT_EQ(both.receiver->bad_blocks, both.sender->bad_blocks);
}

TEST(LinkBench, NobodyToSendToAndNobodyToReceiveFromAreErrors) {
  TcpTransport transport;
  auto arena = make_arena();
  EXPECT_FALSE(run_link_sender(transport, *arena, "127.0.0.1:1", 1, 1000, true).ok());
  auto nobody = run_link_receiver(transport, *arena, "127.0.0.1:0", {}, kSecond / 20);
  EXPECT_EQ(nobody.status().code(), absl::StatusCode::kDeadlineExceeded) << nobody.status();
  EXPECT_EQ(
      run_link_sender(transport, *arena, "127.0.0.1:1", 1, kBufferBytes + 1, true).status().code(),
      absl::StatusCode::kInvalidArgument);
  for (const LinkOptions options : {LinkOptions{.streams = 0},
                                    {.streams = kMaxLinkStreams + 1},
                                    {.buffers = 2},
                                    {.streams = 5}}) {  // the arena has 8 buffers
    EXPECT_FALSE(run_link_sender(transport, *arena, "127.0.0.1:1", 1, 1000, true, options).ok());
  }
  EXPECT_EQ(arena->unassigned(), arena->buffers());
}

}  // namespace
}  // namespace sluice
