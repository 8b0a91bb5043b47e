// What a node does before it has joined: nothing for anybody. And which data folder may join.
#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/status.h"
#include "control/node/bootstrap.h"
#include "control/peers/rpc.h"
#include "control/proto/peer.grpc.pb.h"
#include "control/proto/sluice.grpc.pb.h"
#include "dataplane/stream/exchange.h"
#include "drivers/registry.h"
#include "tests/control/node/forwarding_block.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

// Holds up the commit that joins, until it is let go.
class HeldUpBlock final : public ForwardingBlock {
 public:
  using ForwardingBlock::ForwardingBlock;
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    for (const ClusterOp& op : ops) {
      if (!op.key.starts_with(kLivePrefix)) continue;
      std::unique_lock lock(mutex_);
      joining_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return released_; });
    }
    return block_.commit(ops);
  }
  bool wait_until_joining() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [this] { return joining_; });
  }
  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool joining_ = false;
  bool released_ = false;
};

grpc::Status call_empty(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  set_timeout(context, 5'000);
  context.set_wait_for_ready(true);
  const grpc::Slice nothing;
  grpc::ByteBuffer request(&nothing, 1), reply;
  std::mutex mutex;
  std::condition_variable done;
  std::optional<grpc::Status> answer;
  stub.UnaryCall(&context, method, {}, &request, &reply, [&](grpc::Status status) {
    const std::lock_guard lock(mutex);
    answer = std::move(status);
    done.notify_all();
  });
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return answer.has_value(); });
  return *answer;
}

absl::Status connect_stream(const std::string& cluster, const std::string& address,
                            StreamKind kind) {
  auto transport = make_transport("tcp");
  SLUICE_RETURN_IF_ERROR(transport.status());
  auto arena = Arena::create({.bytes = size_t{64} << 20});
  SLUICE_RETURN_IF_ERROR(arena.status());
  Exchange::Options options;
  options.arena = arena->get();
  options.transport = transport->get();
  options.cluster = cluster;
  options.node = "stranger";
  SLUICE_ASSIGN_OR_RETURN(const auto exchange, Exchange::open(options));
  Exchange::ConnectOptions connecting;
  connecting.address = address;
  connecting.kind = kind;
  connecting.target = "n1";
  return exchange->connect(connecting).status();
}

// Neither reads, nor commits, nor leases.
class AwayBlock final : public ForwardingBlock {
 public:
  using ForwardingBlock::ForwardingBlock;
  static std::atomic<bool> away;
  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    if (away) return unavailable("out of reach");
    return block_.get(key);
  }
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    if (away) return unavailable("out of reach");
    return block_.commit(ops);
  }
  absl::Status keep_alive(LeaseId lease) override {
    if (away) return unavailable("out of reach");
    return block_.keep_alive(lease);
  }
};
std::atomic<bool> AwayBlock::away{false};

