#include "control/node/grpc_server.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <chrono>
#include <utility>

#include "base/status.h"
#include "control/peers/rpc.h"
#include "control/proto/peer.grpc.pb.h"
#include "control/proto/sluice.grpc.pb.h"
#include "control/service/call_list.h"
#include "control/service/grpc_page_sink.h"
#include "control/service/guarded_services.h"

namespace sluice {

namespace {

constexpr size_t kRpcMemory = size_t{1} << 30;
constexpr auto kShutdownGrace = std::chrono::seconds(2);

class GrpcCall final : public IncomingCall {
 public:
  explicit GrpcCall(const grpc::ServerContext& context)
      : context_(context), callee_(callee_of(context)) {}
  const Callee& callee() const override { return callee_; }
  bool cancelled() const override { return context_.IsCancelled(); }

 private:
  const grpc::ServerContext& context_;
  const Callee callee_;
};

// One method, with the types that the generated service declares.
#define SLUICE_CARRIED_(method, handler, kind)                                              \
  grpc::Status method(grpc::ServerContext* context,                                         \
                      const HandlerTypes<decltype(&Service::handler)>::Request* request,    \
                      HandlerTypes<decltype(&Service::handler)>::Reply* reply) override {   \
    GrpcCall call(*context);                                                                \
    return to_grpc(service_.answer(#method, Admission::Kind::kind, &Service::handler, call, \
                                   *request, reply));                                       \
  }
#define SLUICE_CARRIED_STREAM_(method, handler, kind)                                              \
  grpc::Status method(                                                                             \
      grpc::ServerContext* context,                                                                \
      const HandlerTypes<decltype(&Service::handler)>::Request* request,                           \
      grpc::ServerWriter<HandlerTypes<decltype(&Service::handler)>::Reply::Page>* writer)          \
      override {                                                                                   \
    GrpcCall call(*context);                                                                       \
    GrpcPageSink pages(*context, *writer);                                                         \
    HandlerTypes<decltype(&Service::handler)>::Reply* const sink = &pages;                         \
    return to_grpc(                                                                                \
        service_.answer(#method, Admission::Kind::kind, &Service::handler, call, *request, sink)); \
  }

class GrpcPeerService final : public v1::Peer::Service {
 public:
  explicit GrpcPeerService(Guarded<PeerService>& service) : service_(service) {}

 private:
  using Service = PeerService;
  SLUICE_PEER_CALLS(SLUICE_CARRIED_, SLUICE_CARRIED_STREAM_)
  Guarded<PeerService>& service_;
};

class GrpcServingService final : public v1::Sluice::Service {
 public:
  explicit GrpcServingService(Guarded<ServingService>& service) : service_(service) {}

 private:
  using Service = ServingService;
  SLUICE_SERVING_CALLS(SLUICE_CARRIED_, SLUICE_CARRIED_STREAM_)
  Guarded<ServingService>& service_;
};

#undef SLUICE_CARRIED_
#undef SLUICE_CARRIED_STREAM_

// What one connection may cost, whoever made it.
void bound_connections(grpc::ServerBuilder& builder) {
  // One that does not say what it is, and one whose peer was stopped or cut off.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  // One that asks nothing; who made it makes another when needed.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 10 * 60'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256);
}

class GrpcServer final : public CallServer {
 public:
  explicit GrpcServer(const NodeServices& services)
      : peer_(services.peer), serving_(services.serving) {}
  ~GrpcServer() override { stop(); }

  absl::Status start(const std::string& listen);

  const std::string& address() const override { return address_; }
  void set_serving() override { server_->GetHealthCheckService()->SetServingStatus(true); }
  void stop() override {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    server_->Wait();
  }

 private:
  GrpcPeerService peer_;
  GrpcServingService serving_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

absl::Status GrpcServer::start(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) {
    return invalid_argument("control_listen {}: HOST:PORT expected", listen);
  }
  keep_grpc();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  grpc::ResourceQuota quota("node");
  quota.SetMaxThreads(max_rpc_threads());
  quota.Resize(kRpcMemory);
  builder.SetResourceQuota(quota);
  // Two servers on one port would each get some of the other's calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.SetMaxReceiveMessageSize(kMaxRpcBytes);
  builder.SetMaxSendMessageSize(kMaxRpcBytes);
  int port = 0;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
  bound_connections(builder);
  builder.RegisterService(&peer_);
  builder.RegisterService(&serving_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return already_exists(
        "control_listen {}: the address is in use, or not of this machine; "
        "change control_listen, or stop what listens there",
        listen);
  }
  address_ = fmt::format("{}:{}", listen.substr(0, colon), port);
  server_->GetHealthCheckService()->SetServingStatus(false);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CallServer>> start_grpc_server(const std::string& listen,
                                                              const NodeServices& services) {
  auto server = std::make_unique<GrpcServer>(services);
  SLUICE_RETURN_IF_ERROR(server->start(listen));
  return server;
}

}  // namespace sluice
