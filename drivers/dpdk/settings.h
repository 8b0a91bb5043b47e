// The text that says which device a port uses and who it is there:
//
//   ADDRESS[/PREFIX]:PORT%DEVICE[,ARGUMENTS][;OPTION=VALUE]...
//   10.12.0.1:7001%net_af_packet0,iface=veth1
//   10.12.0.1/24:7001%0000:3b:00.0;gateway=10.12.0.254;mtu=9000;poll=busy
//
// DEVICE and ARGUMENTS are DPDK's own words for a device. Without /PREFIX every peer is asked for
// by ARP; with it, peers outside the network are reached over `gateway`.
#ifndef SLUICE_DRIVERS_DPDK_SETTINGS_H_
#define SLUICE_DRIVERS_DPDK_SETTINGS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice::dpdk {

enum class Polling : uint8_t {
  kAdaptive,  // sleeps, longer and longer up to a bound, when nothing comes
  kBusy,      // never sleeps: a core of its own
};

struct PortSettings {
  uint32_t ip = 0;
  int prefix = 0;         // bits; 0: everybody is on the link
  uint16_t udp_port = 0;  // 0: any
  std::string device;     // "net_af_packet0", "0000:3b:00.0"
  std::string arguments;  // "iface=veth1"
  uint32_t gateway = 0;   // 0: none
  uint16_t mtu = 0;       // 0: the device's
  Polling polling = Polling::kAdaptive;
};

// INVALID_ARGUMENT naming the text, what is wrong and how one looks.
absl::StatusOr<PortSettings> parse_settings(std::string_view text);

struct Ipv4Port {
  uint32_t ip = 0;
  uint16_t port = 0;
};
// "10.12.0.1:7001", of a host; the port may be 0 only if `any_port`.
absl::StatusOr<Ipv4Port> parse_address(std::string_view text, bool any_port);
std::string ip_text(uint32_t ip);
std::string address_text(uint32_t ip, uint16_t port);

// The value of NAME in "name=value,name=value"; empty when it is not there.
std::string_view argument_of(std::string_view arguments, std::string_view name);

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_SETTINGS_H_
