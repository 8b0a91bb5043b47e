#include "tests/dpdk/rig.h"

#include <sched.h>

#include <cerrno>
#include <cstdlib>

#include "base/status.h"

namespace sluice {
namespace {

absl::Status run(const std::string& command) {
  if (std::system(command.c_str()) != 0) return failed_precondition("{} failed", command);
  return absl::OkStatus();
}

}  // namespace

std::string rig_interface(size_t index) { return fmt::format("d{}", index); }
std::string rig_ip(size_t index) { return fmt::format("10.12.0.{}", index + 1); }
std::string rig_listen(size_t index, int port) {
  return fmt::format("{}:{}%net_af_packet{},iface={}", rig_ip(index), port, index,
                     rig_interface(index));
}

absl::Status make_dpdk_rig() {
  if (unshare(CLONE_NEWNET) != 0)
    return errno_status(errno, "a network namespace of its own (needs root)");
  SLUICE_RETURN_IF_ERROR(run("ip link set lo up"));
  SLUICE_RETURN_IF_ERROR(
      run(fmt::format("ip link add br0 mtu {} type bridge && ip link set br0 up", kRigMtu)));
  for (size_t i = 0; i < kRigPorts; ++i) {
    const std::string interface = rig_interface(i);
    SLUICE_RETURN_IF_ERROR(run(fmt::format(
        "ip link add {0} mtu {1} type veth peer name b{0} mtu {1} && ip link set b{0} master br0 "
        "&& ip link set b{0} up && ip link set {0} up",
        interface, kRigMtu)));
  }
  return absl::OkStatus();
}

}  // namespace sluice
