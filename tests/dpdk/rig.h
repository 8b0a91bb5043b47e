// Interfaces for DPDK's virtual devices to stand on: a Linux bridge with some veth pairs, in a
// network namespace of this process's own, which the kernel removes with it.
#ifndef SLUICE_TESTS_DPDK_RIG_H_
#define SLUICE_TESTS_DPDK_RIG_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"

namespace sluice {

inline constexpr size_t kRigPorts = 6;
inline constexpr int kRigMtu = 9000;

// To be called once, before any thread is begun. Why it cannot be made, otherwise.
absl::Status make_dpdk_rig();

std::string rig_interface(size_t index);
// "10.12.0.1" for 0.
std::string rig_ip(size_t index);
// "10.12.0.1:PORT%net_af_packet0,iface=d0"
std::string rig_listen(size_t index, int port = 0);

}  // namespace sluice

#endif  // SLUICE_TESTS_DPDK_RIG_H_
