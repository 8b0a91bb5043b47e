#include "drivers/tcp/tcp.h"

#include <cassert>

#include "drivers/tcp/endpoint.h"
#include "drivers/tcp/sending_cost.h"

namespace sluice {

TcpTransport::TcpTransport(const TcpOptions& options) : options_(options) {
  assert(options_.max_connections > 0 && options_.max_half_open > 0);
  assert(options_.receive_depth > 0 && options_.send_depth > 0);
}

TransportLimits TcpTransport::limits() const {
  TransportLimits limits;
  limits.max_message_bytes = options_.max_message_bytes;
  limits.receive_depth = options_.receive_depth;
  limits.send_depth = options_.send_depth;
  limits.copies_on_send = !tcp::uses_sendfile(options_.send_by);
  limits.copies_on_receive = true;
  return limits;
}

absl::StatusOr<std::unique_ptr<Endpoint>> TcpTransport::open(Arena& arena,
                                                             std::string_view listen) {
  return tcp::TcpEndpoint::open(options_, arena, listen);
}

}  // namespace sluice
