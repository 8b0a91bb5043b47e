// What a node answers that has joined a cluster without a distribution table.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/status.h"
#include "control/node/bootstrap.h"
#include "control/node/node.h"
#include "control/peers/rpc.h"
#include "control/proto/peer.grpc.pb.h"

namespace sluice {
namespace {

TEST(NoTable, CallsOfEpochZeroAreRefused) {
  char folder[] = "/tmp/sluice-test-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  NodeOptions options;
  options.config.name = "n1";
  options.config.cluster = std::string("sqlite:") + folder + "/cluster.db";
  options.config.data_folder = std::string(folder) + "/data";
  options.config.archive_folder = std::string(folder) + "/archives";
  options.config.weight = 1.0;
  options.config.arena_bytes = size_t{112} << 20;
  {
    const auto block = open_cluster_block(options.config.cluster, {.create = true});
    ASSERT_TRUE(block.ok()) << message_of(block.status());
    ASSERT_TRUE(make_cluster(**block, {6, 3, 42, {}}).ok());
    const auto node = Node::start(options);
    ASSERT_TRUE(node.ok()) << message_of(node.status());
    const auto peer = v1::Peer::NewStub(make_channel((*node)->control_address()));
    v1::ApplyRequest apply;
    RecordView record;
    record.key = "k";
    record.version = {1, 1};
    fill(record, apply.add_records());
    v1::ApplyReply applied;
    grpc::ClientContext first;
    EXPECT_EQ(peer->Apply(&first, apply, &applied).error_code(), grpc::StatusCode::UNAVAILABLE);
    v1::ArmReply armed;
    grpc::ClientContext second;
    EXPECT_EQ(peer->ArmCut(&second, v1::ArmRequest(), &armed).error_code(),
              grpc::StatusCode::UNAVAILABLE);
    // It lives on.
    v1::ClockReply clock;
    grpc::ClientContext third;
    EXPECT_TRUE(peer->ReadClock(&third, v1::Empty(), &clock).ok());
  }
  std::error_code error;
  std::filesystem::remove_all(folder, error);
}

}  // namespace
}  // namespace sluice
