// What an acknowledgement means: the write is what is read afterwards, whatever the replicas'
// clocks held before, and neither a repeated nor a late request undoes anything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/status.h"
#include "control/membership/documents.h"
#include "control/peers/rpc.h"
#include "control/proto/peer.grpc.pb.h"
#include "control/proto/sluice.grpc.pb.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

constexpr int64_t kHourMs = 3'600'000;

uint64_t stamp_ahead(int64_t ms) {
  return Version::make_stamp(static_cast<uint64_t>(system_clock().wall_ms() + ms), 0);
}

// One node, asked as its peers and its clients ask it.
class NodeStub {
 public:
  NodeStub(ClusterClient& client, const std::string& name)
      : slot_bits_(client.cluster().slot_bits) {
    const auto nodes = client.nodes();
    EXPECT_TRUE(nodes.ok()) << nodes.status();
    for (const NodeView& node : *nodes) {
      if (node.name != name) continue;
      peer_ = v1::Peer::NewStub(make_channel(node.control_address));
      serving_ = v1::Sluice::NewStub(make_channel(node.control_address));
    }
  }

  grpc::Status apply(const RecordView& record) {
    grpc::ClientContext asking;
    v1::ClockReply clock;
    EXPECT_TRUE(peer_->ReadClock(&asking, {}, &clock).ok());
    v1::ApplyRequest request;
    request.set_epoch(clock.epoch());
    fill(record, request.add_records());
    grpc::ClientContext context;
    v1::ApplyReply reply;
    return peer_->Apply(&context, request, &reply);
  }

  // A version for a write of this key.
  v1::Version stamp(const std::string& key) {
    v1::StampRequest request;
    request.add_slots(slot_of(key, slot_bits_));
    grpc::ClientContext context;
    v1::Version version;
    const grpc::Status status = serving_->Stamp(&context, request, &version);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return version;
  }

