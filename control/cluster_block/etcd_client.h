// Calls to an etcd cluster: which of its endpoints is asked, for how long, as which user. Internal
// to control/cluster_block.
//
// A call goes to the endpoint that answered last. Where it does not answer, or has no leader, the
// next one is asked, until the call's whole time is over: UNAVAILABLE then. Errors are told apart
// by gRPC's codes alone. Thread-safe.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLIENT_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/status.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/cluster_block/etcd_access.h"
#include "control/proto/etcd.grpc.pb.h"

namespace sluice::cluster_block {

class EtcdClient {
 public:
  // Two connections: leases and watches do not wait behind large documents.
  struct Endpoint {
    std::string address;
    std::shared_ptr<grpc::Channel> documents;
    std::shared_ptr<grpc::Channel> streams;
    std::unique_ptr<etcdserverpb::KV::Stub> kv;
    std::unique_ptr<etcdserverpb::Lease::Stub> lease;
    std::unique_ptr<etcdserverpb::Watch::Stub> watch;
    std::unique_ptr<etcdserverpb::Auth::Stub> auth;
  };
  enum class Line { kDocuments, kStreams };
  struct Limits {
    Line line = Line::kDocuments;  // the connection that is used
    int64_t total_ms = 10'000;
    int64_t attempt_ms = 3'000;  // a stopped machine answers nothing at all
    bool repeats = true;         // false: one attempt, whose answer may be lost
    // INVALID_ARGUMENT is left to the caller; otherwise it can only mean that etcd wants a user.
    bool may_be_invalid = false;
  };
  using Attempt = std::function<grpc::Status(const Endpoint&, grpc::ClientContext*)>;

  // Connects when first used.
  EtcdClient(const std::vector<std::string>& endpoints, EtcdAccess access);
  EtcdClient(const EtcdClient&) = delete;
  EtcdClient& operator=(const EtcdClient&) = delete;

  // Runs the attempt until one is answered. It may be run several times, and any that failed may
  // have been executed, or may be still.
  absl::Status call(const Attempt& attempt, const Limits& limits);
  absl::Status call(const Attempt& attempt) { return call(attempt, Limits()); }

  // For a stream that its owner keeps: the endpoint to be asked now, and what a call needs to be
  // accepted there.
  absl::StatusOr<size_t> prepare(grpc::ClientContext* context);
  const Endpoint& endpoint(size_t index) const { return endpoints_[index]; }
  // The endpoint did not answer: others are asked from now on.
  void avoid(size_t index);
  // Before trying again: until the connection of the endpoint to be asked next changes, at most for
  // so long. False when closed meanwhile.
  bool pause(Line line, int64_t ms) { return pause(current_, line, ms); }

  // Fails what runs and what comes, at once.
  void close();
  bool is_closed();

  // "etcd at HOST:PORT,HOST:PORT"
  const std::string& name() const { return name_; }

 private:
  class Registered;
  bool pause(size_t index, Line line, int64_t ms);
  // Likewise; returns at once when it is in another state already.
  bool pause_while(grpc_connectivity_state state, size_t index, Line line, int64_t ms);
  grpc::Status try_once(size_t index, const Attempt& attempt, Line line, int64_t timeout_ms);
  // Until there is a connection, or there cannot be one now.
  void connect(size_t index, Line line, int64_t timeout_ms);
  // Makes the context one that the endpoint accepts.
  grpc::Status authorize(size_t index, int64_t timeout_ms, grpc::ClientContext* context);
  grpc::Status sign_in(const Endpoint& endpoint, int64_t timeout_ms, std::string* token);
  absl::Status error_of(const grpc::Status& status, const Limits& limits) const;
  grpc::Channel& channel(size_t index, Line line) const;

  const EtcdAccess access_;
  std::string name_;
  std::vector<Endpoint> endpoints_;
  std::atomic<size_t> current_{0};
  std::mutex mutex_;
  bool closed_ = false;
  std::set<grpc::ClientContext*> running_;
  bool signed_in_ = false;
  std::string token_;  // empty where etcd asks for no user
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLIENT_H_
