#include "control/peers/patient_call.h"

#include <algorithm>

#include "base/clock.h"
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
  const int64_t begin = clock.monotonic_ns();
  int64_t live_ns = begin;
  while (true) {
    const int64_t from = patience.alive_ns == nullptr ? begin : patience.alive_ns->load();
    const int64_t left_ms = patience.limit_ms - (clock.monotonic_ns() - from) / kMs;
    SLUICE_ASSIGN_OR_RETURN(const auto peer, peers.find(node));
    grpc::ClientContext context;
    if (patience.call_ms > 0) {
      set_timeout(context, std::max<int64_t>(std::min(patience.call_ms, left_ms), 1));
    }
    const grpc::Status answer = call(*peer, context);
    peer->note(answer);
    absl::Status status = from_peer(answer, node);
    if (!is_late(status)) return status;
    const int64_t now = clock.monotonic_ns();
    if (peers.directory().snapshot()->live(node)) live_ns = now;
    const bool gone = now - live_ns >= patience.gone_ms * kMs;
    const bool cancelled_now =
        patience.cancellation != nullptr && patience.cancellation->cancelled();
    const int64_t since = patience.alive_ns == nullptr ? begin : patience.alive_ns->load();
    if (gone || cancelled_now || now - since >= patience.limit_ms * kMs) return status;
    // It may come back under another address.
    if (!peers.directory().snapshot()->live(node)) {
      peers.directory().wait(kPauseMs, [&](const auto& each) { return each.live(node); });
    } else if (peer->connect(kPauseMs)) {
      clock.sleep_ns(kPauseMs * kMs);
    }
  }
}

}  // namespace sluice
