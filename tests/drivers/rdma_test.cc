// What is special to rdma, on real verbs: hostile and broken peers, dead ones, missing and failing
// devices. Skipped, with the reason, where there is no RDMA device.
#include "drivers/rdma/rdma.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/status.h"
#include "drivers/rdma/probe.h"
#include "drivers/rdma/wire.h"
#include "tests/drivers/node.h"
#include "tests/drivers/rdma_child.h"
#include "tests/drivers/rdma_here.h"
#include "tests/drivers/rdma_raw_peer.h"

namespace sluice {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

constexpr uint64_t kMax = 128 << 10;
constexpr int64_t kSecondNs = 1'000'000'000;

std::vector<uint8_t> hello(uint32_t version = rdma::kProtocolVersion, uint64_t max = kMax,
                           uint32_t flags = 0) {
  rdma::Hello made;
  made.version = version;
  made.max_message_bytes = max;
  made.flags = flags;
  made.receive_depth = 16;
  std::vector<uint8_t> bytes(rdma::kHelloBytes);
  rdma::encode_hello(bytes.data(), made);
  return bytes;
}

std::vector<uint8_t> frame(const rdma::Frame& from) {
  std::vector<uint8_t> bytes(rdma::kFrameBytes);
  rdma::encode_frame(bytes.data(), from);
  return bytes;
}

class RdmaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (rdma_address().empty()) GTEST_SKIP() << why_no_rdma();
  }
  void start(const RdmaOptions& options = {}, size_t buffers = 24,
             size_t buffer_bytes = 128 << 10) {
    transport_ = std::make_unique<RdmaTransport>(options);
    node_ = std::make_unique<Node>(*transport_, rdma_address() + ":0", buffers, buffer_bytes);
    ASSERT_NE(node_->endpoint, nullptr);
  }
  bool run(const std::function<bool()>& done) { return run_until({node_.get()}, done); }
  bool run(RawRdmaPeer* peer, const std::function<bool()>& done) {
    return run([&] {
      peer->pump();
      return done();
    });
  }
  const Link* closed_link() {
    for (const auto& [id, link] : node_->links) {
      if (link.closed) return &link;
    }
    return nullptr;
  }
  // What the node says about a peer with this private data, which has to hear that it is refused.
  std::string verdict_on(const std::vector<uint8_t>& private_data) {
    RawRdmaPeer peer(node_->endpoint->address(), private_data);
    node_->links.clear();
    EXPECT_TRUE(run(&peer, [&] { return closed_link() != nullptr && peer.rejected(); }));
    if (closed_link() == nullptr) return "";
    EXPECT_FALSE(closed_link()->up);
    EXPECT_FALSE(rdma::describe_refusal(peer.heard(), 1).ok());
    EXPECT_EQ(load_le<uint64_t>(peer.heard().data()), rdma::kRefusalMagic);
    return closed_link()->close_status.ToString();
  }
  // Lets a raw peer in, with `credits` receive buffers posted for it and announced to it.
  std::unique_ptr<RawRdmaPeer> let_in(size_t credits, ConnectionId* id) {
    auto peer = std::make_unique<RawRdmaPeer>(node_->endpoint->address(), hello());
    node_->accepted.clear();
    EXPECT_TRUE(run(peer.get(), [&] { return !node_->accepted.empty() && peer->connected(); }));
    if (node_->accepted.empty()) return peer;
    *id = node_->accepted.back();
    if (credits > 0) {
      EXPECT_TRUE(node_->post_receives(*id, credits));
      EXPECT_TRUE(run(peer.get(), [&] {
        return !peer->frames().empty() && peer->frames().back().granted == credits;
      }));
    }
    return peer;
  }
  // What the node says about a peer that does `wrong`.
  std::string verdict_after(size_t credits, const std::function<void(RawRdmaPeer*)>& wrong) {
    ConnectionId id = 0;
    auto peer = let_in(credits, &id);
    wrong(peer.get());
    EXPECT_TRUE(run(peer.get(), [&] { return node_->link(id).closed; }));
    EXPECT_EQ(node_->link(id).receive_failed + node_->link(id).received_total, credits);
    node_->link(id).received.clear();
    EXPECT_TRUE(node_->pool_is_whole());
    return node_->link(id).close_status.ToString();
  }
  std::string verdict_after_frame(const rdma::Frame& wrong) {
    return verdict_after(2, [&](RawRdmaPeer* peer) { peer->send_control(frame(wrong)); });
  }
  void expect_node_still_works() {
    Node other(*transport_, "", 8, node_->arena->buffer_bytes());
    ASSERT_NE(other.endpoint, nullptr);
    const auto [there, here] = connect_nodes(other, *node_);
    ASSERT_NE(there, 0u);
    ASSERT_TRUE(node_->post_receives(here, 1));
    ASSERT_TRUE(run_until({&other, node_.get()},
                          [&, id = there] { return other.endpoint->credits(id) == 1; }));
    ASSERT_TRUE(other.send(there, 1000, 9));
    ASSERT_TRUE(run_until({&other, node_.get()},
                          [&, id = here] { return node_->link(id).received.size() == 1; }));
    EXPECT_TRUE(has_content(node_->link(here).received.front(), 1000, 9));
    node_->link(here).received.clear();
  }

  std::unique_ptr<RdmaTransport> transport_;
  std::unique_ptr<Node> node_;
};

