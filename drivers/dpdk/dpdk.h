// The transport over DPDK: the packet layer on a port of a DPDK device.
//
// Addresses to listen at name the device: settings.h has their form. Peers' addresses are plain
// "10.12.0.1:7001". Each endpoint has a device of its own. An endpoint that only connects uses the
// one that the environment variable SLUICE_DPDK_PORT names, in the same form.
#ifndef SLUICE_DRIVERS_DPDK_DPDK_H_
#define SLUICE_DRIVERS_DPDK_DPDK_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "drivers/packet/packet.h"
#include "drivers/packet/port.h"
#include "drivers/transport.h"

namespace sluice::dpdk {

inline constexpr const char* kPortVariable = "SLUICE_DPDK_PORT";

// Opens a port at `listen`, or at `otherwise` where it is empty.
absl::StatusOr<std::unique_ptr<packet::PacketPort>> open_port(std::string_view listen,
                                                              std::string_view otherwise);

// `port`: what an endpoint that only connects uses; empty: the environment's word.
std::unique_ptr<Transport> make_dpdk_transport(std::string port = "",
                                               const PacketOptions& options = {},
                                               Clock& clock = system_clock());

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_DPDK_H_
