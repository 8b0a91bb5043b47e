#include "drivers/dpdk/dpdk.h"

#include <cstdlib>
#include <utility>

#include "base/status.h"
#include "drivers/dpdk/dpdk_port.h"
#include "drivers/dpdk/settings.h"

namespace sluice::dpdk {

absl::StatusOr<std::unique_ptr<packet::PacketPort>> open_port(std::string_view listen,
                                                              std::string_view otherwise) {
  if (!listen.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const PortSettings settings, parse_settings(listen));
    return DpdkPort::open(settings);
  }
  const char* named = std::getenv(kPortVariable);
  if (otherwise.empty() && (named == nullptr || *named == '\0')) {
    return failed_precondition(
        "dpdk: no device to connect from: set {}=ADDRESS%DEVICE, as "
        "10.12.0.9%net_af_packet0,iface=eth1",
        kPortVariable);
  }
  const auto settings = parse_settings(otherwise.empty() ? named : otherwise);
  if (!settings.ok())
    return otherwise.empty() ? with_context(settings.status(), kPortVariable) : settings.status();
  return DpdkPort::open(*settings);
}

std::unique_ptr<Transport> make_dpdk_transport(std::string port, const PacketOptions& options,
                                               Clock& clock) {
  packet::OpenPort open = [port = std::move(port)](std::string_view listen) {
    return open_port(listen, port);
  };
  return std::make_unique<PacketTransport>("dpdk", std::move(open), options, clock);
}

}  // namespace sluice::dpdk
