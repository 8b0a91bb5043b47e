// Streams whose reader stands still.
#include "control/service/page_writer.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <string>

#include "control/client/rpc.h"
#include "control/proto/sluice.grpc.pb.h"

namespace sluice {
namespace {

// Writes until it is cut off.
class Endless final : public v1::Sluice::Service {
 public:
  grpc::Status ReadUnits(grpc::ServerContext* call, const v1::ReadUnitsRequest*,
                         grpc::ServerWriter<v1::UnitKeys>* writer) override {
    PageWriter<v1::UnitKeys> pages(*call, *writer, 200);
    v1::UnitKeys page;
    page.add_keys(std::string(size_t{1} << 20, 'k'));
    absl::Status status;
    while (status.ok()) status = pages.write(page);
    ended.set_value(status);
    return to_grpc(status);
  }
  std::promise<absl::Status> ended;
};

struct Served {
  Endless service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<v1::Sluice::Stub> stub;

  Served() {
    keep_grpc();
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    stub = v1::Sluice::NewStub(make_channel("127.0.0.1:" + std::to_string(port)));
  }
};

TEST(PageWriter, AReaderThatStandsStillIsCutOff) {
  Served served;
  grpc::ClientContext context;
  const auto reader = served.stub->ReadUnits(&context, {});
  auto ended = served.service.ended.get_future();
  ASSERT_EQ(ended.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_EQ(ended.get().code(), absl::StatusCode::kCancelled);
  context.TryCancel();
  reader->Finish();
}

TEST(PageWriter, AReaderThatGoesOnIsNot) {
  Served served;
  grpc::ClientContext context;
  const auto reader = served.stub->ReadUnits(&context, {});
  auto ended = served.service.ended.get_future();
  v1::UnitKeys page;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(reader->Read(&page)) << i;
    EXPECT_EQ(ended.wait_for(std::chrono::milliseconds(30)), std::future_status::timeout) << i;
  }
  context.TryCancel();
  reader->Finish();
}

}  // namespace
}  // namespace sluice