  // One request, as it is.
  v1::WriteReply::Result write(const std::string& key, const std::string& value,
                               const v1::Version& version) {
    v1::WriteRequest request;
    *request.mutable_version() = version;
    auto* item = request.add_items();
    item->set_key(key);
    item->set_value(value);
    grpc::ClientContext context;
    v1::WriteReply reply;
    const grpc::Status status = serving_->Write(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(reply.results_size(), 1);
    return reply.results_size() == 1 ? reply.results(0) : v1::WriteReply::Result();
  }

  std::string get(const std::string& key) {
    v1::GetRequest request;
    request.set_key(key);
    grpc::ClientContext context;
    v1::GetReply reply;
    const grpc::Status status = serving_->Get(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.found() ? reply.value() : "(none)";
  }

  Record read(const std::string& key) {
    v1::ReadRequest request;
    request.add_keys(key);
    grpc::ClientContext context;
    v1::ReadReply reply;
    EXPECT_TRUE(peer_->Read(&context, request, &reply).ok());
    if (reply.results_size() != 1 || !reply.results(0).found()) return {};
    const v1::Record& record = reply.results(0).record();
    return {record.key(), record.value(), {record.stamp(), record.node()}, record.tombstone()};
  }

 private:
  const uint32_t slot_bits_;
  std::unique_ptr<v1::Peer::Stub> peer_;
  std::unique_ptr<v1::Sluice::Stub> serving_;
};

constexpr uint32_t kOk = 0;

// Whichever W replicas hold a record that is hours ahead, and whichever node makes the version.
TEST(Acknowledgement, AVersionIsAboveWhatAWriteQuorumHolds) {
  TestCluster cluster;
  const auto client = cluster.client();
  std::vector<NodeStub> nodes;
  for (size_t i = 0; i < 3; ++i) nodes.emplace_back(*client, cluster.name(i));
  int round = 0;
  for (const uint32_t holders : {0b011u, 0b101u, 0b110u, 0b111u}) {
    for (size_t coordinator = 0; coordinator < 3; ++coordinator) {
      const std::string key = fmt::format("key{}", ++round);
      const uint64_t future = stamp_ahead(round * kHourMs);
      for (size_t i = 0; i < 3; ++i) {
        if ((holders >> i & 1) == 0) continue;
        EXPECT_TRUE(nodes[i].apply({key, "old", {future, 7}, false}).ok());
      }
      const v1::Version version = nodes[coordinator].stamp(key);
      EXPECT_GT(version.stamp(), future) << key << ", held by " << holders;
      ASSERT_EQ(nodes[coordinator].write(key, "new", version).code(), kOk);
      EXPECT_EQ(client->get(key).value_or("(deleted)"), "new");
    }
  }
  ASSERT_TRUE(client->erase("key1").ok());
  EXPECT_EQ(client->get("key1").value_or("(deleted)"), "(deleted)");
}

// Versions are given once. Which of two records with one version wins says nothing of the order.
TEST(Acknowledgement, AWriteWhoseVersionAnotherRecordHasIsNotAcknowledged) {
  TestCluster cluster;
  const auto client = cluster.client();
  NodeStub first(*client, "n1"), second(*client, "n2"), third(*client, "n3");
  const v1::Version version = first.stamp("key");
  for (NodeStub* node : {&second, &third}) {
    EXPECT_TRUE(node->apply({"key", {}, {version.stamp(), version.node()}, true}).ok());
  }
  const v1::WriteReply::Result result = first.write("key", "value", version);
  EXPECT_EQ(static_cast<absl::StatusCode>(result.code()), absl::StatusCode::kUnavailable);
  EXPECT_THAT(result.reason(), ::testing::HasSubstr("another value"));
}

TEST(Acknowledgement, ARepeatedRequestHasItsPlaceAndUndoesNoOtherWrite) {
  TestCluster cluster;
  const auto client = cluster.client();
  NodeStub first(*client, "n1"), second(*client, "n2");
  const v1::Version version = first.stamp("key");
  ASSERT_EQ(first.write("key", "mine", version).code(), kOk);
  const Record mine = first.read("key");
  EXPECT_EQ(mine.version.stamp, version.stamp());
  // The answer was lost: a repeat through another node finds the write where it was.
  ASSERT_EQ(second.write("key", "mine", version).code(), kOk);
  EXPECT_EQ(second.read("key").version, mine.version);
  ASSERT_TRUE(client->put("key", "another's").ok());
  EXPECT_EQ(second.write("key", "mine", version).code(), kOk);
  EXPECT_EQ(client->get("key").value(), "another's");
  // One that no replica had received is carried out.
  const v1::Version lost = first.stamp("key");
  ASSERT_EQ(second.write("key", "late", lost).code(), kOk);
  EXPECT_EQ(client->get("key").value(), "late");
}

// Its node was stopped before it took the request; the client has repeated it elsewhere, and then
// somebody wrote something else.
TEST(Acknowledgement, ARequestThatIsCarriedOutLateHasNoEffect) {
  TestCluster cluster;
  const auto client = cluster.client();
  NodeStub stopped(*client, "n1"), other(*client, "n2");
  const v1::Version version = stopped.stamp("key");
  ASSERT_EQ(other.write("key", "first", version).code(), kOk);
  ASSERT_TRUE(client->put("key", "second").ok());
  const Record second = other.read("key");
  // Nothing tells the node that its client has given it up.
  EXPECT_EQ(stopped.write("key", "first", version).code(), kOk);
  EXPECT_EQ(client->get("key").value(), "second");
  EXPECT_EQ(other.read("key").version, second.version);
}

// It has reached one replica, whose clock is ahead, when somebody reads it. What begins after that
// read comes behind it, through whichever nodes.
TEST(Acknowledgement, AWriteThatWasReadIsNotUndoneByALaterOne) {
  TestCluster cluster;
  cluster.clock(0).skew(450);
  const auto client = cluster.client();
  std::vector<NodeStub> nodes;
  for (size_t i = 0; i < 3; ++i) nodes.emplace_back(*client, cluster.name(i));
  for (int k = 0; k < 6; ++k) {
    const std::string key = fmt::format("key{}", k);
    const v1::Version slow = nodes[0].stamp(key);
    ASSERT_TRUE(nodes[0].apply({key, "slow", {slow.stamp(), slow.node()}, false}).ok());
    ASSERT_EQ(nodes[0].get(key), "slow");
    size_t holders = 0;
    for (NodeStub& node : nodes) holders += node.read(key).version.stamp == slow.stamp();
    EXPECT_GE(holders, 2u) << "a later read may miss what this one has returned";
    NodeStub& later = nodes[1 + static_cast<size_t>(k % 2)];
    const v1::Version version = later.stamp(key);
    EXPECT_GT(version.stamp(), slow.stamp());
    ASSERT_EQ(later.write(key, "later", version).code(), kOk);
    // The rest of the slow one's replicas.
    ASSERT_EQ(nodes[0].write(key, "slow", slow).code(), kOk);
    for (NodeStub& node : nodes) EXPECT_EQ(node.get(key), "later");
  }
}

TEST(Acknowledgement, AReadWaitsForNoReplicaThatIsGone) {
  TestCluster cluster;
  const auto client = cluster.client();
  NodeStub first(*client, "n1");
  const v1::Version version = first.stamp("key");
  ASSERT_TRUE(first.apply({"key", "value", {version.stamp(), version.node()}, false}).ok());
  cluster.stop(2);
  EXPECT_EQ(first.get("key"), "value");
  EXPECT_EQ(NodeStub(*client, "n2").read("key").value, "value");
}

// A node that comes back may have the port that another one had.
TEST(Acknowledgement, OneNodeIsNotCountedAsTwo) {
  TestCluster cluster;
  const auto client = cluster.client();
  ASSERT_TRUE(client->put("key", "value").ok());
  cluster.stop(1);
  const auto entry = cluster.block().get(node_key("n2"));
  ASSERT_TRUE(entry.ok() && entry->has_value());
  auto info = decode_node_info((*entry)->key, (*entry)->value);
  ASSERT_TRUE(info.ok()) << info.status();
  info->control_address = cluster.node(0).control_address();
  ASSERT_TRUE(cluster.block().put(node_key("n2"), encode(*info)).ok());
  EXPECT_TRUE(client->put("key", "two of three").ok());
  cluster.stop(2);
  const absl::Status put = client->put("key", "one of three");
  EXPECT_EQ(put.code(), absl::StatusCode::kUnavailable) << put;
  EXPECT_THAT(std::string(message_of(put)), ::testing::HasSubstr("at its address is node n1"));
  EXPECT_EQ(client->get("key").status().code(), absl::StatusCode::kUnavailable);
}

TEST(Acknowledgement, ManyWritersOfOneKeyAllEnd) {
  TestCluster cluster;
  cluster.clock(1).skew(400);
  cluster.clock(2).skew(-400);
  const auto client = cluster.client();
  std::vector<std::unique_ptr<NodeStub>> nodes;
  for (size_t i = 0; i < 3; ++i) {
    nodes.push_back(std::make_unique<NodeStub>(*client, cluster.name(i)));
  }
  std::vector<std::thread> writers;
  for (int w = 0; w < 6; ++w) {
    writers.emplace_back([&, w] {
      NodeStub& node = *nodes[static_cast<size_t>(w % 3)];
      for (int i = 0; i < 15; ++i) {
        EXPECT_EQ(node.write("key", fmt::format("{}-{}", w, i), node.stamp("key")).code(), kOk);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  ASSERT_TRUE(client->put("key", "last").ok());
  EXPECT_EQ(client->get("key").value(), "last");
}

TEST(Acknowledgement, AnImportWritesOneKeyInTheCallersOrder) {
  TestCluster cluster;
  cluster.clock(1).skew(300);
  const auto client = cluster.client();
  for (int round = 0; round < 3; ++round) {
    const auto import = client->import();
    ASSERT_TRUE(import->put("large", std::string(size_t{20} << 20, 'x')).ok());
    ASSERT_TRUE(import->put("large", "small").ok());
    // Small batches and large values of the same keys, some of them deleted last.
    for (int pass = 0; pass < 4; ++pass) {
      for (int k = 0; k < 600; ++k) {
        const std::string key = fmt::format("key{}", k);
        const size_t padding = (k + pass) % 60 == 0 ? size_t{300} << 10 : 10;
        const std::string value = fmt::format("{}-{}", round, pass) + std::string(padding, '.');
        ASSERT_TRUE((pass == 3 && k % 7 == 0 ? import->erase(key) : import->put(key, value)).ok());
      }
    }
    const WriteTotals totals = import->finish();
    EXPECT_EQ(totals.failed, 0u);
    EXPECT_EQ(totals.records, 2u + 4 * 600);
    const auto records = read_cluster(*client);
    EXPECT_EQ(records.at("large"), "small");
    const std::string last = fmt::format("{}-3", round);
    for (int k = 0; k < 600; ++k) {
      const auto record = records.find(fmt::format("key{}", k));
      ASSERT_EQ(record == records.end(), k % 7 == 0) << k;
      if (record == records.end()) continue;
      EXPECT_EQ(record->second.substr(0, 3), last) << k;
    }
  }
}

TEST(Acknowledgement, AnImportKeepsTheOrderWhileANodeGoesAway) {
  TestCluster cluster;
  const auto client = cluster.client();
  const auto import = client->import();
  for (int pass = 0; pass < 6; ++pass) {
    for (int k = 0; k < 300; ++k) {
      ASSERT_TRUE(
          import->put(fmt::format("key{}", k), std::string(9000, static_cast<char>('a' + pass)))
              .ok());
    }
    if (pass == 2) cluster.stop(1);
  }
  const WriteTotals totals = import->finish();
  EXPECT_EQ(totals.failed, 0u) << (totals.failures.empty() ? "" : totals.failures[0].reason);
  EXPECT_EQ(totals.records, 6u * 300);
  const auto records = read_cluster(*client);
  EXPECT_EQ(records.size(), 300u);
  for (const auto& [key, value] : records) EXPECT_EQ(value[0], 'f') << key;
}

}  // namespace
}  // namespace sluice
