// Data writing requests as a node gets them: several blocks in one, of slots that it holds or does
// not, with and without memory to keep them.
#include "dataplane/pipeline/write_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "base/status.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/pipeline/request_client.h"
#include "tests/dataplane/block/records.h"
#include "tests/dataplane/pipeline/cluster.h"

namespace sluice {
namespace {

constexpr uint32_t kWriteSlotBits = 4;
constexpr int64_t kPatienceMs = 10'000;

class WriteServerTest : public ::testing::Test {
 protected:
  // Slot s is held by nodes s and s + 1 of three.
  WriteServerTest() : cluster_(ClusterOptions{}) {}

  void serve(const WriteServer::Options& wanted = {}) {
    for (auto& node : cluster_.nodes) {
      WriteServer::Options options = wanted;
      options.node = node->name;
      options.write_quorum = 2;
      node->writes = *WriteServer::start(*node->exchange, *node->store, node->router, options);
    }
    RequestClient::Options client;
    client.job = "restore";
    client_ = std::make_unique<RequestClient>(*cluster_.node(0).exchange, client);
    pool_ = *cluster_.node(0).arena->make_pool("test", 2);
  }
  void TearDown() override { client_.reset(); }

  static std::string block_of(uint32_t slot) {
    Random random(slot + 1);
    return testing::pack(testing::make_records(random, slot, kWriteSlotBits, {.count = 9}), slot,
                         kWriteSlotBits)
        .at(0);
  }
  // Sends the blocks as one request to the node, which answers it.
  WriteReply send(size_t to, const std::vector<std::string>& blocks, uint16_t flags,
                  uint32_t first_slot) {
    const auto reply = try_to_send(to, blocks, flags, first_slot);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : WriteReply();
  }
  absl::StatusOr<WriteReply> try_to_send(size_t to, const std::vector<std::string>& blocks,
                                         uint16_t flags, uint32_t first_slot) {
    BlockBuffer buffer = pool_->take(kPatienceMs);
    Envelope envelope;
    envelope.kind = MessageKind::kWriteRequest;
    envelope.slot = first_slot;
    envelope.attempt = 1;
    envelope.flags = flags;
    envelope.lot = flags == 0 ? 0 : 77;
    envelope.sequence = client_->next_sequence();
    for (const std::string& block : blocks) {
      const auto at = padded(envelope.payload_bytes);
      std::memcpy(buffer.data() + at, block.data(), block.size());
      envelope.payload_bytes = static_cast<uint32_t>(at + block.size());
    }
    const uint32_t bytes = Envelope::seal(envelope, buffer);
    TestNode& node = cluster_.node(to);
    const auto call = client_->begin({node.name, node.exchange->address()}, std::move(buffer),
                                     bytes, envelope.sequence, kPatienceMs);
    EXPECT_TRUE(call.ok()) << call.status();
    return WriteReply::of(client_->finish(*call, kPatienceMs));
  }
  bool holds(size_t node, uint32_t slot) {
    return !cluster_.node(node).store->digest(slot).empty();
  }