TEST_F(RdmaTest, PeersThatCannotBeTalkedToAreRefusedWithTheReason) {
  start();
  EXPECT_THAT(verdict_on({}), HasSubstr("does not speak"));
  EXPECT_THAT(verdict_on(std::vector<uint8_t>(40, 'x')), HasSubstr("does not speak"));
  EXPECT_THAT(verdict_on(hello(2)), HasSubstr("protocol version 2"));
  EXPECT_THAT(verdict_on(hello(1, 4096)), HasSubstr("same arena buffer size"));
  EXPECT_THAT(verdict_on(hello(1, kMax, 4)), HasSubstr("features"));
  EXPECT_TRUE(node_->accepted.empty());
  expect_node_still_works();
}

TEST_F(RdmaTest, TheRefusedSideHearsTheReasonToo) {
  start();
  Node other(*transport_, "", 4, 4096);
  auto id = other.endpoint->connect(node_->endpoint->address());
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(run_until({&other, node_.get()},
                        [&] { return other.link(*id).closed && closed_link() != nullptr; }));
  EXPECT_FALSE(other.link(*id).up);
  EXPECT_THAT(other.link(*id).close_status.ToString(), HasSubstr("same arena buffer size"));
  EXPECT_THAT(other.link(*id).close_status.ToString(), HasSubstr("131072 bytes"));
  EXPECT_THAT(closed_link()->close_status.ToString(), HasSubstr("same arena buffer size"));
}

TEST_F(RdmaTest, AServerThatIsNoSluiceIsAnErrorOfThatConnection) {
  start();
  const std::string host = rdma_address();
  using Answer = RawRdmaPeer::Answer;
  for (Answer answer : {Answer::kAccept, Answer::kReject}) {
    for (size_t length : {size_t{0}, size_t{40}, size_t{140}}) {
      RawRdmaPeer server(host, std::vector<uint8_t>(length, 'z'), answer);
      auto id = node_->endpoint->connect(server.listen_address());
      ASSERT_TRUE(id.ok());
      ASSERT_TRUE(run(&server, [&] { return node_->link(*id).closed; }));
      EXPECT_FALSE(node_->link(*id).up);
      EXPECT_THAT(node_->link(*id).close_status.ToString(), HasSubstr("does not speak"));
      EXPECT_THAT(node_->link(*id).close_status.ToString(), HasSubstr(server.listen_address()));
    }
  }
  expect_node_still_works();
}

