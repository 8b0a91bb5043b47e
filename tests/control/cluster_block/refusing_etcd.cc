#include "tests/control/cluster_block/refusing_etcd.h"

#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server_builder.h>

namespace sluice {

namespace pb = etcdserverpb;
using Channel = std::shared_ptr<grpc::Channel>;

class RefusingEtcd::Kv final : public pb::KV::Service {
 public:
  Kv(RefusingEtcd& gate, const Channel& etcd) : gate_(gate), etcd_(pb::KV::NewStub(etcd)) {}
  grpc::Status Range(grpc::ServerContext*, const pb::RangeRequest* request,
                     pb::RangeResponse* response) override {
    grpc::ClientContext context;
    return etcd_->Range(&context, *request, response);
  }
  grpc::Status Txn(grpc::ServerContext*, const pb::TxnRequest* request,
                   pb::TxnResponse* response) override {
    if (grpc::Status refused = gate_.pass(); !refused.ok()) return refused;
    grpc::ClientContext context;
    return etcd_->Txn(&context, *request, response);
  }

 private:
  RefusingEtcd& gate_;
  const std::unique_ptr<pb::KV::Stub> etcd_;
};

class RefusingEtcd::Leases final : public pb::Lease::Service {
 public:
  Leases(RefusingEtcd& gate, const Channel& etcd) : gate_(gate), etcd_(pb::Lease::NewStub(etcd)) {}
  grpc::Status LeaseGrant(grpc::ServerContext*, const pb::LeaseGrantRequest* request,
                          pb::LeaseGrantResponse* response) override {
    if (grpc::Status refused = gate_.pass(); !refused.ok()) return refused;
    grpc::ClientContext context;
    return etcd_->LeaseGrant(&context, *request, response);
  }

 private:
  RefusingEtcd& gate_;
  const std::unique_ptr<pb::Lease::Stub> etcd_;
};

class RefusingEtcd::Alarms final : public pb::Maintenance::Service {
 public:
  explicit Alarms(const Channel& etcd) : etcd_(pb::Maintenance::NewStub(etcd)) {}
  grpc::Status Alarm(grpc::ServerContext*, const pb::AlarmRequest* request,
                     pb::AlarmResponse* response) override {
    grpc::ClientContext context;
    return etcd_->Alarm(&context, *request, response);
  }

 private:
  const std::unique_ptr<pb::Maintenance::Stub> etcd_;
};

RefusingEtcd::RefusingEtcd(const std::string& etcd) {
  const Channel channel = grpc::CreateChannel(etcd, grpc::InsecureChannelCredentials());
  kv_ = std::make_unique<Kv>(*this, channel);
  leases_ = std::make_unique<Leases>(*this, channel);
  alarms_ = std::make_unique<Alarms>(channel);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(kv_.get());
  builder.RegisterService(leases_.get());
  builder.RegisterService(alarms_.get());
  server_ = builder.BuildAndStart();
  address_ = fmt::format("127.0.0.1:{}", port);
}

RefusingEtcd::~RefusingEtcd() { server_->Shutdown(std::chrono::system_clock::now()); }

// etcd refuses with this code and text while it applies more slowly than it agrees on.
grpc::Status RefusingEtcd::pass() {
  int left = left_;
  while (left > 0 && !left_.compare_exchange_weak(left, left - 1)) continue;
  if (left <= 0) return grpc::Status::OK;
  ++refused_;
  return {grpc::StatusCode::RESOURCE_EXHAUSTED, "etcdserver: too many requests"};
}

}  // namespace sluice