TEST(Joining, ANodeThatCannotConfirmItsNameAnswersNobody) {
  TestCluster::Options options;
  options.nodes = options.replicas = 1;
  options.adjust = [](size_t, NodeOptions& node) { node.config.lease_ms = 200; };
  options.wrap_block = [](std::unique_ptr<ClusterBlock> block) {
    return std::make_unique<AwayBlock>(std::move(block));
  };
  TestCluster cluster(options);
  const auto channel = make_channel(cluster.node(0).control_address());
  const std::string method = "/sluice.v1.Sluice/Status";
  const grpc::Status before = call_empty(channel, method);
  ASSERT_TRUE(before.ok()) << before.error_message();
  AwayBlock::away = true;
  grpc::Status away;
  EXPECT_TRUE(eventually(20'000, [&] {
    away = call_empty(channel, method);
    return away.error_code() == grpc::StatusCode::UNAVAILABLE;
  }));
  EXPECT_NE(away.error_message().find("cluster block"), std::string::npos) << away.error_message();
  AwayBlock::away = false;
  EXPECT_TRUE(eventually(20'000, [&] { return call_empty(channel, method).ok(); }));
}

TEST(Joining, NobodyIsServedBefore) {
  char folder[] = "/tmp/sluice-test-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string url = std::string("sqlite:") + folder + "/cluster.db";
  {
    auto inner = open_cluster_block(url, {.create = true});
    ASSERT_TRUE(inner.ok()) << inner.status();
    const auto cluster = make_cluster(**inner, {6, 3, 42, {}});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    HeldUpBlock block(*std::move(inner));
    const std::string port = std::to_string(20'000 + ::getpid() % 9'000);
    NodeOptions options;
    options.config.name = "n1";
    options.config.cluster = url;
    options.config.data_folder = std::string(folder) + "/data";
    options.config.archive_folder = std::string(folder) + "/archives";
    options.config.control_listen = "127.0.0.1:" + port;
    options.config.data_listen = "127.0.0.1:1" + port.substr(1);
    options.config.weight = 1.0;
    options.config.arena_bytes = size_t{112} << 20;
    options.block = &block;
    absl::StatusOr<std::unique_ptr<Node>> node;
    std::thread starting([&] { node = Node::start(options); });
    EXPECT_TRUE(block.wait_until_joining());
    const auto channel = make_channel(options.config.control_listen);
    size_t methods = 0;
    for (const char* name : {"sluice.v1.Peer", "sluice.v1.Sluice"}) {
      const auto* service =
          google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
      EXPECT_NE(service, nullptr) << name;
      for (int i = 0; service != nullptr && i < service->method_count(); ++i, ++methods) {
        const std::string method = fmt::format("/{}/{}", name, service->method(i)->name());
        const grpc::Status status = call_empty(channel, method);
        EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE)
            << method << ": " << status.error_message();
        EXPECT_NE(status.error_message().find("starting"), std::string::npos) << method;
      }
    }
    EXPECT_GT(methods, 20u);
    for (const StreamKind kind : {StreamKind::kWrite, StreamKind::kForward}) {
      const absl::Status status = connect_stream(cluster->uuid, options.config.data_listen, kind);
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
      EXPECT_NE(message_of(status).find("starting"), std::string_view::npos) << status;
    }
    block.release();
    starting.join();
    ASSERT_TRUE(node.ok()) << node.status();
    EXPECT_TRUE(call_empty(channel, "/sluice.v1.Peer/ReadClock").ok());
    const absl::Status connected =
        connect_stream(cluster->uuid, options.config.data_listen, StreamKind::kWrite);
    EXPECT_TRUE(connected.ok()) << connected;
  }
  std::error_code error;
  std::filesystem::remove_all(folder, error);
}

TEST(Joining, AnEarlierStateOfADataFolderIsRefused) {
  TestCluster cluster;
  const auto client = cluster.client();
  ASSERT_TRUE(client->put("key", "before").ok());
  const std::filesystem::path data = cluster.folder() + "/n3/data";
  const std::filesystem::path copy = cluster.folder() + "/copy";
  std::filesystem::copy(data, copy, std::filesystem::copy_options::recursive);
  ASSERT_TRUE(client->put("key", "after").ok());
  cluster.stop(2);
  const std::filesystem::path kept = cluster.folder() + "/kept";
  std::filesystem::rename(data, kept);
  for (int i = 0; i < 3; ++i) {
    std::filesystem::remove_all(data);
    std::filesystem::copy(copy, data, std::filesystem::copy_options::recursive);
    const absl::Status refused = cluster.try_start(2);
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_NE(message_of(refused).find("accept_data_loss"), std::string_view::npos) << refused;
  }
  // Started again and again it does not become the right one.
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(absl::IsFailedPrecondition(cluster.try_start(2)));
  std::filesystem::remove_all(data);
  std::filesystem::rename(kept, data);
  cluster.start(2);
  cluster.stop(2);
  std::filesystem::remove_all(data);
  std::filesystem::rename(copy, data);
  EXPECT_TRUE(absl::IsFailedPrecondition(cluster.try_start(2)));
  ASSERT_TRUE(cluster.try_start(2, /*accept_data_loss=*/true).ok());
  cluster.stop(2);
  cluster.start(2);
  EXPECT_EQ(client->get("key").value(), "after");
}

}  // namespace
}  // namespace sluice
