// Calls to an etcd cluster: which of its endpoints is asked, for how long, as which user. Internal
// to control/cluster_block.
//
// A call goes to the endpoint that answered last. Where it does not answer, or has no leader, the
// next one is asked, until the call's whole time is over: UNAVAILABLE then. Before an endpoint is
// used, and again after it failed, the cluster that it is a member of is compared with that of the
// first one that answered. Errors are told apart by gRPC's codes, and by etcd's list of alarms: it
// has one code for too many requests and for no space. Thread-safe.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLIENT_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/status.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/mutex.h"
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
    std::unique_ptr<etcdserverpb::Maintenance::Stub> maintenance;
  };
  enum class Line { kDocuments, kStreams };
  struct Limits {
    Line line = Line::kDocuments;  // the connection that is used
    int64_t total_ms = 10'000;
    int64_t attempt_ms = 3'000;  // a stopped machine answers nothing at all
    bool repeats = true;         // false: one attempt, whose answer may be lost
    // INVALID_ARGUMENT is left to the caller; otherwise it can only mean that etcd wants a user.
    bool may_be_invalid = false;
    // RESOURCE_EXHAUSTED is left to the caller, whose answer may be larger than it takes.
    bool may_be_large = false;
  };
  using Attempt = std::function<grpc::Status(const Endpoint&, grpc::ClientContext*)>;

  // Connects when first used. `probe_key`, which need not be there, is one that the user may read.
  EtcdClient(const std::vector<std::string>& endpoints, EtcdAccess access, std::string probe_key);
  EtcdClient(const EtcdClient&) = delete;
  EtcdClient& operator=(const EtcdClient&) = delete;

  // Runs the attempt until one is answered. It may be run several times, and any that failed may
  // have been executed, or may be still.
  absl::Status call(const Attempt& attempt, const Limits& limits);
  absl::Status call(const Attempt& attempt) { return call(attempt, Limits()); }

  // FAILED_PRECONDITION where two endpoints that answer now are of different etcd clusters.
  absl::Status compare_endpoints();

  // For a stream that its owner holds: the endpoint to be asked now, and what a call needs to be
  // accepted there.
  absl::StatusOr<size_t> prepare(grpc::ClientContext* context);
  const Endpoint& endpoint(size_t index) const { return endpoints_[index]; }
  // The endpoint did not answer: others are asked from now on.
  void avoid(size_t index);
  // Before trying again: until the connection of the endpoint to be asked next changes, at most for
  // so long. False when closed meanwhile.
  bool pause(Line line, int64_t ms) { return pause(current_, line, ms); }

  // No call takes longer from now on, those that run included, but for the attempt that they are
  // at.
  void limit_calls(int64_t ms);
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
  // An error where the endpoint must not be used.
  absl::StatusOr<grpc::Status> try_once(size_t index, const Attempt& attempt, Line line,
                                        int64_t timeout_ms);
  // Until there is a connection, or there cannot be one now.
  void connect(size_t index, Line line, int64_t timeout_ms);
  // Makes the context one that the endpoint accepts.
  grpc::Status authorize(size_t index, int64_t timeout_ms, grpc::ClientContext* context);
  // Whether the endpoint is of the cluster of the first that answered: an error where it is not,
  // what it answered where that is not known.
  absl::StatusOr<grpc::Status> identify(size_t index, int64_t timeout_ms);
  absl::Status compare_cluster(size_t index, uint64_t cluster);
  // Whether etcd has raised the alarm that its space is used up, or does not let this user ask.
  bool is_full(size_t index, int64_t timeout_ms);
  // Of a call that began then.
  int64_t left_ms(const Deadline& deadline, int64_t begun_ms);
  grpc::Status sign_in(const Endpoint& endpoint, int64_t timeout_ms, std::string* token);
  absl::Status error_of(const grpc::Status& status, const Limits& limits, bool busy = false) const;
  grpc::Channel& channel(size_t index, Line line) const;

  static constexpr size_t kNobody = SIZE_MAX;

  const EtcdAccess access_;
  const std::string probe_key_;
  std::string name_;
  std::vector<Endpoint> endpoints_;
  std::atomic<size_t> current_{0};
  std::atomic<size_t> identified_{kNobody};  // the endpoint that may be used
  Mutex mutex_;
  std::optional<uint64_t> cluster_ SLUICE_GUARDED_BY(mutex_);  // etcd's number of it
  size_t first_ SLUICE_GUARDED_BY(mutex_) = 0;                 // the endpoint that it is known from
  int64_t most_ms_ SLUICE_GUARDED_BY(mutex_) = INT64_MAX;      // of a call
  int64_t limited_ms_ SLUICE_GUARDED_BY(mutex_) = 0;           // when that was said
  bool closed_ SLUICE_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> running_ SLUICE_GUARDED_BY(mutex_);
  bool signed_in_ SLUICE_GUARDED_BY(mutex_) = false;
  std::string token_ SLUICE_GUARDED_BY(mutex_);  // empty where etcd asks for no user
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLIENT_H_
