#include "control/cluster_block/etcd_client.h"

#include <grpcpp/create_channel.h>

#include <algorithm>
#include <chrono>

#include "base/backoff.h"
#include "base/parallel.h"
#include "base/status.h"
#include "base/text.h"
#include "control/proto/channels.h"

namespace sluice::cluster_block {
namespace {

using grpc::StatusCode;

constexpr int64_t kFirstPauseMs = 20;
constexpr int64_t kLongestPauseMs = 500;
// For an endpoint that is only compared with the others.
constexpr int64_t kComparingMs = 1'000;
constexpr int64_t kClosingMs = 50;  // how soon a wait notices that it is to end
// A listing is read in pages smaller than this.
constexpr int kMaxDocumentsBytes = 2 << 20;
// etcd splits what a watch reports into messages of the size that it takes requests of, which
// operators may raise.
constexpr int kMaxEventsBytes = 16 << 20;

std::shared_ptr<grpc::ChannelCredentials> credentials_of(const EtcdAccess& access) {
  if (access.authorities.empty()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({access.authorities, access.key, access.certificate});
}

std::shared_ptr<grpc::Channel> make_channel(const std::string& address, const EtcdAccess& access,
                                            int max_receive_bytes) {
  grpc::ChannelArguments arguments = channel_arguments();
  arguments.SetMaxReceiveMessageSize(max_receive_bytes);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  // A watch notices with these that its peer is gone. etcd takes one in 5 s at most.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(address, credentials_of(access), arguments);
}

// Another member may answer, or the same one later.
bool may_pass(StatusCode code) {
  switch (code) {
    case StatusCode::UNAVAILABLE:
    case StatusCode::DEADLINE_EXCEEDED:
    case StatusCode::CANCELLED:
    case StatusCode::ABORTED:
    case StatusCode::UNKNOWN:
    case StatusCode::INTERNAL:
    case StatusCode::FAILED_PRECONDITION:  // the member is not the leader any more
      return true;
    default:
      return false;
  }
}

}  // namespace

// A call that close() can end.
class EtcdClient::Registered {
 public:
  Registered(EtcdClient& client, grpc::ClientContext* context)
      : client_(client), context_(context) {
    const MutexLock lock(client_.mutex_);
    if (client_.closed_) context_->TryCancel();
    client_.running_.insert(context_);
  }
  ~Registered() {
    const MutexLock lock(client_.mutex_);
    client_.running_.erase(context_);
  }
  Registered(const Registered&) = delete;
  Registered& operator=(const Registered&) = delete;

