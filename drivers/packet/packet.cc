#include "drivers/packet/packet.h"

#include <utility>

#include "base/status.h"
#include "drivers/packet/endpoint.h"

namespace sluice {

PacketTransport::PacketTransport(std::string name, packet::OpenPort open_port,
                                 const PacketOptions& options, Clock& clock)
    : name_(std::move(name)), open_port_(std::move(open_port)), options_(options), clock_(clock) {}

TransportLimits PacketTransport::limits() const {
  TransportLimits limits;
  limits.max_message_bytes = options_.max_message_bytes;
  limits.receive_depth = options_.receive_depth;
  limits.send_depth = options_.send_depth;
  limits.copies_on_send = false;
  limits.copies_on_receive = true;
  limits.arena_pages = Arena::Pages::kHugeIfFree;
  return limits;
}

absl::StatusOr<std::unique_ptr<Endpoint>> PacketTransport::open(Arena& arena,
                                                                std::string_view listen) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<packet::PacketPort> port, open_port_(listen));
  const size_t largest = port->limits().max_packet_bytes;
  const size_t wanted = options_.max_packet_bytes;
  if (largest < packet::kMinPacketBytes || (wanted != 0 && wanted < packet::kMinPacketBytes)) {
    return failed_precondition(
        "{}: packets of {} bytes are too small, at least {} are needed; use a larger MTU", name_,
        wanted != 0 ? std::min(wanted, largest) : largest, packet::kMinPacketBytes);
  }
  SLUICE_RETURN_IF_ERROR(port->register_memory(arena));
  return absl::StatusOr<std::unique_ptr<Endpoint>>(std::make_unique<packet::PacketEndpoint>(
      options_, arena, clock_, std::move(port), !listen.empty()));
}

}  // namespace sluice
