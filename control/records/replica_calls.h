// One question to the replicas of a slot, of which some have to answer.
//
// As many are asked at once as answers are missing; the next one, when one of them fails or takes
// long. This node answers itself without a call.
#ifndef SLUICE_CONTROL_RECORDS_REPLICA_CALLS_H_
#define SLUICE_CONTROL_RECORDS_REPLICA_CALLS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "control/peers/node_context.h"
#include "control/peers/peer_calls.h"

namespace sluice {

struct ReplicaTimes {
  int64_t call_ms = 10'000;  // of all calls together
  int64_t hedge_ms = 250;    // after so long without an answer another replica is asked too
};

// This node first, then those that are likely to answer. UNAVAILABLE without a table.
absl::StatusOr<std::vector<std::string>> ranked_replicas(const NodeContext& context, uint32_t slot);

// "NAME: message" behind what is there already.
void add_reason(std::string* reasons, std::string_view node, const absl::Status& status);
// UNAVAILABLE, of a slot of which `readable` replicas answered.
absl::Status too_few_to_read(uint32_t slot, size_t readable, size_t needed,
                             const std::string& reasons);
// That one did not answer in time.
absl::Status late(int64_t waited_ms);

template <typename Request, typename Reply>
struct ReplicaQuestion {
  Request request;
  // Begins the call: `begin(node, context, request, reply, done)`.
  std::function<void(PeerNode&, grpc::ClientContext*, const Request*, Reply*,
                     std::function<void(grpc::Status)>)>
      begin;
  // What this node answers, and what the others did. An error is a failure of that replica.
  std::function<absl::Status()> here;
  std::function<absl::Status(PeerNode& node, Reply& reply)> take;
};

// How many of `needed` replicas have answered well; why the others did not goes to `reasons`.
template <typename Request, typename Reply>
size_t ask_replicas(const NodeContext& context, std::span<const std::string> names, size_t needed,
                    const ReplicaTimes& times, const ReplicaQuestion<Request, Reply>& question,
                    std::string* reasons) {
  PeerCalls<Request, Reply> calls;
  size_t answers = 0;
  const auto count = [&](std::string_view node, const absl::Status& status) {
    if (status.ok()) {
      ++answers;
    } else {
      add_reason(reasons, node, status);
    }
  };
  const auto ask = [&](const std::string& name) {
    if (name == context.name) return count(name, question.here());
    auto peer = context.peers->find(name);
    if (!peer.ok()) return count(name, peer.status());
    calls.ask(*std::move(peer), question.request, times.call_ms, question.begin);
  };
  Deadline deadline(*context.clock, times.call_ms);
  for (size_t asked = 0;;) {
    while (asked < names.size() && answers + calls.pending() < needed) ask(names[asked++]);
    const int64_t left_ms = deadline.left_ms();
    if (answers >= needed || calls.pending() == 0 || left_ms <= 0) break;
    const bool more = asked < names.size();
    auto answer = calls.next(more ? std::min(times.hedge_ms, left_ms) : left_ms);
    if (answer.has_value()) {
      const grpc::Status& status = answer->status;
      count(answer->node->name(),
            status.ok() ? question.take(*answer->node, answer->reply) : from_grpc(status));
    } else if (more) {
      calls.note_late();
      ask(names[asked++]);
    }
  }
  if (answers >= needed) return answers;
  for (const std::string& name : names) {
    if (calls.is_open(name)) add_reason(reasons, name, late(times.call_ms));
  }
  return answers;
}

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_REPLICA_CALLS_H_
