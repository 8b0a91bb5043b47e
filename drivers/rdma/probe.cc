#include "drivers/rdma/probe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include "base/file.h"
#include "base/status.h"
#include "drivers/rdma/verbs.h"

namespace sluice::rdma {
namespace {

constexpr const char* kClassFolder = "/sys/class/infiniband";
constexpr const char* kManagerDevice = "/dev/infiniband/rdma_cm";
constexpr size_t kMaxGids = 256;

// Names of the devices that the kernel knows.
std::vector<std::string> kernel_devices() {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(kClassFolder), closedir);
  if (folder == nullptr) return names;
  while (const dirent* entry = readdir(folder.get())) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  return names;
}

std::string_view state_name(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_ACTIVE:
      return "ACTIVE";
    case IBV_PORT_DOWN:
      return "DOWN";
    case IBV_PORT_INIT:
      return "INIT (no subnet manager yet)";
    case IBV_PORT_ARMED:
      return "ARMED";
    case IBV_PORT_ACTIVE_DEFER:
      return "ACTIVE, deferred";
    default:
      return "in an unknown state";
  }
}

std::string gid_text(const ibv_gid& gid) {
  char text[INET6_ADDRSTRLEN] = "?";
  static constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (std::memcmp(gid.raw, kMapped.data(), kMapped.size()) == 0) {
    inet_ntop(AF_INET, gid.raw + kMapped.size(), text, sizeof text);
  } else {
    inet_ntop(AF_INET6, gid.raw, text, sizeof text);
  }
  return text;
}

std::string_view gid_type_name(uint32_t type) {
  switch (type) {
    case IBV_GID_TYPE_ROCE_V2:
      return "RoCE v2";
    case IBV_GID_TYPE_ROCE_V1:
      return "RoCE v1";
    default:
      return "GID";
  }
}

// Adds ", RoCE v2 10.11.0.1" to the text for each entry of the port, without link-local ones.
void add_gids(ibv_context* context, PortReport* report) {
  std::vector<ibv_gid_entry> entries(kMaxGids);
  const ssize_t count = ibv_query_gid_table(context, entries.data(), entries.size(), 0);
  bool any = false;
  for (ssize_t i = 0; i < count; ++i) {
    const ibv_gid_entry& entry = entries[static_cast<size_t>(i)];
    const bool link_local = entry.gid.raw[0] == 0xfe && entry.gid.raw[1] == 0x80;
    if (entry.port_num != static_cast<uint32_t>(report->port)) continue;
    if (link_local && entry.gid_type != IBV_GID_TYPE_IB) continue;
    const std::string gid = gid_text(entry.gid);
    report->text += fmt::format(", {} {}", gid_type_name(entry.gid_type), gid);
    if (report->ipv4.empty() && gid.find(':') == std::string::npos) report->ipv4 = gid;
    any = true;
  }
  if (!any) report->text += ", no GID of an IP address";
}

void examine_device(ibv_device* device, Report* report) {
  const std::string name = ibv_get_device_name(device);
  const UniqueContext context(ibv_open_device(device));
  ibv_device_attr attributes{};
  if (context == nullptr || ibv_query_device(context.get(), &attributes) != 0) {
    report->ports.push_back(
        {name, 0, false, fmt::format("{}: cannot be opened: {}", name, std::strerror(errno)), ""});
    return;
  }
  for (uint8_t port = 1; port <= attributes.phys_port_cnt; ++port) {
    ibv_port_attr state{};
    if (ibv_query_port(context.get(), port, &state) != 0) continue;
    const bool ethernet = state.link_layer == IBV_LINK_LAYER_ETHERNET;
    const bool active = state.state == IBV_PORT_ACTIVE;
    PortReport made{name, port, active,
                    fmt::format("{} port {}: {}, {}, MTU {}", name, port, state_name(state.state),
                                ethernet ? "Ethernet" : "InfiniBand", 128 << state.active_mtu),
                    ""};
    add_gids(context.get(), &made);
    report->ports.push_back(std::move(made));
  }
}

void explain_no_device(Report* report) {
  const std::vector<std::string> known = kernel_devices();
  if (known.empty()) {
    report->reason = "this machine has no RDMA device";
    report->fix =
        "load the network card's RDMA driver (package rdma-core), or make a software device on an "
        "Ethernet interface: 'modprobe rdma_rxe; rdma link add rxe0 type rxe netdev INTERFACE'";
    return;
  }
  report->reason =
      fmt::format("the kernel has RDMA device {}, but programs cannot use it", known.front());
  report->fix = "install the packages rdma-core and ibverbs-providers, and 'modprobe ib_uverbs'";
}

// Whether the connection manager can be used; otherwise reason and fix are set.
bool manager_works(Report* report) {
  const UniqueFd fd(open(kManagerDevice, O_RDWR | O_CLOEXEC));
  if (fd) return true;
  const int error = errno;
  report->reason = fmt::format("{}: {}", kManagerDevice, std::strerror(error));
  report->fix = error == EACCES || error == EPERM
                    ? fmt::format(
                          "give this user access to {} and /dev/infiniband/uverbs*: "
                          "'usermod -aG rdma USER', or a udev rule",
                          kManagerDevice)
                    : "load the RDMA connection manager: 'modprobe rdma_ucm'";
  return false;
}

}  // namespace

std::string memlock_text() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  return limit.rlim_cur == RLIM_INFINITY ? "unlimited"
                                         : fmt::format("{} KiB", limit.rlim_cur / 1024);
}

std::string describe_ports(const Report& report) {
  std::string text;
  for (const PortReport& port : report.ports) text += (text.empty() ? "" : "; ") + port.text;
  return text.empty() ? "no device" : text;
}

Report examine() {
  Report report;
  int count = 0;
  const UniqueDeviceList list(ibv_get_device_list(&count));
  if (list == nullptr || count == 0) {
    explain_no_device(&report);
    return report;
  }
  for (int i = 0; i < count; ++i) examine_device(list[static_cast<size_t>(i)], &report);
  if (!manager_works(&report)) return report;
  report.usable = std::any_of(report.ports.begin(), report.ports.end(),
                              [](const PortReport& port) { return port.active; });
  report.reason = describe_ports(report);
  if (report.usable) {
    report.reason += fmt::format("; locked memory: {}", memlock_text());
  } else {
    report.fix =
        "bring a port up: 'ip link set INTERFACE up' and cable or switch for Ethernet, a subnet "
        "manager (opensm) for InfiniBand; or access to /dev/infiniband/uverbs*";
  }
  return report;
}

}  // namespace sluice::rdma
