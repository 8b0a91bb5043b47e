// Calls that gRPC does not carry end as its calls do: a node cannot tell.
#include "tests/control/calls/direct_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "control/peers/peer_calls.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using Code = grpc::StatusCode;

// Keeps what is on its way to those named, until they are named no more.
class HoldingNetwork final : public DirectNetwork {
 public:
  void carry(const DirectMessage& message, std::function<void()> deliver) override {
    {
      const std::lock_guard lock(mutex_);
      if (to_.contains(message.to)) {
        held_.push_back(std::move(deliver));
        return;
      }
    }
    DirectNetwork::carry(message, std::move(deliver));
  }
  void hold(const std::string& to) {
    const std::lock_guard lock(mutex_);
    to_.insert(to);
  }
  void release() {
    std::vector<std::function<void()>> held;
    {
      const std::lock_guard lock(mutex_);
      to_.clear();
      held.swap(held_);
    }
    for (const auto& deliver : held) deliver();
  }
  size_t held() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }

 private:
  std::mutex mutex_;
  std::set<std::string> to_;
  std::vector<std::function<void()>> held_;
};

constexpr char kTest[] = "the test";
constexpr int64_t kLongMs = 60'000;
constexpr int64_t kShortMs = 50;

class DirectCalls : public testing::Test {
 protected:
  static TestCluster::Options options(HoldingNetwork& network) {
    TestCluster::Options options;
    options.nodes = 1;
    options.replicas = 1;
    options.slot_bits = 2;
    options.calls = &network;
    return options;
  }
  std::unique_ptr<PeerLink> dial(const std::string& node) {
    return dialer_->dial({load_cluster(cluster_.block())->uuid, node}, address_);
  }
  grpc::Status read_clock(PeerLink& link, int64_t timeout_ms, v1::ClockReply* reply) {
    grpc::ClientContext context;
    set_timeout(context, timeout_ms);
    return link.peer().ReadClock(&context, {}, reply);
  }
  // Some pages for one export.
  void fill() {
    const auto client = cluster_.client();
    const auto import = client->import();
    for (int i = 0; i < kRecords; ++i) {
      ASSERT_TRUE(import->put(fmt::format("k{:04}", i), std::string(40'000, 'v')).ok());
    }
    ASSERT_EQ(import->finish().failed, 0u);
  }
  static v1::ExportRequest everything() {
    v1::ExportRequest request;
    request.set_slots(4);
    return request;
  }

  static constexpr int kRecords = 800;
  HoldingNetwork network_;
  TestCluster cluster_{options(network_)};
  const std::string address_ = cluster_.node(0).control_address();
  const std::unique_ptr<PeerDialer> dialer_ = network_.make_dialer(kTest);
};

TEST_F(DirectCalls, AreAnsweredByTheNodeThatIsMeant) {
  v1::ClockReply reply;
  EXPECT_TRUE(read_clock(*dial("n1"), kLongMs, &reply).ok());
  EXPECT_GT(reply.stamp(), 0u);
  const grpc::Status other = read_clock(*dial("n2"), kLongMs, &reply);
  EXPECT_EQ(other.error_code(), Code::UNAVAILABLE);
  EXPECT_THAT(other.error_message(), HasSubstr("at its address is node n1 now"));
}

TEST_F(DirectCalls, FailAtOnceWhereNobodyListens) {
  const auto link = dial("n1");
  EXPECT_TRUE(link->connect(0));
  cluster_.stop(0);
  v1::ClockReply reply;
  EXPECT_FALSE(link->connect(0));
  EXPECT_EQ(read_clock(*link, kLongMs, &reply).error_code(), Code::UNAVAILABLE);
}

TEST_F(DirectCalls, EndAtTheirDeadlineWhenTheRequestIsLost) {
  network_.hold(address_);
  const auto link = dial("n1");
  v1::ClockReply reply;
  EXPECT_EQ(read_clock(*link, kShortMs, &reply).error_code(), Code::DEADLINE_EXCEEDED);
  PeerCalls<v1::Empty, v1::ClockReply> calls;
  const auto node = std::make_shared<PeerNode>("n1", address_, dial("n1"), system_clock());
  calls.ask(node, {}, kShortMs,
            [](PeerNode& to, auto* context, auto* request, auto* answer, auto done) {
              to.peer().async()->ReadClock(context, request, answer, std::move(done));
            });
  const auto answer = calls.next(kLongMs);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->status.error_code(), Code::DEADLINE_EXCEEDED);
  // What is carried out late reaches nobody.
  network_.release();
  EXPECT_EQ(reply.stamp(), 0u);
}

TEST_F(DirectCalls, AreCarriedOutThoughTheirAnswerIsLost) {
  const auto link = dial("n1");
  v1::ClockReply before;
  ASSERT_TRUE(read_clock(*link, kLongMs, &before).ok());
  network_.hold(kTest);
  v1::ObserveRequest request;
  request.set_stamp(before.stamp() + (uint64_t{3600'000} << 16));
  v1::Empty nothing;
  grpc::ClientContext context;
  set_timeout(context, kShortMs);
  EXPECT_EQ(link->peer().ObserveStamp(&context, request, &nothing).error_code(),
            Code::DEADLINE_EXCEEDED);
  network_.release();
  v1::ClockReply after;
  ASSERT_TRUE(read_clock(*link, kLongMs, &after).ok());
  EXPECT_GE(after.stamp(), request.stamp());
}

TEST_F(DirectCalls, CallBackWithTheAnswer) {
  const auto node = std::make_shared<PeerNode>("n1", address_, dial("n1"), system_clock());
  PeerCalls<v1::DigestsRequest, v1::DigestsReply> calls;
  v1::DigestsRequest request;
  request.set_slots(4);
  calls.ask(node, request, kLongMs,
            [](PeerNode& to, auto* context, auto* asked, auto* answer, auto done) {
              to.peer().async()->Digests(context, asked, answer, std::move(done));
            });
  const auto answer = calls.next(kLongMs);
  ASSERT_TRUE(answer.has_value());
  ASSERT_TRUE(answer->status.ok()) << answer->status.error_message();
  EXPECT_EQ(answer->reply.digests().size(), 4 * SlotDigest::kEncodedBytes);
}

// PeerCalls waits for them when it goes.
TEST_F(DirectCalls, EndWhenTheyAreCancelled) {
  network_.hold(address_);
  const auto node = std::make_shared<PeerNode>("n1", address_, dial("n1"), system_clock());
  {
    PeerCalls<v1::Empty, v1::ClockReply> calls;
    calls.ask(node, {}, kLongMs,
              [](PeerNode& to, auto* context, auto* asked, auto* answer, auto done) {
                to.peer().async()->ReadClock(context, asked, answer, std::move(done));
              });
    EXPECT_TRUE(calls.is_open("n1"));
  }
  EXPECT_EQ(network_.held(), 1u);
  grpc::ClientContext context;
  set_timeout(context, kLongMs);
  v1::ClockReply reply;
  grpc::Status status;
  std::thread caller([&] { status = node->peer().ReadClock(&context, {}, &reply); });
  EXPECT_TRUE(eventually(kLongMs, [&] { return network_.held() == 2; }));
  node->link().cancel(context);
  caller.join();
  EXPECT_EQ(status.error_code(), Code::CANCELLED);
}

TEST_F(DirectCalls, StreamTheirPagesInOrder) {
  fill();
  const auto stream = dial("n1")->export_slots(everything(), kLongMs);
  v1::ExportPage page;
  int records = 0;
  int pages = 0;
  while (stream->read(&page, kLongMs)) {
    records += page.items_size();
    ++pages;
  }
  EXPECT_TRUE(stream->status().ok()) << stream->status().error_message();
  EXPECT_EQ(records, kRecords);
  EXPECT_GT(pages, 16);
}

TEST_F(DirectCalls, EndAStreamThatIsLateOrCancelled) {
  fill();
  const auto link = dial("n1");
  v1::ExportPage page;
  {
    const auto stream = link->export_slots(everything(), kLongMs);
    ASSERT_TRUE(stream->read(&page, kLongMs));
    network_.hold(kTest);
    while (stream->read(&page, kShortMs)) {
    }
    EXPECT_EQ(stream->status().error_code(), Code::DEADLINE_EXCEEDED);
  }
  network_.release();
  grpc::ClientContext context;
  set_timeout(context, kLongMs);
  const auto reader = link->serving().Export(&context, everything());
  ASSERT_TRUE(reader->Read(&page));
  link->cancel(context);
  EXPECT_FALSE(reader->Read(&page));
  EXPECT_EQ(reader->Finish().error_code(), Code::CANCELLED);
}

// One whose reader stands still does not hold its node up.
TEST_F(DirectCalls, EndWhenTheirNodeStops) {
  fill();
  const auto link = dial("n1");
  grpc::ClientContext context;
  set_timeout(context, kLongMs);
  // More pages than are on their way at a time, by a call that nothing but its end stops.
  v1::ScanRequest request;
  request.set_values(true);
  const auto reader = link->peer().ScanSlot(&context, request);
  v1::ScanPage page;
  ASSERT_TRUE(reader->Read(&page));
  cluster_.stop(0);
  while (reader->Read(&page)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), Code::UNAVAILABLE);
}

}  // namespace
}  // namespace sluice