TEST_F(RdmaTest, GarbageControlFramesCostTheirConnectionAlone) {
  start();
  EXPECT_THAT(verdict_after_frame({99, 0, 0, 0, 0}), HasSubstr("unknown type 99"));
  EXPECT_THAT(verdict_after_frame({1, 9, 0, 0, 0}), HasSubstr("9 control frames of 1 sent"));
  EXPECT_THAT(verdict_after_frame({1, 0, 1, 1, 0}), HasSubstr("1 blocks of 0 sent"));
  EXPECT_THAT(verdict_after_frame({1, 0, 0, 17, 0}), HasSubstr("its receive depth is 16"));
  const std::vector<uint8_t> noise(64, 0xee);
  for (size_t length : {size_t{0}, size_t{31}, size_t{33}, size_t{64}}) {
    EXPECT_THAT(
        verdict_after(
            2, [&](RawRdmaPeer* peer) { peer->send_control(std::span(noise).first(length)); }),
        HasSubstr("control frame of " + std::to_string(length) + " bytes"));
  }
  const std::vector<uint8_t> long_noise(4096, 0xee);
  EXPECT_THAT(verdict_after(2, [&](RawRdmaPeer* peer) { peer->send_control(long_noise); }),
              HasSubstr("longer than the 64 bytes"));
  EXPECT_THAT(verdict_after(2,
                            [](RawRdmaPeer* peer) {
                              peer->send_control(frame({1, 0, 0, 5, 0}));
                              peer->send_control(frame({1, 0, 0, 4, 0}));
                            }),
              HasSubstr("go back"));
  EXPECT_THAT(verdict_after(2,
                            [](RawRdmaPeer* peer) {
                              peer->send_control(frame({2, 0, 0, 0, 0}));
                              peer->send_control(frame({2, 0, 0, 0, 0}));
                            }),
              HasSubstr("second close frame"));
  expect_node_still_works();
}

TEST_F(RdmaTest, BlocksThatWereNotGrantedCostTheirConnectionAlone) {
  start();
  const std::vector<uint8_t> block(100, 'b');
  EXPECT_THAT(verdict_after(2, [&](RawRdmaPeer* peer) { peer->send_block({}); }),
              HasSubstr("a message of 0 bytes"));
  EXPECT_THAT(verdict_after(2, [&](RawRdmaPeer* peer) { peer->send_block_with_number(block); }),
              HasSubstr("not a plain send"));
  const std::vector<uint8_t> huge(kMax + 1, 'h');
  EXPECT_THAT(verdict_after(2, [&](RawRdmaPeer* peer) { peer->send_block(huge); }),
              HasSubstr("longer than the 131072 bytes"));
  EXPECT_THAT(verdict_after(2,
                            [&](RawRdmaPeer* peer) {
                              peer->send_control(frame({2, 0, 0, 0, 0}));
                              peer->send_block(block);
                            }),
              AnyOf(HasSubstr("after its close frame"), HasSubstr("with 0 blocks sent; 1 came")));
  expect_node_still_works();
}

// The device refuses a block beyond those posted; the peer's queue pair fails, not the node's.
TEST_F(RdmaTest, AFloodBeyondItsCreditsFailsAtThePeer) {
  start();
  ConnectionId id = 0;
  auto peer = let_in(2, &id);
  const std::vector<uint8_t> block(100, 'b');
  for (int i = 0; i < 5; ++i) peer->send_block(block);
  ASSERT_TRUE(run(peer.get(), [&] { return peer->failure() != IBV_WC_SUCCESS; }));
  EXPECT_EQ(peer->failure(), IBV_WC_RNR_RETRY_EXC_ERR);
  peer.reset();
  ASSERT_TRUE(run([&] { return node_->link(id).closed; }));
  EXPECT_FALSE(node_->link(id).close_status.ok());
  EXPECT_EQ(node_->link(id).received_total, 2u);
  node_->link(id).received.clear();
  EXPECT_TRUE(node_->pool_is_whole());
  expect_node_still_works();
}

TEST_F(RdmaTest, AFloodOfControlFramesFailsAtThePeerToo) {
  start();
  ConnectionId id = 0;
  auto peer = let_in(0, &id);
  // All at once, while the node does not look: only as many fit as there are receives.
  for (uint32_t i = 0; i < 40; ++i) peer->send_control(frame({1, 0, 0, 0, 0}));
  const int64_t until = system_clock().monotonic_ns() + 10 * kSecondNs;
  while (peer->failure() == IBV_WC_SUCCESS && system_clock().monotonic_ns() < until) peer->pump();
  EXPECT_EQ(peer->failure(), IBV_WC_RNR_RETRY_EXC_ERR);
  peer.reset();
  ASSERT_TRUE(run([&] { return node_->link(id).closed; }));
  expect_node_still_works();
}

