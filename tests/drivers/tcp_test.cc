// What is special to tcp: hostile and broken peers, played by raw sockets; addresses; time limits.
#include "drivers/tcp/tcp.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/socket_address.h"
#include "base/status.h"
#include "drivers/tcp/sending_cost.h"
#include "drivers/tcp/socket_options.h"
#include "drivers/tcp/wire.h"
#include "tests/drivers/node.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kMaxMessage = 128 << 10;

std::string preamble(uint64_t magic = tcp::kMagic, uint32_t version = tcp::kProtocolVersion,
                     uint64_t max = kMaxMessage, uint32_t flags = 0) {
  std::string bytes;
  ByteWriter writer(&bytes);
  writer.put<uint64_t>(magic);
  writer.put<uint32_t>(version);
  writer.put<uint32_t>(flags);
  writer.put<uint64_t>(max);
  writer.put<uint64_t>(0);
  return bytes;
}

std::string frame(uint32_t type, uint32_t length, std::string_view body = "") {
  std::string bytes;
  ByteWriter writer(&bytes);
  writer.put<uint32_t>(type);
  writer.put<uint32_t>(length);
  writer.put_bytes(body);
  return bytes;
}

std::string totals(uint32_t type, uint64_t received, uint64_t granted) {
  std::string body;
  ByteWriter writer(&body);
  writer.put<uint64_t>(received);
  writer.put<uint64_t>(granted);
  return frame(type, 16, body);
}

