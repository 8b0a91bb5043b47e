// What clients may cost a node: streams that nobody reads, and how many of them.
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/status.h"
#include "control/client/rpc.h"
#include "control/membership/membership.h"
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

}  // namespace
}  // namespace sluice
