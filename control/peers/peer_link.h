// How calls reach a node: over gRPC, or over whatever a simulated cluster has in its place.
//
// The generated stubs' interfaces are the calls. What gRPC does not put behind them stands beside
// them: ending a call, waiting for a connection, and streams whose pages are waited for a bounded
// time each.
#ifndef SLUICE_CONTROL_PEERS_PEER_LINK_H_
#define SLUICE_CONTROL_PEERS_PEER_LINK_H_

#include <grpcpp/client_context.h>

#include <cstdint>
#include <memory>
#include <string>

#include "control/peers/callee.h"
#include "control/peers/page_stream.h"
#include "control/proto/peer.grpc.pb.h"
#include "control/proto/sluice.grpc.pb.h"

namespace sluice {

// To one node. Thread-safe. Outlives its calls.
class PeerLink {
 public:
  virtual ~PeerLink() = default;

  virtual v1::Peer::StubInterface& peer() = 0;
  virtual v1::Sluice::StubInterface& serving() = 0;
  // Waits until there is a connection, at most `timeout_ms`.
  virtual bool connect(int64_t timeout_ms) = 0;
  // Ends a call of peer() or serving() that has begun, with CANCELLED; one that has ended is left
  // as it is. An asynchronous call may end on this thread.
  virtual void cancel(grpc::ClientContext& call) = 0;
  // Streams that end after `whole_ms`, with DEADLINE_EXCEEDED.
  virtual std::unique_ptr<PageStream<v1::ScanPage>> scan_slot(const v1::ScanRequest& request,
                                                              int64_t whole_ms) = 0;
  virtual std::unique_ptr<PageStream<v1::ExportPage>> export_slots(const v1::ExportRequest& request,
                                                                   int64_t whole_ms) = 0;
};

// Thread-safe. Outlives its links.
class PeerDialer {
 public:
  virtual ~PeerDialer() = default;
  // To whoever listens at the address, HOST:PORT; every call says that it is meant for `callee`.
  // Connects when first used.
  virtual std::unique_ptr<PeerLink> dial(const Callee& callee, const std::string& address) = 0;
};

// Plain text over TCP. One for the process.
PeerDialer& grpc_dialer();

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_PEER_LINK_H_