TEST_F(RdmaTest, ACloseThatThePeerIgnoresEndsInTime) {
  RdmaOptions options;
  options.close_timeout_ms = 200;
  start(options);
  ConnectionId id = 0;
  auto peer = let_in(2, &id);
  node_->endpoint->close(id);
  ASSERT_TRUE(run([&, id] { return node_->link(id).closed; }));
  EXPECT_THAT(node_->link(id).close_status.ToString(), HasSubstr("no progress for 200 ms"));
  EXPECT_TRUE(node_->pool_is_whole());
}

TEST_F(RdmaTest, ConnectingToAPeerThatNeverAnswersEndsInTime) {
  RdmaOptions options;
  options.connect_timeout_ms = 300;
  start(options);
  // Listens, but nobody takes its events.
  RawRdmaPeer silent(rdma_address(), {}, RawRdmaPeer::Answer::kAccept);
  auto id = node_->endpoint->connect(silent.listen_address());
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(run([&] { return node_->link(*id).closed; }));
  EXPECT_EQ(node_->link(*id).close_status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(RdmaTest, ConnectionsBeyondTheLimitAreRefused) {
  RdmaOptions options;
  options.max_connections = 1;
  start(options);
  ConnectionId id = 0;
  auto first = let_in(0, &id);
  RawRdmaPeer second(node_->endpoint->address(), hello());
  ASSERT_TRUE(run(&second, [&] { return second.rejected(); }));
  EXPECT_THAT(rdma::describe_refusal(second.heard(), kMax).ToString(),
              HasSubstr("as many connections"));
  EXPECT_EQ(node_->endpoint->connect(node_->endpoint->address()).status().code(),
            absl::StatusCode::kResourceExhausted);
  first.reset();
  ASSERT_TRUE(run([&] { return node_->link(id).closed; }));
  expect_node_still_works();
}

// One block of every length around each power of two and each multiple of the wire's packet size.
TEST_F(RdmaTest, BlocksOfEveryLengthArrive) {
  start({}, 8, kBufferBytes);
  Node sender(*transport_, "", 8, kBufferBytes);
  const auto [there, here] = connect_nodes(sender, *node_);
  ASSERT_NE(there, 0u);
  std::set<uint32_t> lengths = {1, kBufferBytes - 1, kBufferBytes};
  for (uint32_t size = 2; size <= kMaxBlockBytes; size *= 2) {
    lengths.insert({size - 1, size, size + 1});
  }
  for (uint32_t packets : {3u, 5u, 17u, 255u}) {
    lengths.insert({packets * 4096 - 1, packets * 4096, packets * 4096 + 1});
  }
  for (uint32_t length : lengths) {
    ASSERT_TRUE(node_->post_receives(here, 1));
    ASSERT_TRUE(run_until({&sender, node_.get()}, [&, id = there] {
      return sender.endpoint->credits(id) == 1;
    })) << length;
    ASSERT_TRUE(sender.send(there, length, length));
    ASSERT_TRUE(run_until({&sender, node_.get()}, [&, id = here] {
      return node_->link(id).received.size() == 1;
    })) << length;
    EXPECT_TRUE(has_content(node_->link(here).received.front(), length, length)) << length;
    node_->link(here).received.clear();
  }
}

// Sends as long as there is credit, until the connection is over.
void send_until_closed(Node* node, ConnectionId id, uint32_t bytes,
                       const std::function<void()>& each) {
  uint64_t count = 0;
  EXPECT_TRUE(run_until({node}, [&] {
    while (node->try_send(id, bytes, count)) ++count;
    each();
    return node->link(id).closed;
  }));
}

TEST_F(RdmaTest, APeerKilledMidTransferIsNoticedAndTheOthersGoOn) {
  start();
  RdmaChild child("receive");
  RdmaChild healthy("receive");
  const std::string address = child.line();
  auto id = node_->endpoint->connect(address);
  auto other = node_->endpoint->connect(healthy.line());
  ASSERT_TRUE(id.ok() && other.ok());
  ASSERT_TRUE(run([&] { return node_->endpoint->credits(*id) > 0; }));
  int64_t killed_at = 0;
  uint64_t other_sent = 0;
  send_until_closed(node_.get(), *id, 100'000, [&] {
    other_sent += node_->try_send(*other, 1000, 5) ? 1 : 0;
    if (killed_at == 0 && node_->link(*id).sent >= 20) {
      child.kill();
      killed_at = system_clock().monotonic_ns();
    }
  });
  EXPECT_LT(system_clock().monotonic_ns() - killed_at, 10 * kSecondNs);
  const Link& link = node_->link(*id);
  EXPECT_FALSE(link.close_status.ok());
  EXPECT_THAT(link.close_status.ToString(), HasSubstr(address));
  EXPECT_FALSE(node_->link(*other).closed);
  const uint64_t before = node_->link(*other).sent;
  ASSERT_TRUE(run([&] {
    node_->try_send(*other, 1000, 5);
    return node_->link(*other).sent > before + 10;
  }));
  node_->endpoint->close(*other);
  ASSERT_TRUE(run([&] { return node_->link(*other).closed; }));
  EXPECT_TRUE(node_->link(*other).close_status.ok()) << node_->link(*other).close_status;
  EXPECT_TRUE(node_->pool_is_whole());
  expect_node_still_works();
}

TEST_F(RdmaTest, APeerThatTakesNothingMoreStallsItsOwnConnectionOnly) {
  start();
  RdmaChild stalled("stall");
  RdmaChild healthy("receive");
  auto id = node_->endpoint->connect(stalled.line());
  auto other = node_->endpoint->connect(healthy.line());
  ASSERT_TRUE(id.ok() && other.ok());
  uint64_t sent = 0;
  uint64_t other_sent = 0;
  ASSERT_TRUE(run([&] {
    if (node_->try_send(*id, 5000, sent)) ++sent;
    if (node_->try_send(*other, 5000, other_sent)) ++other_sent;
    return node_->link(*other).sent >= 200;
  }));
  EXPECT_EQ(sent, 4u);
  EXPECT_EQ(node_->endpoint->credits(*id), 0u);
  EXPECT_EQ(node_->link(*id).sent, 4u);
  EXPECT_FALSE(node_->link(*id).closed);
}

// An endpoint in wait() sleeps, and a message wakes it.
TEST_F(RdmaTest, AMessageEndsAWait) {
  start();
  Node sender(*transport_, "");
  const auto [there, here] = connect_nodes(sender, *node_);
  ASSERT_TRUE(node_->post_receives(here, 1));
  ASSERT_TRUE(run_until({&sender, node_.get()},
                        [&, id = there] { return sender.endpoint->credits(id) == 1; }));
  std::thread late([&, id = there] {
    system_clock().sleep_ns(kSecondNs / 5);
    EXPECT_TRUE(sender.try_send(id, 100, 1));
    sender.pump();
  });
  const int64_t begin = system_clock().monotonic_ns();
  const uint64_t calls = node_->endpoint->counters().system_calls;
  size_t waits = 0;
  while (node_->link(here).received.empty() && waits < 1000) {
    node_->endpoint->wait(20 * kSecondNs);
    node_->pump();
    ++waits;
  }
  late.join();
  EXPECT_LT(system_clock().monotonic_ns() - begin, 2 * kSecondNs);
  EXPECT_LT(waits, 50u);
  EXPECT_LT(node_->endpoint->counters().system_calls - calls, 500u);
}

TEST_F(RdmaTest, AddressesWithoutADeviceAreErrorsThatSayWhatToDo) {
  start();
  auto said = [&](const std::string& address) {
    return transport_->open(*node_->arena, address).status().ToString();
  };
  EXPECT_THAT(said("192.0.2.1:7000"),
              AnyOf(HasSubstr("no such address"), HasSubstr("no active RDMA port")));
  EXPECT_THAT(said(rdma_address() + ":0%nope0"), HasSubstr("nope0"));
  EXPECT_THAT(said(rdma_address() + ":0%"), HasSubstr("no device after the %"));
  RdmaOptions options;
  options.device = "nope0";
  RdmaTransport picky(options);
  EXPECT_THAT(picky.open(*node_->arena, "").status().ToString(), HasSubstr("\"nope0\""));
  if (std::system("ip address add 10.99.0.1/32 dev lo") == 0) {
    // An address of this machine, but of no RDMA interface: there is no GID for it.
    EXPECT_THAT(said("10.99.0.1:0"), HasSubstr("GID"));
    EXPECT_EQ(std::system("ip address del 10.99.0.1/32 dev lo"), 0);
  }
}

TEST_F(RdmaTest, TooSmallALimitOnLockedMemoryIsAnErrorThatNamesIt) {
  if (geteuid() != 0) GTEST_SKIP() << "not root: cannot change the user";
  RdmaChild child("memlock");
  const std::string line = child.line();
  EXPECT_THAT(line, HasSubstr("limit on locked memory is 64 KiB"));
  EXPECT_THAT(line, HasSubstr("ulimit -l"));
  EXPECT_THAT(line, HasSubstr("LimitMEMLOCK"));
}

// The network interface that has the address; empty when none has.
std::string interface_of(const std::string& address) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return "";
  std::string name;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    char text[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr, text,
              sizeof text);
    if (address == text) name = one->ifa_name;
  }
  freeifaddrs(all);
  return name;
}