  Cluster cluster_;
  std::unique_ptr<RequestClient> client_;
  std::unique_ptr<BlockPool> pool_;
};

TEST_F(WriteServerTest, BlocksOfOneRequestAreAllAppliedAtAllReplicas) {
  serve();
  // 0, 3 and 6 are all held by the first two nodes.
  const WriteReply reply = send(1, {block_of(0), block_of(3), block_of(6)}, 0, 0);
  EXPECT_TRUE(reply.failures.empty());
  ASSERT_EQ(reply.holders.size(), 2u);
  EXPECT_EQ(reply.holders[0].keeping, 0u);
  for (const uint32_t slot : {0u, 3u, 6u}) {
    EXPECT_TRUE(holds(0, slot) && holds(1, slot)) << slot;
    EXPECT_EQ(cluster_.node(0).store->digest(slot), cluster_.node(1).store->digest(slot));
  }
  EXPECT_EQ(cluster_.node(1).writes->counters().requests, 1u);
  EXPECT_EQ(cluster_.node(0).writes->counters().forwarded, 1u);
}

TEST_F(WriteServerTest, ARequestWithASlotOfOtherReplicasChangesNothing) {
  serve();
  // Node 1 holds both, with another node each.
  WriteReply reply = send(1, {block_of(0), block_of(1)}, 0, 0);
  ASSERT_EQ(reply.failures.size(), 1u);
  EXPECT_TRUE(absl::IsFailedPrecondition(reply.failures[0].status)) << reply.failures[0].status;
  // Node 1 does not hold the second.
  reply = send(1, {block_of(0), block_of(2)}, Envelope::kKeep, 0);
  ASSERT_EQ(reply.failures.size(), 1u);
  EXPECT_TRUE(absl::IsFailedPrecondition(reply.failures[0].status)) << reply.failures[0].status;
  for (size_t node = 0; node < 3; ++node) {
    for (const uint32_t slot : {0u, 1u, 2u}) EXPECT_FALSE(holds(node, slot)) << node;
  }
  EXPECT_EQ(cluster_.node(1).writes->counters().refused, 2u);
}

TEST_F(WriteServerTest, AnEnvelopeOfAnotherSlotOrADamagedBlockIsRefused) {
  serve();
  WriteReply reply = send(1, {block_of(0)}, 0, 3);
  ASSERT_FALSE(reply.failures.empty());
  EXPECT_TRUE(absl::IsDataLoss(reply.failures[0].status));
  // Both replicas find the damage themselves.
  std::string damaged = block_of(3);
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  for (const uint16_t flags : {uint16_t{0}, Envelope::kKeep}) {
    reply = send(1, {block_of(0), damaged}, flags, 0);
    ASSERT_EQ(reply.failures.size(), 2u);
    for (const auto& failure : reply.failures) {
      EXPECT_TRUE(absl::IsDataLoss(failure.status)) << failure.status;
    }
    EXPECT_TRUE(reply.holders.empty());
    EXPECT_FALSE(holds(0, 3) || holds(1, 3));
  }
}

TEST_F(WriteServerTest, WhatIsNotKeptForLackOfMemoryIsDurableAtOnce) {
  WriteServer::Options options;
  options.lots.max_bytes = 1;
  serve(options);
  WriteReply reply = send(1, {block_of(0), block_of(3)}, Envelope::kKeep, 0);
  ASSERT_EQ(reply.holders.size(), 2u);
  for (const auto& holder : reply.holders) EXPECT_EQ(holder.keeping, 0u);
  EXPECT_TRUE(holds(0, 0) && holds(1, 0) && holds(0, 3) && holds(1, 3));
}

// It stood still while the request was under way, and may have lost its name.
TEST_F(WriteServerTest, ANodeThatMayNotServeAnyMoreDoesNotAnswer) {
  std::atomic<bool> closed{false};
  WriteServer::Options options;
  options.gate = [&closed] {
    return closed ? unavailable("it may not serve any more") : absl::OkStatus();
  };
  serve(options);
  EXPECT_TRUE(send(1, {block_of(0)}, 0, 0).failures.empty());
  closed = true;
  EXPECT_FALSE(try_to_send(1, {block_of(3)}, 0, 3).ok());
  closed = false;
  EXPECT_TRUE(send(1, {block_of(6)}, 0, 6).failures.empty());
}

// Its answer does not count at the coordinator, which may serve.
TEST_F(WriteServerTest, AReplicaThatMayNotServeAnyMoreDoesNotAnswer) {
  std::atomic<bool> closed{false};
  WriteServer::Options options;
  serve(options);
  TestNode& replica = cluster_.node(0);
  options.node = replica.name;
  options.write_quorum = 2;
  options.gate = [&closed] {
    return closed ? unavailable("it may not serve any more") : absl::OkStatus();
  };
  replica.writes.reset();
  replica.writes = *WriteServer::start(*replica.exchange, *replica.store, replica.router, options);
  closed = true;
  const WriteReply reply = send(1, {block_of(0)}, 0, 0);
  ASSERT_EQ(reply.failures.size(), 1u);
  EXPECT_EQ(reply.failures[0].node, replica.name);
  ASSERT_EQ(reply.holders.size(), 1u);
  EXPECT_EQ(reply.holders[0].node, cluster_.node(1).name);
}

TEST_F(WriteServerTest, SaysOfEachSlotHowManyRecordsItKept) {
  serve();
  // Newer ones of two keys of slot 3 and one of slot 6, at one replica.
  Random random(4);
  const std::vector<Record> third = testing::make_records(random, 3, kWriteSlotBits, {.count = 9});
  Random other(7);
  const std::vector<Record> sixth = testing::make_records(other, 6, kWriteSlotBits, {.count = 9});
  for (const Record* record : {&third[0], &third[1], &sixth[2]}) {
    Record newer = *record;
    newer.version.stamp = Version::make_stamp(1'700'100'000'000, 0);
    newer.tombstone = false;
    newer.value += " and more";  // what has the same value is not kept instead of another one
    cluster_.put_at(0, newer);
  }
  const WriteReply reply = send(1, {block_of(0), block_of(3), block_of(6)}, 0, 0);
  EXPECT_TRUE(reply.failures.empty());
  EXPECT_EQ(reply.kept, (std::map<uint32_t, KeptRecords>{{3, {2, 0, 0}}, {6, {1, 0, 0}}}));
}

}  // namespace
}  // namespace sluice
