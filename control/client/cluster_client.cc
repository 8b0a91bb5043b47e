#include "control/client/cluster_client.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/defect.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/client/cluster_client_impl.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {
constexpr int64_t kStatusMs = 3'000;
constexpr int64_t kPauseMs = 100;
constexpr int kRounds = 3;
// Longer than a node asks its replicas' clocks.
constexpr int64_t kStampTryMs = 2'500;
// Longer than a coordinator asks its replicas, so that it says what they lack.
constexpr int64_t kWriteTryMs = 12'000;

// Of a node that is live.
NodeState state_of(v1::Writes writes) {
  switch (writes) {
    case v1::WRITES_DISK_FULL:
      return NodeState::kFull;
    case v1::WRITES_READ_ONLY:
      return NodeState::kReadOnly;
    default:
      return NodeState::kLive;
  }
}

ClusterConnection::Options connection_options(const ClientOptions& options) {
  ClusterConnection::Options connecting;
  connecting.clock = options.clock;
  connecting.idle_timeout_ms = options.idle_timeout_ms;
  connecting.dialer = options.dialer;
  connecting.transport = options.transport;
  connecting.open_block = options.open_block;
  return connecting;
}

}  // namespace

bool is_answered_elsewhere(grpc::StatusCode code) {
  return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::DEADLINE_EXCEEDED ||
         code == grpc::StatusCode::RESOURCE_EXHAUSTED;
}

absl::StatusOr<std::unique_ptr<ClusterClient>> ClusterClient::open(std::string_view cluster_url,
                                                                   const ClientOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(auto connection,
                          ClusterConnection::open(cluster_url, connection_options(options)));
  return std::make_unique<ClusterClientImpl>(std::move(connection), options);
}

absl::StatusOr<std::unique_ptr<ClusterClient>> ClusterClient::open(ClusterBlock& block,
                                                                   std::string_view cluster_url,
                                                                   const ClientOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(auto connection,
                          ClusterConnection::open(block, cluster_url, connection_options(options)));
  return std::make_unique<ClusterClientImpl>(std::move(connection), options);
}

absl::StatusOr<DistributionTable> ClusterClientImpl::table() {
  SLUICE_RETURN_IF_ERROR(directory().refresh());
  const auto snapshot = directory().snapshot();
  if (snapshot->table == nullptr) return not_found("the cluster has no distribution table yet");
  return *snapshot->table;
}

std::vector<std::string> ClusterClientImpl::candidates(std::string_view first) {
  const auto snapshot = directory().snapshot();
  std::vector<std::pair<int, std::string>> ranked;
  for (const Member& member : snapshot->members) {
    const auto peer = peers().find(member.info.name);
    int rank = member.info.name == first ? 0 : 1;
    if (peer.ok() && !(*peer)->available()) rank += 2;
    if (!member.live) rank += 4;
    ranked.emplace_back(rank, member.info.name);
  }
  return by_rank(std::move(ranked));
}

absl::Status ClusterClientImpl::ask_any(
    std::string_view first, Deadline& deadline, int64_t first_try_ms,
    const std::function<grpc::Status(PeerNode&, grpc::ClientContext&)>& call) {
  absl::Status last = unavailable("no node is known");
  bool reached = false;
  for (int round = 0; round < kRounds; ++round) {
    if (round > 0) {
      if (!deadline.pause(kPauseMs)) return last;
      directory().refresh().IgnoreError();  // the earlier snapshot serves without it
    }
    for (const std::string& name : candidates(first)) {
      const int64_t left_ms = deadline.left_ms();
      if (left_ms == 0) return last;
      const auto peer = peers().find(name);
      if (!peer.ok()) continue;
      grpc::ClientContext context;
      // One node that stands still must not use up the time of the others.
      set_timeout(context, std::min(left_ms, first_try_ms << (2 * round)));
      const grpc::Status status = call(**peer, context);
      (*peer)->note(status);
      if (status.ok()) return absl::OkStatus();
      if (!is_answered_elsewhere(status.error_code())) return from_grpc(status);
      // What a node says of itself and others tells more than that others cannot be reached.
      if (reached && is_unreached(status)) continue;
      reached = !is_unreached(status);
      last = from_peer(status, name);
    }
  }
  return last;
}

