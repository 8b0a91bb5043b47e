// Streams whose reader stands still.
#include "control/service/grpc_page_sink.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <string>

#include "control/peers/rpc.h"
#include "control/proto/sluice.grpc.pb.h"

namespace sluice {
namespace {

// Writes until it is cut off.
class Endless final : public v1::Sluice::Service {
 public:
  grpc::Status ReadUnits(grpc::ServerContext* call, const v1::ReadUnitsRequest*,
                         grpc::ServerWriter<v1::UnitKeys>* writer) override {
    GrpcPageSink<v1::UnitKeys> pages(*call, *writer, stall_ms);
    v1::UnitKeys page;
    page.add_keys(std::string(size_t{1} << 20, 'k'));
    absl::Status status;
    while (status.ok()) status = pages.write(page);
    ended.set_value(status);
    return to_grpc(status);
  }
  int64_t stall_ms = 0;
  std::promise<absl::Status> ended;
};

struct Served {
  Endless service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<v1::Sluice::Stub> stub;

  explicit Served(int64_t stall_ms) {
    service.stall_ms = stall_ms;
    keep_grpc();
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    stub = v1::Sluice::NewStub(make_channel("127.0.0.1:" + std::to_string(port)));
  }
};

TEST(GrpcPageSink, AReaderThatStandsStillIsCutOff) {
  Served served(200);
  grpc::ClientContext context;
  const auto reader = served.stub->ReadUnits(&context, {});
  auto ended = served.service.ended.get_future();
  ASSERT_EQ(ended.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_EQ(ended.get().code(), absl::StatusCode::kCancelled);
  context.TryCancel();
  reader->Finish();
}

// However long all of it takes.
TEST(GrpcPageSink, AReaderThatGoesOnIsNot) {
  constexpr int64_t kStallMs = 3'000;
  Served served(kStallMs);
  grpc::ClientContext context;
  const auto reader = served.stub->ReadUnits(&context, {});
  auto ended = served.service.ended.get_future();
  const auto begun = std::chrono::steady_clock::now();
  v1::UnitKeys page;
  while (std::chrono::steady_clock::now() - begun < std::chrono::milliseconds(2 * kStallMs)) {
    ASSERT_TRUE(reader->Read(&page));
    ASSERT_EQ(ended.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  }
  context.TryCancel();
  reader->Finish();
}

}  // namespace
}  // namespace sluice
