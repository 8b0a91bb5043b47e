#include "drivers/rdma/rdma.h"

#include <cassert>

#include "drivers/rdma/endpoint.h"

namespace sluice {

RdmaTransport::RdmaTransport(const RdmaOptions& options) : options_(options) {
  assert(options_.max_connections > 0 && options_.max_half_open > 0);
  assert(options_.receive_depth > 0 && options_.send_depth > 0);
}

TransportLimits RdmaTransport::limits() const {
  TransportLimits limits;
  limits.max_message_bytes = options_.max_message_bytes;
  limits.receive_depth = options_.receive_depth;
  limits.send_depth = options_.send_depth;
  limits.copies_on_send = false;
  limits.copies_on_receive = false;
  return limits;
}

absl::StatusOr<std::unique_ptr<Endpoint>> RdmaTransport::open(Arena& arena,
                                                              std::string_view listen) {
  return rdma::RdmaEndpoint::open(options_, arena, listen);
}

}  // namespace sluice