 private:
  EtcdClient& client_;
  grpc::ClientContext* const context_;
};

EtcdClient::EtcdClient(const std::vector<std::string>& endpoints, EtcdAccess access,
                       std::string probe_key)
    : access_(std::move(access)), probe_key_(std::move(probe_key)), name_("etcd at ") {
  keep_grpc();
  for (const std::string& address : endpoints) {
    const auto documents = make_channel(address, access_, kMaxDocumentsBytes);
    const auto streams = make_channel(address, access_, kMaxEventsBytes);
    endpoints_.push_back(
        {address, documents, streams, etcdserverpb::KV::NewStub(documents),
         etcdserverpb::Lease::NewStub(streams), etcdserverpb::Watch::NewStub(streams),
         etcdserverpb::Auth::NewStub(streams), etcdserverpb::Maintenance::NewStub(documents)});
    name_ += fmt::format("{}{}", endpoints_.size() > 1 ? "," : "", address);
  }
}

void EtcdClient::limit_calls(int64_t ms) {
  const MutexLock lock(mutex_);
  most_ms_ = ms;
  limited_ms_ = system_clock().monotonic_ms();
}

int64_t EtcdClient::left_ms(const Deadline& deadline, int64_t begun_ms) {
  const MutexLock lock(mutex_);
  const int64_t gone_ms = system_clock().monotonic_ms() - std::max(begun_ms, limited_ms_);
  return std::clamp<int64_t>(most_ms_ - gone_ms, 0, deadline.left_ms());
}

void EtcdClient::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  for (grpc::ClientContext* context : running_) context->TryCancel();
}

bool EtcdClient::is_closed() {
  const MutexLock lock(mutex_);
  return closed_;
}

grpc::Channel& EtcdClient::channel(size_t index, Line line) const {
  const Endpoint& endpoint = endpoints_[index];
  return line == Line::kDocuments ? *endpoint.documents : *endpoint.streams;
}

// gRPC advances a connection only while a thread waits for something on it: sleeping would leave it
// where it is.
bool EtcdClient::pause(size_t index, Line line, int64_t ms) {
  return pause_while(channel(index, line).GetState(true), index, line, ms);
}

bool EtcdClient::pause_while(grpc_connectivity_state state, size_t index, Line line, int64_t ms) {
  grpc::Channel& waited = channel(index, line);
  Deadline deadline(system_clock(), ms);
  while (deadline.left_ms() > 0) {
    if (is_closed()) return false;
    const auto slice = std::chrono::milliseconds(std::min(deadline.left_ms(), kClosingMs));
    if (waited.WaitForStateChange(state, std::chrono::system_clock::now() + slice)) break;
  }
  return !is_closed();
}

void EtcdClient::connect(size_t index, Line line, int64_t timeout_ms) {
  Deadline deadline(system_clock(), timeout_ms);
  for (;;) {
    const grpc_connectivity_state state = channel(index, line).GetState(true);
    if (state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_TRANSIENT_FAILURE) return;
    if (deadline.left_ms() == 0 || !pause_while(state, index, line, deadline.left_ms())) return;
  }
}

void EtcdClient::avoid(size_t index) {
  identified_ = kNobody;  // whoever answers there next may be another one
  // Unless somebody else did so already.
  current_.compare_exchange_strong(index, (index + 1) % endpoints_.size());
}

grpc::Status EtcdClient::sign_in(const Endpoint& endpoint, int64_t timeout_ms, std::string* token) {
  if (access_.user.empty()) return grpc::Status::OK;
  {
    const MutexLock lock(mutex_);
    if (signed_in_) {
      *token = token_;
      return grpc::Status::OK;
    }
  }
  grpc::ClientContext context;
  set_timeout(context, timeout_ms);
  const Registered registered(*this, &context);
  etcdserverpb::AuthenticateRequest request;
  request.set_name(access_.user);
  request.set_password(access_.password);
  etcdserverpb::AuthenticateResponse response;
  const grpc::Status status = endpoint.auth->Authenticate(&context, request, &response);
  if (status.error_code() == StatusCode::INVALID_ARGUMENT) {
    return {StatusCode::PERMISSION_DENIED, "there is no such user, or the password is wrong"};
  }
  // Where authentication is off, etcd serves anybody.
  const bool is_off = status.error_code() == StatusCode::FAILED_PRECONDITION;
  if (!status.ok() && !is_off) return status;
  const MutexLock lock(mutex_);
  signed_in_ = true;
  token_ = response.token();
  *token = token_;
  return grpc::Status::OK;
}

grpc::Status EtcdClient::authorize(size_t index, int64_t timeout_ms, grpc::ClientContext* context) {
  std::string token;
  const grpc::Status signed_in = sign_in(endpoints_[index], timeout_ms, &token);
  if (!token.empty()) context->AddMetadata("token", token);
  // A member that lost its leader would let a call wait, and a watch report nothing.
  context->AddMetadata("hasleader", "true");
  return signed_in;
}

absl::StatusOr<grpc::Status> EtcdClient::identify(size_t index, int64_t timeout_ms) {
  if (identified_ == index) return grpc::Status::OK;
  grpc::ClientContext context;
  const grpc::Status ready = authorize(index, timeout_ms, &context);
  if (!ready.ok()) return ready;
  set_timeout(context, timeout_ms);
  const Registered registered(*this, &context);
  etcdserverpb::RangeRequest request;
  request.set_key(probe_key_);
  request.set_keys_only(true);
  request.set_serializable(true);  // the member answers by itself
  etcdserverpb::RangeResponse response;
  const grpc::Status answered = endpoints_[index].kv->Range(&context, request, &response);
  if (!answered.ok()) return answered;
  SLUICE_RETURN_IF_ERROR(compare_cluster(index, response.header().cluster_id()));
  return grpc::Status::OK;
}

absl::Status EtcdClient::compare_cluster(size_t index, uint64_t cluster) {
  const MutexLock lock(mutex_);
  if (!cluster_) {
    cluster_ = cluster;
    first_ = index;
  }
  if (*cluster_ == cluster) return absl::OkStatus();
  if (first_ == index) {
    return failed_precondition(
        "etcd at {} belongs to cluster {:x} now, and belonged to cluster {:x}; restart this "
        "process "
        "if that is intended",
        endpoints_[index].address, cluster, *cluster_);
  }
  return failed_precondition(
      "etcd at {} belongs to cluster {:x}, etcd at {} to cluster {:x}: a cluster URL must name "
      "members of one etcd cluster",
      endpoints_[first_].address, *cluster_, endpoints_[index].address, cluster);
}

absl::Status EtcdClient::compare_endpoints() {
  if (endpoints_.size() == 1) return absl::OkStatus();
  std::vector<absl::Status> compared(endpoints_.size());
  parallel_for(endpoints_.size(), [&](size_t index) {
    connect(index, Line::kDocuments, kComparingMs);
    compared[index] = identify(index, kComparingMs).status();
  });
  for (const absl::Status& status : compared) SLUICE_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

bool EtcdClient::is_full(size_t index, int64_t timeout_ms) {
  grpc::ClientContext context;
  if (!authorize(index, timeout_ms, &context).ok()) return false;
  set_timeout(context, timeout_ms);
  const Registered registered(*this, &context);
  etcdserverpb::AlarmRequest request;  // all that are raised
  etcdserverpb::AlarmResponse response;
  const grpc::Status answered = endpoints_[index].maintenance->Alarm(&context, request, &response);
  if (answered.error_code() == StatusCode::PERMISSION_DENIED) return true;
  const auto& alarms = response.alarms();
  return std::any_of(alarms.begin(), alarms.end(), [](const etcdserverpb::AlarmMember& member) {
    return member.alarm() == etcdserverpb::NOSPACE;
  });
}

absl::StatusOr<size_t> EtcdClient::prepare(grpc::ClientContext* context) {
  const size_t index = current_;
  connect(index, Line::kStreams, Limits().attempt_ms);
  grpc::Status ready = authorize(index, Limits().attempt_ms, context);
  if (ready.ok()) {
    SLUICE_ASSIGN_OR_RETURN(ready, identify(index, Limits().attempt_ms));
  }
  if (ready.ok()) return index;
  if (may_pass(ready.error_code())) avoid(index);
  return error_of(ready, Limits());
}

absl::StatusOr<grpc::Status> EtcdClient::try_once(size_t index, const Attempt& attempt, Line line,
                                                  int64_t timeout_ms) {
  Deadline deadline(system_clock(), timeout_ms);
  const auto left_ms = [&] { return std::max<int64_t>(deadline.left_ms(), 1); };
  if (!access_.user.empty()) connect(index, Line::kStreams, left_ms());
  connect(index, line, left_ms());
  grpc::ClientContext context;
  const grpc::Status ready = authorize(index, left_ms(), &context);
  if (!ready.ok()) return ready;
  SLUICE_ASSIGN_OR_RETURN(const grpc::Status known, identify(index, left_ms()));
  if (!known.ok()) return known;
  identified_ = index;
  set_timeout(context, left_ms());
  const Registered registered(*this, &context);
  return attempt(endpoints_[index], &context);
}

absl::Status EtcdClient::call(const Attempt& attempt, const Limits& limits) {
  const int64_t begun_ms = system_clock().monotonic_ms();
  const Deadline deadline(system_clock(), limits.total_ms);
  Backoff backoff(kFirstPauseMs, kLongestPauseMs);
  bool signed_in_anew = false;
  for (size_t failures = 0;;) {
    const size_t index = current_;
    const int64_t attempt_ms =
        std::clamp<int64_t>(left_ms(deadline, begun_ms), 1, limits.attempt_ms);
    SLUICE_ASSIGN_OR_RETURN(const grpc::Status status,
                            try_once(index, attempt, limits.line, attempt_ms));
    const StatusCode code = status.error_code();
    if (status.ok()) return absl::OkStatus();
    // The token has expired (UNAUTHENTICATED), or users were changed since (INVALID_ARGUMENT). The
    // call was refused.
    const bool is_refused =
        code == StatusCode::UNAUTHENTICATED || code == StatusCode::INVALID_ARGUMENT;
    if (is_refused && !access_.user.empty() && !signed_in_anew) {
      const MutexLock lock(mutex_);
      signed_in_ = false;
      signed_in_anew = true;
      continue;
    }
    // It is overloaded, whichever member is asked, or its space is used up.
    const bool busy = code == StatusCode::RESOURCE_EXHAUSTED && !limits.may_be_large &&
                      !is_full(index, attempt_ms);
    if (!busy && !may_pass(code)) return error_of(status, limits);
    if (!busy) avoid(index);
    ++failures;
    // All endpoints are asked before any is asked again.
    const bool pauses = busy || failures % endpoints_.size() == 0;
    const int64_t pause_ms = pauses ? backoff.next_ms() : 0;
    if (!limits.repeats || pause_ms >= left_ms(deadline, begun_ms) ||
        !pause(limits.line, pause_ms)) {
      return error_of(status, limits, busy);
    }
  }
}

absl::Status EtcdClient::error_of(const grpc::Status& status, const Limits& limits,
                                  bool busy) const {
  const std::string text = printable(status.error_message());
  const StatusCode code = status.error_code();
  if (may_pass(code)) return unavailable("{} does not answer: {}", name_, text);
  if (busy) return unavailable("{} is overloaded: {}", name_, text);
  switch (code) {
    case StatusCode::INVALID_ARGUMENT:
      if (limits.may_be_invalid || !access_.user.empty()) break;
      [[fallthrough]];
    case StatusCode::UNAUTHENTICATED:
    case StatusCode::PERMISSION_DENIED:
      if (access_.user.empty()) {
        return permission_denied(
            "{} serves only its users: set SLUICE_ETCD_USER and SLUICE_ETCD_PASSWORD_FILE ({})",
            name_, text);
      }
      return permission_denied(
          "{} refuses user '{}': {}; check SLUICE_ETCD_USER and its password, and that its role "
          "may read and write what is under the prefix of the cluster URL",
          name_, printable(access_.user), text);
    case StatusCode::RESOURCE_EXHAUSTED:
      if (limits.may_be_large) break;
      return resource_exhausted(
          "the space of {} is used up: {}; compact and defragment it and disarm its alarm, or "
          "raise its --quota-backend-bytes",
          name_, text);
    case StatusCode::UNIMPLEMENTED:
      return failed_precondition("{} is not an etcd of version 3.4 or later: {}", name_, text);
    default:
      break;
  }
  return absl::Status(static_cast<absl::StatusCode>(code), fmt::format("{}: {}", name_, text));
}

}  // namespace sluice::cluster_block
