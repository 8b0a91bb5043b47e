// The interleavings of writes and cuts that need several nodes' clocks, driven one by one.
#include <gtest/gtest.h>

#include "base/random.h"
#include "base/status.h"
#include "control/backup/backup_job.h"
#include "control/peers/rpc.h"
#include "control/proto/peer.grpc.pb.h"
#include "control/proto/sluice.grpc.pb.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

// What one node's peers, and its clients, may ask of it.
class PeerOf {
 public:
  PeerOf(ClusterClient& client, const std::string& name) {
    const auto nodes = client.nodes();
    EXPECT_TRUE(nodes.ok()) << nodes.status();
    for (const NodeView& node : *nodes) {
      if (node.name != name) continue;
      stub_ = v1::Peer::NewStub(make_channel(node.control_address));
      serving_ = v1::Sluice::NewStub(make_channel(node.control_address));
    }
  }

  uint64_t clock() {
    grpc::ClientContext context;
    v1::ClockReply reply;
    EXPECT_TRUE(stub_->ReadClock(&context, {}, &reply).ok());
    epoch_ = reply.epoch();
    return reply.stamp();
  }

  void arm_cut(const std::string& backup, uint64_t cut) {
    clock();
    v1::ArmRequest arm;
    arm.set_backup(backup);
    arm.set_attempt(1);
    arm.set_cut(cut);
    arm.set_epoch(epoch_);
    grpc::ClientContext context;
    v1::ArmReply armed;
    const grpc::Status status = stub_->ArmCut(&context, arm, &armed);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_FALSE(armed.missed());
  }