void ClusterClientImpl::keep_above(uint64_t stamp) {
  uint64_t known = floor_;
  while (known < stamp && !floor_.compare_exchange_weak(known, stamp)) {
  }
}

std::string ClusterClientImpl::primary_of(std::string_view key) {
  const auto snapshot = directory().snapshot();
  if (snapshot->table == nullptr) return {};
  return snapshot->table->primary_of(slot_of(key, snapshot->table->slot_bits())).name;
}

// With one version, which comes first: a request whose answer is lost is repeated with the same
// one, so that it cannot undo what another client has written meanwhile.
absl::Status ClusterClientImpl::write(std::string_view key, std::string_view value,
                                      bool tombstone) {
  v1::StampRequest asked;
  asked.set_after(floor());
  asked.add_slots(slot_of(key, cluster().slot_bits));
  v1::WriteRequest request;
  auto* item = request.add_items();
  item->set_key(key.data(), key.size());
  item->set_value(value.data(), value.size());
  item->set_tombstone(tombstone);
  Deadline deadline(clock(), options_.request_timeout_ms);
  std::string stamped_by;
  SLUICE_RETURN_IF_ERROR(ask_any(
      primary_of(key), deadline, kStampTryMs, [&](PeerNode& node, grpc::ClientContext& context) {
        stamped_by = node.name();
        return node.serving().Stamp(&context, asked, request.mutable_version());
      }));
  // Also where it fails: it may have taken place.
  keep_above(request.version().stamp());
  v1::WriteReply::Result result;
  SLUICE_RETURN_IF_ERROR(
      ask_any(stamped_by, deadline, kWriteTryMs, [&](PeerNode& node, grpc::ClientContext& context) {
        v1::WriteReply reply;
        const grpc::Status status = node.serving().Write(&context, request, &reply);
        if (!status.ok()) return status;
        if (reply.results_size() != 1) {
          return grpc::Status(grpc::StatusCode::INTERNAL, "answered another number of writes");
        }
        keep_above(reply.as_of());
        result = std::move(*reply.mutable_results(0));
        return grpc::Status::OK;
      }));
  if (result.code() == 0) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(result.code()), result.reason());
}

absl::Status ClusterClientImpl::put(std::string_view key, std::string_view value) {
  return write(key, value, false);
}

absl::Status ClusterClientImpl::erase(std::string_view key) { return write(key, {}, true); }

absl::StatusOr<std::vector<NodeView>> ClusterClientImpl::nodes() {
  SLUICE_RETURN_IF_ERROR(directory().refresh());
  const auto snapshot = directory().snapshot();
  std::vector<uint32_t> copies;
  if (snapshot->table != nullptr) copies = snapshot->table->copies();
  std::vector<NodeView> views(snapshot->members.size());
  parallel_for(views.size(), [&](size_t i) {
    const Member& member = snapshot->members[i];
    NodeView& view = views[i];
    view.name = member.info.name;
    view.state = member.live ? NodeState::kLive : NodeState::kDown;
    view.weight = member.info.weight;
    view.weight_from = weight_of(member.info);
    view.rates = member.info.rates;
    view.rack = member.info.rack;
    view.control_address = member.info.control_address;
    view.data_address = member.info.data_address;
    view.driver = member.info.driver;
    view.archive_folder = member.info.archive_folder;
    const int index = snapshot->table == nullptr ? -1 : snapshot->table->find_member(view.name);
    if (index >= 0) view.slots = copies[static_cast<size_t>(index)];
    if (!member.live) return;
    if (const auto entry = block().get(live_key(view.name)); entry.ok() && entry->has_value()) {
      const auto live = decode_live_info((*entry)->key, (*entry)->value);
      if (live.ok()) view.process = live->process;
    }
    const auto peer = peers().find(view.name);
    if (!peer.ok()) return;
    grpc::ClientContext context;
    set_timeout(context, kStatusMs);
    v1::StatusReply reply;
    const grpc::Status status = (*peer)->serving().Status(&context, v1::Empty(), &reply);
    (*peer)->note(status);
    view.reached = status.ok();
    view.records = reply.records();
    view.bytes = reply.bytes();
    view.clock_offset_ms = reply.clock_offset_ms();
    view.stamps_ahead_ms = static_cast<int64_t>(reply.stamps_ahead_ms());
    if (status.ok()) view.state = state_of(reply.writes());
  });
  return views;
}

}  // namespace sluice