TEST_F(RdmaTest, ALinkThatGoesDownClosesAndOneThatComesUpServesAgain) {
  start();
  // Only where the machine's own network does not depend on it.
  const std::string link = interface_of(rdma_address());
  if (std::getenv("SLUICE_RDMA_ADDRESS") == nullptr || link.empty()) {
    GTEST_SKIP() << "not in the test machine: the link stays up";
  }
  Node other(*transport_, "");
  const auto [there, here] = connect_nodes(other, *node_);
  ASSERT_NE(there, 0u);
  ASSERT_TRUE(node_->post_receives(here, 3));
  ASSERT_EQ(std::system(("ip link set " + link + " down").c_str()), 0);
  ASSERT_TRUE(run_until({&other, node_.get()}, [&, a = there, b = here] {
    return other.link(a).closed && node_->link(b).closed;
  }));
  for (const auto& status : {other.link(there).close_status, node_->link(here).close_status}) {
    EXPECT_THAT(status.ToString(), AllOf(HasSubstr("port 1"), HasSubstr("is down")));
  }
  EXPECT_EQ(node_->link(here).receive_failed, 3u);
  EXPECT_TRUE(node_->pool_is_whole());
  const auto while_down = transport_->open(*node_->arena, rdma_address() + ":0");
  EXPECT_THAT(while_down.status().ToString(), HasSubstr("DOWN"));
  EXPECT_THAT(while_down.status().ToString(), HasSubstr("ip link set"));
  auto id = other.endpoint->connect(node_->endpoint->address());
  if (id.ok()) {
    ASSERT_TRUE(run_until({&other, node_.get()}, [&] { return other.link(*id).closed; }));
    EXPECT_FALSE(other.link(*id).up);
  }
  ASSERT_EQ(std::system(("ip link set " + link + " up").c_str()), 0);
  ASSERT_TRUE(run([&] { return rdma::examine().usable && !rdma_address().empty(); }));
  // The address's GID comes a little later than the port: peers connect again until they are let
  // in.
  bool up = false;
  ASSERT_TRUE(run_until({&other, node_.get()}, [&] {
    if (id.ok() && other.link(*id).up) up = true;
    if (!up && (!id.ok() || other.link(*id).closed)) {
      id = other.endpoint->connect(node_->endpoint->address());
    }
    // Both sides have it: accepted before the link went down, and again.
    return up && node_->accepted.size() > 1;
  })) << (id.ok() ? other.link(*id).close_status : id.status());
  expect_node_still_works();
}

TEST_F(RdmaTest, TheReportNamesDevicePortAndLimit) {
  const rdma::Report report = rdma::examine();
  EXPECT_TRUE(report.usable);
  EXPECT_TRUE(report.fix.empty());
  for (const char* part : {"port 1: ACTIVE", "MTU", "RoCE v2", "locked memory"}) {
    EXPECT_THAT(report.reason, HasSubstr(part));
  }
}

}  // namespace
}  // namespace sluice
