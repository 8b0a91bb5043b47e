// The transport over RDMA devices: InfiniBand, RoCE and iWARP cards, and Soft-RoCE, by libibverbs
// and librdmacm.
//
// Payload goes from the sender's block to the receiver's posted block by the device alone: no copy
// and no system call of the kernel's network stack between them. The arena is registered once per
// device: in open() for the device of the listen address, for any other one with the first
// connection over it, before data flows. It is registered for local access only, so no peer can
// read or write it but through the blocks that were posted.
//
// Each connection is two reliable-connected queue pairs: one whose receive queue holds the posted
// blocks and nothing else, and one for control frames (credits, the orderly close) with a small
// receive ring of its own. docs/design/004-rdma.md says why.
#ifndef SLUICE_DRIVERS_RDMA_RDMA_H_
#define SLUICE_DRIVERS_RDMA_RDMA_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "drivers/transport.h"

namespace sluice {

struct RdmaOptions {
  // Only this device ("mlx5_0"); empty: the one that has the address.
  std::string device;
  size_t max_message_bytes = kBufferBytes;
  size_t receive_depth = 256;
  size_t send_depth = 256;
  size_t max_connections = 1024;  // of one endpoint; more are refused
  size_t max_half_open = 256;     // accepted, the peer's last word outstanding; more are refused
  int64_t connect_timeout_ms = 5'000;
  int64_t handshake_timeout_ms = 5'000;
  // An orderly close gives up after so long without progress.
  int64_t close_timeout_ms = 30'000;
  // After so long without a message to it, a peer is asked for a sign of life.
  int64_t keepalive_ms = 3'000;
  // The device repeats what is not acknowledged after 4.096 us * 2^ack_timeout, retry_count times;
  // then the connection is lost. The defaults are 0.54 s and 4: a dead peer is noticed in 2.7 s.
  uint8_t ack_timeout = 17;
  uint8_t retry_count = 4;
  // "Receiver not ready" cannot happen between two Sluice nodes, so few repeats do.
  uint8_t rnr_retry = 3;
  // wait() looks at the completion queues for so long before it sleeps.
  int64_t spin_ns = 20'000;
};

// Addresses are "10.11.0.1:7001" or "[fd00::1]:7001", of an interface with an RDMA device; other
// names are not looked up. "%DEVICE" after the port insists on that device. Both ends need the same
// message limit: min(max_message_bytes, the arena's buffer size).
class RdmaTransport final : public Transport {
 public:
  explicit RdmaTransport(const RdmaOptions& options = {});
  std::string_view name() const override { return "rdma"; }
  TransportLimits limits() const override;
  absl::StatusOr<std::unique_ptr<Endpoint>> open(Arena& arena, std::string_view listen) override;

 private:
  const RdmaOptions options_;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_RDMA_RDMA_H_
