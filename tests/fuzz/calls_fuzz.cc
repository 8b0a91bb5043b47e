// Feeds the services of a running node requests of anything, as gRPC would hand them on: the first
// byte chooses the call, the rest is its message. The node stands alone, and lives as long as the
// fuzzer. Whatever it is asked, it answers or says why not, and its clock never goes back.
//
// Calls that begin jobs are left out (tests/control/node, tests/simulation/world).
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <spdlog/spdlog.h>

#include "control/cluster_block/memory_cluster_block.h"
#include "control/membership/membership.h"
#include "control/node/bootstrap.h"
#include "control/node/node.h"
#include "control/proto/peer.pb.h"
#include "control/proto/sluice.pb.h"
#include "control/service/call_list.h"
#include "control/service/guarded_services.h"
#include "tests/control/calls/direct_calls.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

class OneNode {
 public:
  OneNode() {
    spdlog::set_level(spdlog::level::off);
    std::string folder = std::filesystem::temp_directory_path() / "sluice-fuzz-XXXXXX";
    require(mkdtemp(folder.data()) != nullptr);
    folder_ = folder;
    const auto cluster =
        make_cluster(*block_, {.slot_bits = 4, .replicas = 1, .seed = 42, .uuid = {}});
    require(cluster.ok());
    callee_ = {cluster->uuid, "n1"};
    dialer_ = network_.make_dialer("n1");
    NodeOptions options;
    options.config.name = "n1";
    options.config.cluster = "memory";
    options.config.data_folder = folder_ / "data";
    options.config.archive_folder = folder_ / "archives";
    options.config.weight = 1.0;
    options.config.arena_bytes = size_t{112} << 20;
    options.config.memtable_bytes = size_t{8} << 20;
    options.config.block_cache_bytes = size_t{8} << 20;
    options.block = block_.get();
    options.dialer = dialer_.get();
    options.serve = [this](const std::string& listen, const NodeServices& services) {
      services_ = std::make_unique<NodeServices>(services);
      return network_.server_factory()(listen, services);
    };
    // A restore into a cluster that somebody names must not open files or connections here.
    options.open_block = [](std::string_view) -> absl::StatusOr<std::unique_ptr<ClusterBlock>> {
      return not_found("no such cluster");
    };
    auto node = Node::start(options);
    require(node.ok());
    node_ = *std::move(node);
    require(publish_first_table(*block_, 1, 60'000).ok() && node_->wait_until_serving(60'000));
  }
  ~OneNode() {
    node_.reset();
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }

  const Callee& callee() const { return callee_; }
  const NodeServices& services() const { return *services_; }

 private:
  std::filesystem::path folder_;
  std::unique_ptr<ClusterBlock> block_ = make_memory_cluster_block();
  DirectNetwork network_;
  std::unique_ptr<PeerDialer> dialer_;
  Callee callee_;
  std::unique_ptr<NodeServices> services_;
  std::unique_ptr<Node> node_;
};

OneNode& one_node() {
  static OneNode made;
  return made;
}

class FuzzedCall final : public IncomingCall {
 public:
  const Callee& callee() const override { return one_node().callee(); }
  bool cancelled() const override { return false; }
};

// A reader that goes away after a while.
template <typename Page>
class ShortSink final : public PageSink<Page> {
 public:
  absl::Status write(const Page&) override {
    return ++pages_ < 100 ? absl::OkStatus() : cancelled("the reader went away");
  }

 private:
  int pages_ = 0;
};

void check(const absl::Status& status) {
  require_readable(status);
  require(status.code() != absl::StatusCode::kInternal &&
          status.code() != absl::StatusCode::kUnknown);
}

// Stamps that nobody refuses are as far ahead as they like, and stay behind those of later calls.
void check_clock(Guarded<PeerService>& service) {
  static uint64_t newest = 0;
  FuzzedCall call;
  v1::ClockReply reply;
  check(service.answer("ReadClock", Admission::Kind::kCluster, &PeerService::read_clock, call,
                       v1::Empty(), &reply));
  require(reply.stamp() >= newest);
  newest = reply.stamp();
}

template <typename Handler>
void answer(Guarded<typename HandlerTypes<Handler>::Service>& service, std::string_view method,
            Admission::Kind kind, Handler handler, std::string_view bytes) {
  using Types = HandlerTypes<Handler>;
  typename Types::Request request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  FuzzedCall call;
  if constexpr (requires { typename Types::Reply::Page; }) {
    ShortSink<typename Types::Reply::Page> pages;
    typename Types::Reply* const sink = &pages;
    check(service.answer(method, kind, handler, call, request, sink));
  } else {
    typename Types::Reply reply;
    check(service.answer(method, kind, handler, call, request, &reply));
  }
}

bool begins_a_job(std::string_view method) {
  return method == "CreateBackup" || method == "ResumeBackup";
}

void call_peer(size_t number, std::string_view bytes) {
  Guarded<PeerService>& service = one_node().services().peer;
  size_t at = 0;
#define SLUICE_FUZZ_CALL(Method, handler, kind) \
  if (at++ == number) answer(service, #Method, Admission::Kind::kind, &PeerService::handler, bytes);
  SLUICE_PEER_CALLS(SLUICE_FUZZ_CALL, SLUICE_FUZZ_CALL)
#undef SLUICE_FUZZ_CALL
  check_clock(service);
}

void call_serving(size_t number, std::string_view bytes) {
  Guarded<ServingService>& service = one_node().services().serving;
  size_t at = 0;
#define SLUICE_FUZZ_CALL(Method, handler, kind)                                       \
  if (at++ == number && !begins_a_job(#Method)) {                                     \
    answer(service, #Method, Admission::Kind::kind, &ServingService::handler, bytes); \
  }
  SLUICE_SERVING_CALLS(SLUICE_FUZZ_CALL, SLUICE_FUZZ_CALL)
#undef SLUICE_FUZZ_CALL
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((data[0] & 0x80) == 0) {
    call_peer(data[0], bytes);
  } else {
    call_serving(data[0] & 0x7f, bytes);
  }
  return 0;
}
