#include "control/peers/patient_call.h"

#include <algorithm>

#include "base/deadline.h"
#include "base/status.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {
constexpr int64_t kPauseMs = 100;
}  // namespace

bool is_late(const absl::Status& status) {
  return is_away(status) || absl::IsResourceExhausted(status);
}

absl::Status call_patiently(
    Peers& peers, const std::string& node, const Patience& patience,
    const std::function<grpc::Status(PeerNode& peer, grpc::ClientContext& context)>& call) {
  Clock& clock = peers.clock();
  Deadline limit(clock, patience.limit_ms);
  Deadline gone(clock, patience.gone_ms);
  const auto note_signs_of_life = [&] {
    if (patience.alive_ns != nullptr) limit.restart_at(patience.alive_ns->load());
  };
  while (true) {
    note_signs_of_life();
    SLUICE_ASSIGN_OR_RETURN(const auto peer, peers.find(node));
    grpc::ClientContext context;
    if (patience.call_ms > 0) {
      set_timeout(context, std::max<int64_t>(std::min(patience.call_ms, limit.left_ms()), 1));
    }
    const grpc::Status answer = call(*peer, context);
    peer->note(answer);
    absl::Status status = from_peer(answer, node);
    if (!is_late(status)) return status;
    note_signs_of_life();
    if (peers.directory().snapshot()->live(node)) gone.restart();
    const bool cancelled_now =
        patience.cancellation != nullptr && patience.cancellation->cancelled();
    if (gone.passed() || cancelled_now || limit.passed()) return status;
    // It may come back under another address.
    if (!peers.directory().snapshot()->live(node)) {
      peers.directory().wait(kPauseMs, [&](const auto& each) { return each.live(node); });
    } else if (peer->connect(kPauseMs)) {
      limit.pause(kPauseMs);
    }
  }
}

}  // namespace sluice
