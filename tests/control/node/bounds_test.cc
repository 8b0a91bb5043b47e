// What clients may cost a node: streams that nobody reads, and how many of them.
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/status.h"
#include "control/membership/membership.h"
#include "control/peers/rpc.h"
#include "control/proto/peer.grpc.pb.h"
#include "control/proto/sluice.grpc.pb.h"
#include "control/service/guarded_services.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

struct Unread {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::ExportPage>> reader;
};

TEST(Bounds, ExportsThatNobodyReadsLeaveThreadsForTheRest) {
  TestCluster cluster;
  const auto client = cluster.client();
  const std::string value(size_t{1} << 20, 'v');
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(client->put(fmt::format("k{}", i), value).ok());
  const auto members = list_members(cluster.block());
  ASSERT_TRUE(members.ok());
  const auto channel = make_channel(members->front().info.control_address);
  const auto stub = v1::Sluice::NewStub(channel);
  constexpr int kMost = Admission::kMost[static_cast<size_t>(Admission::Kind::kExport)];
  std::vector<std::unique_ptr<Unread>> unread;
  v1::ExportRequest request;
  request.set_slots(64);
  for (int i = 0; i < kMost; ++i) {
    unread.push_back(std::make_unique<Unread>());
    unread.back()->reader = stub->Export(&unread.back()->context, request);
    // One page shows that it is in work.
    v1::ExportPage page;
    ASSERT_TRUE(unread.back()->reader->Read(&page));
  }
  grpc::ClientContext one_more;
  set_timeout(one_more, 20'000);
  const auto refused = stub->Export(&one_more, request);
  v1::ExportPage page;
  EXPECT_FALSE(refused->Read(&page));
  const grpc::Status status = refused->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  // The node still takes writes, and the cluster's client reads through another one.
  EXPECT_TRUE(client->put("another", "value").ok());
  EXPECT_EQ(client->count().value(), 17u);
  EXPECT_EQ(read_cluster(*client).size(), 17u);
  for (const auto& stream : unread) stream->context.TryCancel();
  for (const auto& stream : unread) stream->reader->Finish();
}

TEST(Bounds, AbsurdRequestsAreRefusedAndTheRestIsServed) {
  TestCluster cluster;
  const auto client = cluster.client();
  const auto members = list_members(cluster.block());
  ASSERT_TRUE(members.ok());
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  const auto channel = grpc::CreateCustomChannel(members->front().info.control_address,
                                                 grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::Sluice::NewStub(channel);
  const auto peer = v1::Peer::NewStub(channel);
  const auto code_of = [](const auto& call) {
    grpc::ClientContext context;
    set_timeout(context, 30'000);
    return call(&context).error_code();
  };
  using Code = grpc::StatusCode;
  constexpr int kTooMany = (1 << 16) + 1;

  v1::WriteRequest write;
  v1::WriteReply written;
  for (int i = 0; i < kTooMany; ++i) write.add_items();
  EXPECT_EQ(code_of([&](auto* call) { return stub->Write(call, write, &written); }),
            Code::INVALID_ARGUMENT);
  // So many are served, each with an answer of its own.
  write.Clear();
  for (int i = 0; i < 10'000; ++i) write.add_items()->set_key(fmt::format("k{}", i));
  write.mutable_items(3)->set_key(std::string(kMaxKeyBytes + 1, 'k'));
  write.mutable_items(5)->clear_key();
  v1::StampRequest stamp;
  const auto ask_stamp = [&](auto* call) {
    return stub->Stamp(call, stamp, write.mutable_version());
  };
  EXPECT_EQ(code_of(ask_stamp), Code::INVALID_ARGUMENT);
  stamp.add_slots(1u << 30);
  EXPECT_EQ(code_of(ask_stamp), Code::INVALID_ARGUMENT);
  stamp.mutable_slots()->Resize(kTooMany, 0);
  EXPECT_EQ(code_of(ask_stamp), Code::INVALID_ARGUMENT);
  stamp.mutable_slots()->Clear();
  for (uint32_t slot = 0; slot < client->cluster().slots(); ++slot) stamp.add_slots(slot);
  EXPECT_EQ(code_of(ask_stamp), Code::OK);
  EXPECT_EQ(code_of([&](auto* call) { return stub->Write(call, write, &written); }), Code::OK);
  ASSERT_EQ(written.results_size(), 10'000);
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_EQ(written.results(i).code(), i == 3 || i == 5 ? Code::INVALID_ARGUMENT : Code::OK);
  }
  write.Clear();
  write.add_items()->set_value(std::string(size_t{kMaxRpcBytes} + 1, 'v'));
  EXPECT_EQ(code_of([&](auto* call) { return stub->Write(call, write, &written); }),
            Code::RESOURCE_EXHAUSTED);

  v1::CountRequest count;
  v1::CountReply counted;
  count.set_prefix(std::string(kMaxKeyBytes + 1, 'p'));
  EXPECT_EQ(code_of([&](auto* call) { return stub->Count(call, count, &counted); }),
            Code::INVALID_ARGUMENT);
  count.clear_prefix();
  count.set_first_slot(1);
  count.set_slots(~0u);
  EXPECT_EQ(code_of([&](auto* call) { return stub->Count(call, count, &counted); }),
            Code::INVALID_ARGUMENT);

  v1::ReadRequest read;
  v1::ReadReply found;
  for (int i = 0; i < kTooMany; ++i) read.add_keys("k");
  EXPECT_EQ(code_of([&](auto* call) { return peer->Read(call, read, &found); }),
            Code::INVALID_ARGUMENT);
  v1::ApplyRequest apply;
  v1::ApplyReply applied;
  for (int i = 0; i < kTooMany; ++i) apply.add_records();
  EXPECT_EQ(code_of([&](auto* call) { return peer->Apply(call, apply, &applied); }),
            Code::INVALID_ARGUMENT);

  v1::CreateBackupRequest create;
  create.set_name("many");
  for (int i = 0; i < kTooMany; ++i) create.add_targets("n1");
  EXPECT_EQ(code_of([&](auto* call) {
              v1::BackupUpdate update;
              const auto reader = stub->CreateBackup(call, create);
              EXPECT_FALSE(reader->Read(&update));
              return reader->Finish();
            }),
            Code::INVALID_ARGUMENT);
  EXPECT_EQ(client->count().value(), 9'998u);
}

}  // namespace
}  // namespace sluice
