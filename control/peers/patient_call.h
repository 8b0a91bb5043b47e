// Calls to one node that is waited for: who is late is asked again, who is gone is not.
#ifndef SLUICE_CONTROL_PEERS_PATIENT_CALL_H_
#define SLUICE_CONTROL_PEERS_PATIENT_CALL_H_

#include <grpcpp/client_context.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "control/peers/peers.h"
#include "dataplane/pipeline/cancellation.h"

namespace sluice {

struct Patience {
  int64_t limit_ms = 120'000;  // in all
  int64_t call_ms = 20'000;    // one call; 0: no deadline of its own
  int64_t gone_ms = 5'000;     // a node that is not live and does not answer for so long is gone
  const Cancellation* cancellation = nullptr;
  // Where given, limit_ms counts from this moment: of the last sign of life of a long call.
  const std::atomic<int64_t>* alive_ns = nullptr;
};

// Whether a failed call may succeed when it is repeated: no answer came, or the node was busy.
bool is_late(const absl::Status& status);

// The first answer that is not a want of one, with the node's name before an error. Sets each
// context's deadline. A call may have been carried out before it is repeated.
absl::Status call_patiently(
    Peers& peers, const std::string& node, const Patience& patience,
    const std::function<grpc::Status(PeerNode& peer, grpc::ClientContext& context)>& call);

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_PATIENT_CALL_H_
