// The part of the ClusterClient that reads. Reading twice does no harm, so a node that is late is
// answered by asking another one as well, and whoever answers first is believed.
#include <algorithm>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"
#include "control/client/cluster_client_impl.h"
#include "control/client/export_reader.h"
#include "control/peers/peer_calls.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {

// After so long without an answer another node is asked too. Nodes themselves pass over a late
// replica sooner.
constexpr int64_t kHedgeMs = 1'000;
constexpr int64_t kReadPauseMs = 100;
constexpr int kReadRounds = 3;
constexpr uint32_t kSlotsOfCount = 256;
// How long a page of an export is waited for at first; each fruitless wait doubles it.
constexpr int64_t kFirstPageMs = 3'000;
// Of one stream; an export takes as many as it needs.
constexpr int64_t kStreamMs = 3'600'000;

// Asks one candidate after the other, the next one as soon as one fails or is late, until one
// answers; those that failed are asked again, kReadRounds times, until the time is over.
// `candidates` says anew for each round whom to ask.
template <typename Request, typename Reply, typename Begin>
absl::StatusOr<Reply> ask_first(ClusterClientImpl& client, std::string_view first,
                                const Request& request, int64_t timeout_ms, const Begin& begin) {
  Deadline deadline(client.clock(), timeout_ms);
  absl::Status last = unavailable("no node is known");
  PeerCalls<Request, Reply> calls;
  for (int round = 0; round < kReadRounds && deadline.left_ms() > 0; ++round) {
    if (round > 0) {
      deadline.pause(kReadPauseMs);
      client.directory().refresh().IgnoreError();  // the earlier snapshot serves without it
    }
    const std::vector<std::string> names = client.candidates(first);
    size_t asked = 0;
    const auto ask_next = [&] {
      for (; asked < names.size(); ++asked) {
        auto peer = client.peers().find(names[asked]);
        if (!peer.ok() || calls.is_open(names[asked])) continue;
        calls.ask(*std::move(peer), request, deadline.left_ms(), begin);
        ++asked;
        return;
      }
    };
    ask_next();
    while (calls.pending() > 0 && deadline.left_ms() > 0) {
      const int64_t left_ms = deadline.left_ms();
      auto answer = calls.next(asked < names.size() ? std::min(kHedgeMs, left_ms) : left_ms);
      if (!answer.has_value()) {
        calls.note_late();
        last = deadline_exceeded("no node has answered within {} s", timeout_ms / 1000);
      } else if (answer->status.ok()) {
        return std::move(answer->reply);
      } else {
        const bool elsewhere = is_answered_elsewhere(answer->status.error_code());
        last =
            elsewhere ? from_peer(answer->status, answer->node->name()) : from_grpc(answer->status);
        if (!elsewhere) return last;
      }
      ask_next();
    }
  }
  return last;
}

}  // namespace

absl::StatusOr<std::string> ClusterClientImpl::get(std::string_view key) {
  v1::GetRequest request;
  request.set_key(key.data(), key.size());
  SLUICE_ASSIGN_OR_RETURN(v1::GetReply reply,
                          (ask_first<v1::GetRequest, v1::GetReply>(
                              *this, primary_of(key), request, options_.request_timeout_ms,
                              [](PeerNode& node, grpc::ClientContext* context,
                                 const v1::GetRequest* asked, v1::GetReply* answer, auto done) {
                                node.serving().async()->Get(context, asked, answer,
                                                            std::move(done));
                              })));
  if (!reply.found()) return not_found("no record with this key");
  return std::move(*reply.mutable_value());
}

absl::StatusOr<uint64_t> ClusterClientImpl::count(std::string_view prefix) {
  uint64_t total = 0;
  // Range by range, each with a time limit of its own: a count by prefix reads every key.
  for (uint32_t first = 0; first < cluster().slots(); first += kSlotsOfCount) {
    v1::CountRequest request;
    request.set_prefix(prefix.data(), prefix.size());
    request.set_first_slot(first);
    request.set_slots(std::min(kSlotsOfCount, cluster().slots() - first));
    SLUICE_ASSIGN_OR_RETURN(
        const v1::CountReply reply,
        (ask_first<v1::CountRequest, v1::CountReply>(
            *this, {}, request, options_.idle_timeout_ms,
            [](PeerNode& node, grpc::ClientContext* context, const v1::CountRequest* asked,
               v1::CountReply* answer, auto done) {
              node.serving().async()->Count(context, asked, answer, std::move(done));
            })));
    total += reply.count();
  }
  return total;
}

namespace {

// A stream that a node cut off, because its reader was busy for long, is read on as well.
bool reads_on(grpc::StatusCode code) {
  return is_answered_elsewhere(code) || code == grpc::StatusCode::CANCELLED;
}

}  // namespace

absl::StatusOr<ExportTotals> ClusterClientImpl::export_heads(std::string_view prefix,
                                                             uint32_t value_bytes,
                                                             const RecordCallback& callback) {
  ExportReader reading(cluster().slot_bits, prefix, callback, value_bytes);
  int64_t page_ms = std::min(kFirstPageMs, options_.idle_timeout_ms);
  Deadline idle(clock(), options_.idle_timeout_ms);
  int failures = 0;  // since something came
  while (!reading.done()) {
    const std::vector<std::string> names = candidates({});
    if (names.empty()) return unavailable("no node is known");
    const std::string& name = names[static_cast<size_t>(failures) % names.size()];
    bool progress = false;
    grpc::Status status(grpc::StatusCode::UNAVAILABLE, "is not a member");
    if (const auto peer = peers().find(name); peer.ok()) {
      status = reading.read_from(**peer, page_ms, kStreamMs, &progress);
      (*peer)->note(status);
    }
    SLUICE_RETURN_IF_ERROR(reading.failed());
    if (progress) {
      idle.restart();
      failures = 0;
      page_ms = std::min(kFirstPageMs, options_.idle_timeout_ms);
    }
    if (status.ok()) continue;
    if (!reads_on(status.error_code())) return from_grpc(status);
    ++failures;
    const bool late = status.error_code() != grpc::StatusCode::UNAVAILABLE;
    if (idle.passed() || (!late && failures >= kReadRounds * static_cast<int>(names.size()))) {
      return from_peer(status, name);
    }
    if (failures % static_cast<int>(names.size()) == 0) {
      idle.pause(kReadPauseMs);
      directory().refresh().IgnoreError();  // the earlier snapshot serves without it
      page_ms = std::min(page_ms * 2, options_.idle_timeout_ms);
    }
  }
  return reading.totals();
}

}  // namespace sluice