// A peer that says what it likes.
class RawPeer {
 public:
  explicit RawPeer(const std::string& address) {
    auto parsed = parse_address(address);
    EXPECT_TRUE(parsed.ok());
    fd_.reset(socket(parsed->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd_.get(), parsed->get(), parsed->length), 0);
  }
  void say(std::string_view bytes) {
    EXPECT_EQ(send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // What has come so far, without waiting.
  const std::string& heard() {
    char bytes[4096];
    ssize_t got;
    while ((got = recv(fd_.get(), bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
      heard_.append(bytes, static_cast<size_t>(got));
    }
    ended_ = ended_ || got == 0 || (got < 0 && errno != EAGAIN);
    return heard_;
  }
  bool ended() {
    heard();
    return ended_;
  }
  // Ends the stream. (Closing with unread input would reset it instead.)
  void leave() { shutdown(fd_.get(), SHUT_WR); }

 private:
  UniqueFd fd_;
  std::string heard_;
  bool ended_ = false;
};

class TcpTest : public testing::Test {
 protected:
  void start(const TcpOptions& options = {}) {
    transport_ = std::make_unique<TcpTransport>(options);
    node_ = std::make_unique<Node>(*transport_, "127.0.0.1:0");
  }
  // The id of the one connection that was closed.
  bool run(const std::function<bool()>& done) { return run_until({node_.get()}, done); }
  bool any_closed() {
    for (const auto& [id, link] : node_->links) {
      if (link.closed) return true;
    }
    return false;
  }
  // What the node says about a peer that says `bytes`.
  std::string verdict_on(std::string_view bytes, bool then_leaves = false) {
    RawPeer peer(node_->endpoint->address());
    peer.say(bytes);
    if (then_leaves) peer.leave();
    node_->links.clear();
    EXPECT_TRUE(run([&] { return any_closed(); }));
    const Link& link = node_->links.begin()->second;
    EXPECT_FALSE(link.close_status.ok());
    node_->accepted.clear();
    return link.close_status.ToString();
  }
  // Lets a raw peer in, with `credits` receive buffers posted for it and announced to it.
  std::unique_ptr<RawPeer> let_in(size_t credits, ConnectionId* id) {
    auto peer = std::make_unique<RawPeer>(node_->endpoint->address());
    peer->say(preamble());
    node_->accepted.clear();
    EXPECT_TRUE(run([&] { return !node_->accepted.empty(); }));
    *id = node_->accepted.back();
    if (credits > 0) {
      EXPECT_TRUE(node_->post_receives(*id, credits));
      EXPECT_TRUE(
          run([&] { return peer->heard().size() >= tcp::kPreambleBytes + tcp::kControlBytes; }));
    }
    return peer;
  }
  std::string verdict_after(size_t credits, std::string_view bytes, bool then_leaves = false) {
    ConnectionId id = 0;
    auto peer = let_in(credits, &id);
    peer->say(bytes);
    if (then_leaves) peer->leave();
    EXPECT_TRUE(run([&, id] { return node_->link(id).closed; }));
    EXPECT_EQ(node_->link(id).receive_failed + node_->link(id).received_total, credits);
    node_->link(id).received.clear();
    EXPECT_TRUE(node_->pool_is_whole());
    return node_->link(id).close_status.ToString();
  }
  void expect_node_still_works() {
    Node other(*transport_, "");
    const auto [there, here] = connect_nodes(other, *node_);
    ASSERT_NE(there, 0u);
    ASSERT_TRUE(node_->post_receives(here, 1));
    ASSERT_TRUE(run_until({&other, node_.get()},
                          [&, id = there] { return other.endpoint->credits(id) == 1; }));
    ASSERT_TRUE(other.send(there, 1000, 9));
    ASSERT_TRUE(run([&, id = here] { return node_->link(id).received.size() == 1; }));
    EXPECT_TRUE(has_content(node_->link(here).received.front(), 1000, 9));
    node_->link(here).received.clear();
  }

  std::unique_ptr<TcpTransport> transport_;
  std::unique_ptr<Node> node_;
};

TEST_F(TcpTest, PeersThatCannotBeTalkedToAreRefusedWithTheReason) {
  start();
  EXPECT_THAT(verdict_on("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
              HasSubstr("does not speak"));
  EXPECT_THAT(verdict_on(preamble(tcp::kMagic + 1)), HasSubstr("does not speak"));
  EXPECT_THAT(verdict_on(preamble(tcp::kMagic, tcp::kProtocolVersion + 1)),
              HasSubstr(fmt::format("protocol version {}", tcp::kProtocolVersion + 1)));
  EXPECT_THAT(verdict_on(preamble(tcp::kMagic, tcp::kProtocolVersion, 4096)),
              HasSubstr("same arena buffer size"));
  EXPECT_THAT(verdict_on(preamble(tcp::kMagic, tcp::kProtocolVersion, kMaxMessage, 4)),
              HasSubstr("features"));
  EXPECT_THAT(verdict_on(preamble().substr(0, 31), true),
              HasSubstr("before its preamble was complete"));
  EXPECT_THAT(verdict_on("", true), HasSubstr("before its preamble was complete"));
  EXPECT_TRUE(node_->accepted.empty());
  expect_node_still_works();
}

TEST_F(TcpTest, TheRefusedSideHearsTheReasonToo) {
  start();
  Node other(*transport_, "", 4, 4096);
  auto id = other.endpoint->connect(node_->endpoint->address());
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(
      run_until({&other, node_.get()}, [&] { return other.link(*id).closed && any_closed(); }));
  EXPECT_FALSE(other.link(*id).up);
  EXPECT_THAT(other.link(*id).close_status.ToString(), HasSubstr("same arena buffer size"));
}

TEST_F(TcpTest, BrokenFramesCostTheirConnectionAlone) {
  start();
  const std::string big(100, 'x');
  EXPECT_THAT(verdict_after(2, frame(99, 16, big)), HasSubstr("unknown type 99"));
  EXPECT_THAT(verdict_after(2, frame(0, 0)), HasSubstr("unknown type 0"));
  EXPECT_THAT(verdict_after(2, frame(1, 0)), HasSubstr("a message of 0 bytes"));
  EXPECT_THAT(verdict_after(2, frame(1, kMaxMessage + 1, big)),
              HasSubstr("a message of 131073 bytes"));
  EXPECT_THAT(verdict_after(2, frame(1, 0xffffffff, big)),
              HasSubstr("a message of 4294967295 bytes"));
  EXPECT_THAT(verdict_after(2, frame(2, 15, big)), HasSubstr("control frame of 15 bytes"));
  EXPECT_THAT(verdict_after(2, frame(3, 17, big)), HasSubstr("control frame of 17 bytes"));
  EXPECT_THAT(verdict_after(0, totals(2, 1, 0)), HasSubstr("it says it has 1 messages of 0 sent"));
  EXPECT_THAT(verdict_after(0, totals(2, 0, uint64_t{1} << 40)), HasSubstr("credits at once"));
  EXPECT_THAT(verdict_after(0, totals(2, 0, 5) + totals(2, 0, 4)), HasSubstr("go back"));
  EXPECT_THAT(verdict_after(2, totals(3, 0, 0) + frame(1, 1, "x")),
              HasSubstr("after its close frame"));
  EXPECT_THAT(verdict_after(2, totals(3, 0, 0) + totals(3, 0, 0)), HasSubstr("second close frame"));
  expect_node_still_works();
}

TEST_F(TcpTest, MessagesBeyondCreditAreRefused) {
  start();
  EXPECT_THAT(verdict_after(0, frame(1, 3, "abc")), HasSubstr("message 1 with 0 credits"));
  const std::string two = frame(1, 3, "abc") + frame(1, 3, "def");
  EXPECT_THAT(verdict_after(1, two), HasSubstr("message 2 with 1 credits"));
  EXPECT_THAT(verdict_after(2, two + frame(1, 1, "x")), HasSubstr("message 3 with 2 credits"));
  expect_node_still_works();
}

TEST_F(TcpTest, TruncatedFramesAreALostConnection) {
  start();
  const std::string whole = frame(1, 1000, std::string(1000, 'x'));
  for (size_t length :
       {size_t{0}, size_t{3}, size_t{8}, size_t{9}, whole.size() - 1, whole.size() + 4}) {
    EXPECT_THAT(verdict_after(2, (whole + whole).substr(0, length), true),
                HasSubstr("without the closing handshake"));
  }
  EXPECT_THAT(verdict_after(0, totals(2, 0, 0).substr(0, 20), true),
              HasSubstr("without the closing handshake"));
  expect_node_still_works();
}

TEST_F(TcpTest, MessagesInSinglePiecesArriveWhole) {
  start();
  ConnectionId id = 0;
  auto peer = let_in(3, &id);
  std::string message(3000, '\0');
  fill(reinterpret_cast<uint8_t*>(message.data()), message.size(), 5);
  const std::string bytes =
      frame(1, 3000, message) + totals(2, 0, 0) + frame(1, 1, message.substr(0, 1));
  size_t at = 0;
  ASSERT_TRUE(run([&, id] {
    const size_t piece = std::min<size_t>(1 + at % 7, bytes.size() - at);
    if (piece > 0) peer->say(std::string_view(bytes).substr(at, piece));
    at += piece;
    return node_->link(id).received.size() == 2;
  }));
  EXPECT_TRUE(has_content(node_->link(id).received[0], 3000, 5));
  EXPECT_EQ(node_->link(id).received[1].buffer.data()[0], static_cast<uint8_t>(message[0]));
}

TEST_F(TcpTest, APeerThatNeverSpeaksIsDroppedInTime) {
  TcpOptions options;
  options.handshake_timeout_ms = 50;
  start(options);
  RawPeer silent(node_->endpoint->address());
  RawPeer slow(node_->endpoint->address());
  slow.say(preamble().substr(0, 20));
  ASSERT_TRUE(run([&] { return silent.ended() && slow.ended(); }));
  ASSERT_EQ(node_->links.size(), 2u);
  for (const auto& [id, link] : node_->links) {
    EXPECT_THAT(link.close_status.ToString(), HasSubstr("no complete preamble within 50 ms"));
  }
  EXPECT_TRUE(node_->accepted.empty());
}

TEST_F(TcpTest, ConnectingToAPeerThatNeverSpeaksEndsInTime) {
  TcpOptions options;
  options.handshake_timeout_ms = 50;
  start(options);
  auto address = parse_address("127.0.0.1:0");
  UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(listener.get(), address->get(), address->length), 0);
  ASSERT_EQ(listen(listener.get(), 4), 0);
  ASSERT_EQ(getsockname(listener.get(), address->get(), &address->length), 0);
  auto id = node_->endpoint->connect(to_string(*address));
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(run([&] { return node_->link(*id).closed; }));
  EXPECT_EQ(node_->link(*id).close_status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(TcpTest, ACloseThatThePeerIgnoresEndsInTime) {
  TcpOptions options;
  options.close_timeout_ms = 50;
  start(options);
  ConnectionId id = 0;
  auto peer = let_in(2, &id);
  node_->endpoint->close(id);
  ASSERT_TRUE(run([&, id] { return node_->link(id).closed; }));
  EXPECT_THAT(node_->link(id).close_status.ToString(), HasSubstr("no progress for 50 ms"));
  EXPECT_TRUE(node_->pool_is_whole());
}

TEST_F(TcpTest, ABufferSentByReferenceIsFreeOnlyWhenThePeerHasTheMessage) {
  TcpOptions options;
  options.send_by = TcpOptions::SendBy::kSendfile;
  options.sendfile_from_bytes = 1000;
  start(options);
  ConnectionId id = 0;
  auto peer = let_in(0, &id);
  peer->say(totals(2, 0, 2));
  ASSERT_TRUE(run([&, id] { return node_->endpoint->credits(id) == 2; }));
  ASSERT_TRUE(node_->send(id, 1000, 1));
  ASSERT_TRUE(node_->send(id, 10, 2));
  const size_t expected = tcp::kPreambleBytes + 2 * tcp::kHeaderBytes + 1010;
  ASSERT_TRUE(run([&] { return peer->heard().size() == expected; }));
  for (int i = 0; i < 10; ++i) node_->pump();
  EXPECT_EQ(node_->link(id).sent, 0u);
  peer->say(totals(2, 1, 2));
  ASSERT_TRUE(run([&, id] { return node_->link(id).sent == 2; }));
}

TEST_F(TcpTest, ACopiedBufferIsFreeOnceTheKernelHasIt) {
  TcpOptions options;
  options.send_by = TcpOptions::SendBy::kWrite;
  start(options);
  ConnectionId id = 0;
  auto peer = let_in(0, &id);
  peer->say(totals(2, 0, 2));
  ASSERT_TRUE(run([&, id] { return node_->endpoint->credits(id) == 2; }));
  // The peer neither reads nor says anything.
  ASSERT_TRUE(node_->send(id, 100'000, 1));
  ASSERT_TRUE(node_->send(id, 10, 2));
  ASSERT_TRUE(run([&, id] { return node_->link(id).sent == 2; }));
  EXPECT_TRUE(node_->pool_is_whole());
}

// Blocks of 1 MiB in a row: what each costs in system calls, at both ends together. With one thread
// for both, each round of polls moves one block.
TEST_F(TcpTest, ALargeBlockCostsFewSystemCalls) {
  constexpr uint32_t kBytes = kMaxBlockBytes;
  constexpr uint64_t kBlocks = 64;
  TcpOptions options;
  options.send_by = TcpOptions::SendBy::kWrite;
  transport_ = std::make_unique<TcpTransport>(options);
  Node to(*transport_, "127.0.0.1:0", 8, kBufferBytes);
  Node from(*transport_, "", 4, kBufferBytes);
  const auto [there, here] = connect_nodes(from, to);
  ASSERT_NE(there, 0u);
  uint64_t received = 0;
  to.on_received = [&, id = here](ConnectionId, Message message) {
    ++received;
    EXPECT_EQ(to.endpoint->post_recv(id, {&message.buffer, 1}), 1u);
  };
  ASSERT_TRUE(to.post_receives(here, 8));
  ASSERT_TRUE(run_until({&from, &to}, [&, id = there] { return from.endpoint->credits(id) == 8; }));
  const auto calls = [&] {
    return from.endpoint->counters().system_calls + to.endpoint->counters().system_calls;
  };
  const uint64_t before = calls();
  uint64_t sent = 0;
  ASSERT_TRUE(run_until({&from, &to}, [&, id = there] {
    if (sent < kBlocks && from.endpoint->credits(id) > 0) {
      SendRequest request{from.pool->try_take(), kBytes};
      if (request.buffer) sent += from.endpoint->post_send(id, {&request, 1});
    }
    return received == kBlocks;
  }));
  // Each round: epoll at both ends, one send and one receive of the block; every fourth the same of
  // the update that gives credits back. A few rounds at the beginning move less.
  EXPECT_LE(calls() - before, 5 * kBlocks + 16);
}

// Every established connection of this process.
std::vector<std::string> congestion_controls() {
  std::vector<std::string> names;
  for (int fd = 3; fd < 1024; ++fd) {
    SocketAddress peer;
    char name[16] = {};
    socklen_t length = sizeof(name);
    if (getpeername(fd, peer.get(), &peer.length) == 0 &&
        getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0) {
      names.emplace_back(name);
    }
  }
  return names;
}

TEST_F(TcpTest, ConnectionsWithinOneMachineAreNotPaced) {
  start();
  EXPECT_TRUE(congestion_controls().empty());
  Node other(*transport_, "");
  const auto [there, here] = connect_nodes(other, *node_);
  ASSERT_NE(there, 0u);
  EXPECT_THAT(congestion_controls(), ElementsAre("reno", "reno"));
}

TEST(TcpSockets, OneMachineIsToldByTheAddresses) {
  const auto one = [](const char* ours, const char* theirs) {
    return tcp::on_one_machine(*parse_address(ours), *parse_address(theirs));
  };
  EXPECT_TRUE(one("127.0.0.1:1", "127.0.0.1:2"));
  EXPECT_TRUE(one("127.0.0.1:1", "127.9.9.9:2"));
  EXPECT_TRUE(one("[::1]:1", "[::1]:2"));
  EXPECT_TRUE(one("192.0.2.1:1", "192.0.2.1:2"));
  EXPECT_TRUE(one("[2001:db8::1]:1", "[2001:db8::1]:2"));
  EXPECT_FALSE(one("192.0.2.1:1", "192.0.2.2:1"));
  EXPECT_FALSE(one("128.0.0.1:1", "128.0.0.2:1"));
  EXPECT_FALSE(one("[2001:db8::1]:1", "[2001:db8::2]:1"));
  EXPECT_FALSE(one("192.0.2.1:1", "[2001:db8::2]:1"));
}

TEST(TcpSending, TheChoiceIsMeasuredInBoundedTimeAndKept) {
  const auto cost = tcp::measure_sending_cost(10'000'000'000);
  ASSERT_TRUE(cost.ok()) << cost.status();
  EXPECT_GT(cost->write_ns, 0);
  EXPECT_GT(cost->sendfile_ns, 0);
  EXPECT_EQ(tcp::measure_sending_cost(0).status().code(), absl::StatusCode::kDeadlineExceeded);

  using SendBy = TcpOptions::SendBy;
  EXPECT_TRUE(tcp::uses_sendfile(SendBy::kSendfile));
  EXPECT_FALSE(tcp::uses_sendfile(SendBy::kWrite));
  const bool first = tcp::uses_sendfile(SendBy::kMeasured);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(tcp::uses_sendfile(SendBy::kMeasured), first);
  EXPECT_EQ(TcpTransport().limits().copies_on_send, !first);
}

// Within a large message the driver lets the kernel gather before it wakes; that must not delay the
// message's end, nor the news that there will be none.
TEST_F(TcpTest, ALargeMessageInDribletsArrivesAndItsLossIsNoticed) {
  start();
  node_ = std::make_unique<Node>(*transport_, "127.0.0.1:0", 4, kBufferBytes);
  const uint32_t length = kMaxBlockBytes;
  std::string message(length, '\0');
  fill(reinterpret_cast<uint8_t*>(message.data()), message.size(), 3);
  RawPeer peer(node_->endpoint->address());
  peer.say(preamble(tcp::kMagic, tcp::kProtocolVersion, kBufferBytes));
  ASSERT_TRUE(run([&] { return !node_->accepted.empty(); }));
  const ConnectionId id = node_->accepted.back();
  ASSERT_TRUE(node_->post_receives(id, 2));
  ASSERT_TRUE(run([&] { return peer.heard().size() >= tcp::kPreambleBytes + tcp::kControlBytes; }));
  const std::string bytes =
      frame(1, length, message) + frame(1, length, message.substr(0, 100'000));
  size_t at = 0;
  ASSERT_TRUE(run([&] {
    const size_t piece = std::min<size_t>(30'001, bytes.size() - at);
    if (piece > 0) peer.say(std::string_view(bytes).substr(at, piece));
    at += piece;
    return at == bytes.size() && node_->link(id).received.size() == 1;
  }));
  EXPECT_TRUE(has_content(node_->link(id).received[0], length, 3));
  for (int i = 0; i < 10; ++i) node_->pump();
  peer.leave();
  const int64_t begin = system_clock().monotonic_ns();
  ASSERT_TRUE(run([&] { return node_->link(id).closed; }));
  EXPECT_LT(system_clock().monotonic_ns() - begin, 5'000'000'000);
  EXPECT_EQ(node_->link(id).receive_failed, 1u);
}

TEST_F(TcpTest, CountersAreTheBytesOfTheSocketExactly) {
  start();
  ConnectionId id = 0;
  auto peer = let_in(2, &id);
  const std::string said =
      totals(2, 0, 3) + frame(1, 700, std::string(700, 'x')) + frame(1, 1, "y");
  peer->say(said);
  ASSERT_TRUE(run([&, id] { return node_->link(id).received.size() == 2; }));
  ASSERT_TRUE(node_->send(id, 1, 1));
  ASSERT_TRUE(node_->send(id, 20'000, 2));
  ASSERT_TRUE(node_->send(id, 300, 3));
  // Preamble, the update of credits, one or more of receipts, and three messages.
  const size_t least =
      tcp::kPreambleBytes + 2 * tcp::kControlBytes + 3 * tcp::kHeaderBytes + 20'301;
  ASSERT_TRUE(run([&] { return peer->heard().size() >= least; }));
  const TransportCounters counters = node_->endpoint->counters();
  EXPECT_EQ(counters.sent_bytes, peer->heard().size());
  EXPECT_EQ(counters.received_bytes, tcp::kPreambleBytes + said.size());
  EXPECT_EQ(counters.sent_messages, 3u);
  EXPECT_EQ(counters.received_messages, 2u);
  EXPECT_GT(counters.system_calls, 10u);
}

TEST_F(TcpTest, HalfOpenConnectionsAreBoundedAndHoldNobodyUp) {
  TcpOptions options;
  options.max_half_open = 8;
  options.handshake_timeout_ms = 60'000;
  start(options);
  std::vector<std::unique_ptr<RawPeer>> silent;
  const auto open_ones = [&] {
    return std::count_if(silent.begin(), silent.end(), [](auto& peer) { return !peer->ended(); });
  };
  // Of them, some say a part of their preamble.
  for (int i = 0; i < 40; ++i) {
    silent.push_back(std::make_unique<RawPeer>(node_->endpoint->address()));
    if (i % 3 == 0) silent.back()->say(preamble().substr(0, 20));
  }
  expect_node_still_works();
  ASSERT_TRUE(run([&] { return open_ones() <= 8; })) << open_ones();
  EXPECT_FALSE(silent.back()->ended()) << "the oldest go first";
}

TEST_F(TcpTest, AFloodOfHalfOpenConnectionsLetsPeersInThatSpeak) {
  TcpOptions options;
  options.max_half_open = 16;
  options.handshake_timeout_ms = 60'000;
  start(options);
  const std::string address = node_->endpoint->address();
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    std::deque<RawPeer> silent;
    while (!stop) {
      silent.emplace_back(address);
      if (silent.size() > 30) silent.pop_front();
    }
  });
  for (int i = 0; i < 20; ++i) expect_node_still_works();
  stop = true;
  flood.join();
}

// A limit on descriptors for as long as it lives.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t most) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit few{most, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

// A process of its own, with descriptors of its own, that connects and says nothing.
class SilentProcess {
 public:
  explicit SilentProcess(const std::string& address) {
    auto parsed = parse_address(address);
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    child_ = fork();
    if (child_ == 0) {
      char count = 0;
      while (read(ends[1], &count, 1) == 1) {
        for (char i = 0; i < count; ++i) {
          const int fd = socket(AF_INET, SOCK_STREAM, 0);
          if (fd < 0 || ::connect(fd, parsed->get(), parsed->length) != 0) _exit(1);
        }
        if (write(ends[1], &count, 1) != 1) _exit(1);
      }
      _exit(0);
    }
    close(ends[1]);
    orders_.reset(ends[0]);
  }
  ~SilentProcess() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  // Returns once the kernel has them all, in the listener's queue.
  void connect(char count) {
    EXPECT_EQ(write(orders_.get(), &count, 1), 1);
    EXPECT_EQ(read(orders_.get(), &count, 1), 1);
  }

 private:
  UniqueFd orders_;
  pid_t child_ = -1;
};

TEST_F(TcpTest, AFloodLeavesDescriptorsForTheRestOfTheProcess) {
  start();
  const FewDescriptors few(200);
  SilentProcess flood(node_->endpoint->address());
  flood.connect(100);
  flood.connect(60);
  for (int i = 0; i < 50; ++i) node_->pump();
  std::vector<UniqueFd> files;
  for (int i = 0; i < 30; ++i) {
    files.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(files.back()) << i << ": " << std::strerror(errno);
  }
  expect_node_still_works();
}

TEST_F(TcpTest, WithoutDescriptorsItNeitherSpinsNorStopsAcceptingForGood) {
  start();
  const FewDescriptors few(200);
  SilentProcess flood(node_->endpoint->address());
  std::vector<UniqueFd> files;
  for (UniqueFd fd(dup(0)); fd; fd.reset(dup(0))) files.push_back(std::move(fd));
  flood.connect(20);
  const uint64_t calls = node_->endpoint->counters().system_calls;
  for (int i = 0; i < 50; ++i) node_->pump();
  EXPECT_LT(node_->endpoint->counters().system_calls - calls, 75u);
  files.clear();
  expect_node_still_works();
}

TEST_F(TcpTest, AcceptedConnectionsLeaveSomeForConnecting) {
  TcpOptions options;
  options.max_connections = 3;
  options.max_accepted = 2;
  start(options);
  ConnectionId first = 0;
  ConnectionId second = 0;
  auto one = let_in(0, &first);
  auto two = let_in(0, &second);
  RawPeer three(node_->endpoint->address());
  ASSERT_TRUE(run([&] { return three.ended(); }));
  EXPECT_TRUE(node_->endpoint->connect("127.0.0.1:1").ok());
}

TEST_F(TcpTest, ConnectionsBeyondTheLimitAreTurnedAway) {
  TcpOptions options;
  options.max_connections = 2;
  start(options);
  ConnectionId first = 0;
  ConnectionId second = 0;
  auto one = let_in(0, &first);
  auto two = let_in(0, &second);
  RawPeer three(node_->endpoint->address());
  ASSERT_TRUE(run([&] { return three.ended(); }));
  EXPECT_TRUE(three.heard().empty());
  EXPECT_EQ(node_->endpoint->connect("127.0.0.1:1").status().code(),
            absl::StatusCode::kResourceExhausted);
  one->leave();
  ASSERT_TRUE(run([&, first] { return node_->link(first).closed; }));
  ConnectionId fourth = 0;
  auto four = let_in(0, &fourth);
  EXPECT_NE(fourth, 0u);
}

TEST_F(TcpTest, WorksOverIpv6) {
  TcpTransport transport;
  auto probe = parse_address("[::1]:0");
  ASSERT_TRUE(probe.ok());
  UniqueFd fd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || bind(fd.get(), probe->get(), probe->length) != 0)
    GTEST_SKIP() << "no IPv6 on this machine";
  Node a(transport, "[::1]:0");
  Node b(transport, "");
  EXPECT_THAT(a.endpoint->address(), testing::StartsWith("[::1]:"));
  EXPECT_NE(connect_nodes(b, a).first, 0u);
}

TEST_F(TcpTest, ATakenPortIsAnErrorThatSaysWhatToDo) {
  start();
  auto second = transport_->open(*node_->arena, node_->endpoint->address());
  EXPECT_THAT(second.status().ToString(), HasSubstr(node_->endpoint->address()));
  EXPECT_THAT(second.status().ToString(), HasSubstr("choose another port"));
  auto foreign = transport_->open(*node_->arena, "192.0.2.1:7000");
  EXPECT_THAT(foreign.status().ToString(), HasSubstr("no such address"));
}

TEST(TcpAddress, ReadsAndWritesAddresses) {
  for (const char* text : {"127.0.0.1:0", "10.1.2.3:65535", "[::1]:7001", "[fe80::1]:1"}) {
    auto address = parse_address(text);
    ASSERT_TRUE(address.ok()) << text;
    EXPECT_EQ(to_string(*address), text);
  }
  EXPECT_EQ(to_string(*parse_address("localhost:80")), "127.0.0.1:80");
  for (const char* text :
       {"", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:8x",
        "example.org:80", "::1:80", "[::1]", "[]:80", "[1.2.3.4]:80", ":80", "1.2.3:80"}) {
    EXPECT_EQ(parse_address(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace sluice
