// The transport over a lossy packet port: reliable, ordered, at-most-once delivery of blocks by
// packets that may be lost, repeated, reordered or damaged. docs/packet.md has the protocol, to the
// byte, and its bounds; docs/design/005-packets.md says why it is made so.
//
// Payload is sent from the arena's memory as it stands there, and copied once on arrival, from the
// port's packet into the posted block. The layer has no I/O and no clock of its own: both are
// passed in.
#ifndef SLUICE_DRIVERS_PACKET_PACKET_H_
#define SLUICE_DRIVERS_PACKET_PACKET_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/arena.h"
#include "base/clock.h"
#include "drivers/packet/port.h"
#include "drivers/transport.h"

namespace sluice {

struct PacketOptions {
  size_t max_message_bytes = kBufferBytes;
  size_t receive_depth = 256;
  size_t send_depth = 256;
  size_t max_connections = 1024;  // of one endpoint; more are refused
  int64_t connect_timeout_ms = 5'000;
  // An orderly close gives up after so long without progress.
  int64_t close_timeout_ms = 30'000;
  // After so long without a packet from a peer, it is asked for a sign of life...
  int64_t keepalive_ms = 3'000;
  // ...and after so long the connection is lost; also when what was sent is not acknowledged.
  int64_t dead_peer_ms = 20'000;
  // The largest packet, header and payload; 0: what the port can carry. The two ends agree on the
  // smaller one.
  size_t max_packet_bytes = 0;
  // Congestion control keeps round trips to about this (docs/packet.md).
  int64_t queue_target_ns = 200'000;
  // Feeds the connection identifiers and the key of the cookies; 0: the operating system does.
  uint64_t seed = 0;
};

// `open_port` and `clock` are used by each endpoint, in the endpoint's thread, and outlive it.
// Both ends need the same message limit: min(max_message_bytes, the arena's buffer size).
class PacketTransport final : public Transport {
 public:
  // `name`: what the driver is called ("dpdk").
  PacketTransport(std::string name, packet::OpenPort open_port, const PacketOptions& options = {},
                  Clock& clock = system_clock());
  std::string_view name() const override { return name_; }
  TransportLimits limits() const override;
  absl::StatusOr<std::unique_ptr<Endpoint>> open(Arena& arena, std::string_view listen) override;

 private:
  const std::string name_;
  const packet::OpenPort open_port_;
  const PacketOptions options_;
  Clock& clock_;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_PACKET_PACKET_H_
