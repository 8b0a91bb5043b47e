#include "control/cluster_block/etcd_calls.h"

#include "base/status.h"
#include "control/cluster_block/etcd_answers.h"

namespace sluice::cluster_block {
namespace {

using Endpoint = EtcdClient::Endpoint;

// Of a renewal, which comes again soon, and must come through in a fraction of the lease's time.
constexpr EtcdClient::Limits kRenewal = {
    .line = EtcdClient::Line::kStreams, .total_ms = 3'000, .attempt_ms = 1'000};
constexpr EtcdClient::Limits kOfLeases = {.line = EtcdClient::Line::kStreams};

absl::Status of_etcd(const absl::Status& status, const EtcdClient& client) {
  return with_context(status, fmt::format("{}: not an answer of etcd", client.name()));
}

}  // namespace

absl::StatusOr<LeaseId> grant_lease(EtcdClient& client, int64_t ttl_ms) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl((ttl_ms + 999) / 1000);
  etcdserverpb::LeaseGrantResponse response;
  SLUICE_RETURN_IF_ERROR(client.call(
      [&](const Endpoint& endpoint, grpc::ClientContext* context) {
        return endpoint.lease->LeaseGrant(context, request, &response);
      },
      kOfLeases));
  SLUICE_RETURN_IF_ERROR(of_etcd(check_answer(response), client));
  return static_cast<LeaseId>(response.id());
}

absl::Status renew_lease(EtcdClient& client, LeaseId lease) {
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(static_cast<int64_t>(lease));
  etcdserverpb::LeaseKeepAliveResponse response;
  const auto renew = [&](const Endpoint& endpoint, grpc::ClientContext* context) {
    const auto stream = endpoint.lease->LeaseKeepAlive(context);
    if (stream->Write(request)) stream->WritesDone();
    const bool answered = stream->Read(&response);
    const grpc::Status ended = stream->Finish();
    if (answered) return grpc::Status::OK;
    if (!ended.ok()) return ended;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "a lease's renewal was not answered");
  };
  SLUICE_RETURN_IF_ERROR(client.call(renew, kRenewal));
  return response.ttl() > 0 ? absl::OkStatus() : not_found("lease {} has ended", lease);
}

absl::Status revoke_lease(EtcdClient& client, LeaseId lease) {
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(static_cast<int64_t>(lease));
  etcdserverpb::LeaseRevokeResponse response;
  const absl::Status revoked = client.call(
      [&](const Endpoint& endpoint, grpc::ClientContext* context) {
        return endpoint.lease->LeaseRevoke(context, request, &response);
      },
      kOfLeases);
  return absl::IsNotFound(revoked) ? absl::OkStatus() : revoked;
}

absl::StatusOr<bool> has_lease(EtcdClient& client, LeaseId lease) {
  etcdserverpb::LeaseTimeToLiveRequest request;
  request.set_id(static_cast<int64_t>(lease));
  etcdserverpb::LeaseTimeToLiveResponse response;
  SLUICE_RETURN_IF_ERROR(client.call(
      [&](const Endpoint& endpoint, grpc::ClientContext* context) {
        return endpoint.lease->LeaseTimeToLive(context, request, &response);
      },
      kOfLeases));
  return response.ttl() >= 0;
}

absl::StatusOr<etcdserverpb::RangeResponse> get_range(EtcdClient& client,
                                                      const etcdserverpb::RangeRequest& request) {
  etcdserverpb::RangeResponse response;
  SLUICE_RETURN_IF_ERROR(client.call(
      [&](const Endpoint& endpoint, grpc::ClientContext* context) {
        return endpoint.kv->Range(context, request, &response);
      },
      EtcdClient::Limits{.may_be_large = true}));
  SLUICE_RETURN_IF_ERROR(of_etcd(check_answer(request, response), client));
  return response;
}

absl::StatusOr<Revision> newest_revision(EtcdClient& client, const std::string& key) {
  etcdserverpb::RangeRequest request;
  request.set_key(key);
  request.set_keys_only(true);
  SLUICE_ASSIGN_OR_RETURN(const auto response, get_range(client, request));
  return static_cast<Revision>(response.header().revision());
}

}  // namespace sluice::cluster_block
