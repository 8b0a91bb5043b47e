// A client's own exchange of blocks with the nodes of a cluster: transport, arena and exchange, by
// the driver that the nodes speak.
#ifndef SLUICE_CONTROL_PEERS_CLIENT_EXCHANGE_H_
#define SLUICE_CONTROL_PEERS_CLIENT_EXCHANGE_H_

#include <algorithm>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/arena.h"
#include "control/peers/cluster_connection.h"
#include "dataplane/pipeline/request_client.h"
#include "dataplane/stream/exchange.h"
#include "drivers/transport.h"

namespace sluice {

// Thread-safe.
class ClientExchange {
 public:
  static constexpr size_t kReceiveBlocks = 2;  // of each stream

  // With the cluster's clock and transport. `node` is what the client calls itself.
  // FAILED_PRECONDITION when the nodes speak different drivers, UNAVAILABLE when none is live, the
  // driver's own error where it does not work here; RESOURCE_EXHAUSTED when the arena leaves fewer
  // than four buffers beside its streams'.
  static absl::StatusOr<std::unique_ptr<ClientExchange>> open(ClusterConnection& cluster,
                                                              const std::string& node,
                                                              size_t arena_bytes);
  // An arena that leaves so many buffers, in a cluster of so many nodes.
  static size_t arena_bytes(size_t nodes, size_t spare_buffers) {
    return (stream_buffers(nodes) + std::max(spare_buffers, kLeastSpare) + 1) * kBufferBytes;
  }
  Exchange& exchange() { return *exchange_; }
  // Buffers that its streams leave.
  size_t spare_buffers() const { return spare_buffers_; }

 private:
  static constexpr size_t kLeastSpare = 4;
  static size_t stream_buffers(size_t nodes) {
    return 16 + kReceiveBlocks * std::min(nodes, RequestClient::kStreams);
  }

  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Exchange> exchange_;
  size_t spare_buffers_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_CLIENT_EXCHANGE_H_