  // By its clock, which nobody moves.
  void wait_for_cut(const std::string& backup) {
    v1::CutDigestsRequest ask;
    ask.set_backup(backup);
    ask.set_attempt(1);
    EXPECT_TRUE(eventually(10'000, [&] {
      grpc::ClientContext context;
      v1::CutDigestsReply digests;
      const grpc::Status status = stub_->CutDigests(&context, ask, &digests);
      EXPECT_TRUE(status.ok()) << status.error_message();
      return digests.taken() || !status.ok();
    }));
  }

  v1::ApplyReply apply(const RecordView& record) {
    clock();
    v1::ApplyRequest request;
    request.set_epoch(epoch_);
    fill(record, request.add_records());
    grpc::ClientContext context;
    v1::ApplyReply reply;
    const grpc::Status status = stub_->Apply(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }

  v1::WriteReply write(const v1::WriteRequest& request) {
    grpc::ClientContext context;
    v1::WriteReply reply;
    const grpc::Status status = serving_->Write(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(reply.results(0).code(), 0u) << reply.results(0).reason();
    return reply;
  }

  // The stamp of the version that this one node holds; 0: none.
  uint64_t stamp_of(const std::string& key) {
    v1::ReadRequest request;
    request.add_keys(key);
    grpc::ClientContext context;
    v1::ReadReply reply;
    EXPECT_TRUE(stub_->Read(&context, request, &reply).ok());
    if (reply.results_size() != 1 || !reply.results(0).found()) return 0;
    return reply.results(0).record().stamp();
  }

 private:
  std::unique_ptr<v1::Peer::Stub> stub_;
  std::unique_ptr<v1::Sluice::Stub> serving_;
  uint64_t epoch_ = 0;
};

TEST(LateWrite, CountsAsWrittenBehindTheCut) {
  TestCluster cluster;
  // Only n1 is behind, within the offset that is allowed: what it stamps comes too late for the
  // cuts of the two others.
  cluster.clock(1).skew(450);
  cluster.clock(2).skew(450);
  const auto client = cluster.client();
  PeerOf behind(*client, "n1");
  PeerOf second(*client, "n2");
  PeerOf third(*client, "n3");
  int late_coordinators = 0;
  for (int round = 0; round < 8 && late_coordinators < 2; ++round) {
    const std::string backup = make_uuid();
    // The nodes drop cuts of backups that nobody knows of; the lock's holder is known.
    ASSERT_TRUE(cluster.block().put(kBackupLockKey, backup + " n1 test").ok());
    const uint64_t cut = std::max(second.clock(), third.clock()) + Version::make_stamp(150, 0);
    second.arm_cut(backup, cut);
    third.arm_cut(backup, cut);
    if (HasFatalFailure()) return;
    second.wait_for_cut(backup);
    third.wait_for_cut(backup);

    // A replica's late write is applied and marked.
    const std::string late_key = fmt::format("late{}", round);
    EXPECT_EQ(second.apply({late_key, "value", {cut - 1, 1}, false}).missed_cut(), cut);
    EXPECT_EQ(second.stamp_of(late_key), cut - 1);
    // Whose client hears that the backup need not have it, and writes nothing more into it.
    v1::WriteRequest write;
    write.mutable_version()->set_stamp(cut - 1);
    write.mutable_version()->set_node(1);
    write.add_items()->set_key(late_key);
    write.mutable_items(0)->set_value("value");
    EXPECT_GT(behind.write(write).as_of(), cut);
    EXPECT_EQ(client->get(late_key).value(), "value");

    // The machine may have stood still for so long that n1 has passed the cut, too: once more then.
    if (behind.clock() < cut) ++late_coordinators;
    const std::string key = fmt::format("key{}", round);
    const absl::Status put = client->put(key, "value");
    ASSERT_TRUE(put.ok()) << put;
    size_t holders = 0;
    for (PeerOf* peer : {&behind, &second, &third}) holders += peer->stamp_of(key) > cut;
    EXPECT_GE(holders, 2u) << "acknowledged with a stamp that the cuts should hold and do not";
    EXPECT_EQ(client->get(key).value(), "value");
  }
  EXPECT_GE(late_coordinators, 1);
}

// The clock passes the cut while the node is down, or after it came back: either way nothing that
// is stamped later is in it.
TEST(LateWrite, AnArmedCutOutlivesARestart) {
  TestCluster cluster;
  const auto client = cluster.client();
  ASSERT_TRUE(client->put("before", "value").ok());
  const std::string backup = make_uuid();
  ASSERT_TRUE(cluster.block().put(kBackupLockKey, backup + " n1 test").ok());
  uint64_t cut = 0;
  {
    PeerOf third(*client, "n3");
    cut = third.clock() + Version::make_stamp(400, 0);
    third.arm_cut(backup, cut);
    if (HasFatalFailure()) return;
  }
  cluster.stop(2);
  cluster.start(2);
  PeerOf third(*cluster.client(), "n3");
  third.wait_for_cut(backup);
  const v1::ApplyReply late = third.apply({"late", "value", {cut - 1, 1}, false});
  EXPECT_EQ(late.missed_cut(), cut);
}

// Stamps of the fast clock would be those of the cluster's future; refusing them would fail the
// writes.
TEST(LateWrite, AFastClockNeitherStampsNorStopsAnything) {
  TestCluster cluster;
  const auto client = cluster.client();
  ASSERT_TRUE(client->put("key", "before").ok());
  PeerOf fast(*client, "n1");
  PeerOf second(*client, "n2");
  cluster.clock(0).skew(60'000);
  // Whoever coordinates: a write has a stamp of a sane clock, at once.
  for (int i = 0; i < 6; ++i) {
    const absl::Status status = client->put(fmt::format("key{}", i), "after");
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_LT(second.stamp_of(fmt::format("key{}", i)),
              Version::make_stamp(static_cast<uint64_t>(system_clock().wall_ms()) + 5'000, 0));
  }
  EXPECT_EQ(client->get("key").value(), "before");
  EXPECT_LT(fast.clock(),
            Version::make_stamp(static_cast<uint64_t>(system_clock().wall_ms()) + 5'000, 0));
  cluster.clock(0).skew(0);
  cluster.stop(0);
  EXPECT_TRUE(client->put("key", "without n1").ok());
  EXPECT_EQ(client->get("key").value(), "without n1");
}

}  // namespace
}  // namespace sluice
