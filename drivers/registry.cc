#include "drivers/registry.h"

#include <utility>

#include "base/status.h"
#include "drivers/dpdk/dpdk.h"
#include "drivers/dpdk/probe.h"
#include "drivers/rdma/probe.h"
#include "drivers/rdma/rdma.h"
#include "drivers/tcp/tcp.h"

namespace sluice {
namespace {

absl::Status unusable(std::string_view driver, std::string_view reason, std::string_view fix) {
  return failed_precondition("driver {}: {}; {}, or use --driver tcp", driver, reason, fix);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> make_transport(std::string_view driver) {
  if (driver == "tcp")
    return absl::StatusOr<std::unique_ptr<Transport>>(std::make_unique<TcpTransport>());
  if (driver == "rdma") {
    const rdma::Report report = rdma::examine();
    if (!report.usable) return unusable(driver, report.reason, report.fix);
    return absl::StatusOr<std::unique_ptr<Transport>>(std::make_unique<RdmaTransport>());
  }
  if (driver == "dpdk") {
    const dpdk::Report report = dpdk::examine();
    if (!report.usable) return unusable(driver, report.reason, report.fix);
    return dpdk::make_dpdk_transport();
  }
  return invalid_argument("driver \"{}\" does not exist; the drivers are tcp, rdma and dpdk",
                          driver);
}

std::vector<DriverReport> examine_drivers() {
  std::vector<DriverReport> reports;
  reports.push_back({"tcp", true, "TCP sockets of the operating system", ""});
  rdma::Report rdma = rdma::examine();
  reports.push_back({"rdma", rdma.usable, std::move(rdma.reason), std::move(rdma.fix)});
  dpdk::Report dpdk = dpdk::examine();
  reports.push_back({"dpdk", dpdk.usable, std::move(dpdk.reason), std::move(dpdk.fix)});
  return reports;
}

absl::StatusOr<std::string> local_host(std::string_view driver) {
  if (driver == "dpdk") {
    return failed_precondition(
        "driver dpdk: each node needs a device of its own, so nodes of one machine are not made "
        "with defaults; docs/dpdk.md shows five in network namespaces");
  }
  if (driver != "rdma") return std::string("127.0.0.1");
  const rdma::Report report = rdma::examine();
  for (const rdma::PortReport& port : report.ports) {
    if (port.active && !port.ipv4.empty()) return port.ipv4;
  }
  return failed_precondition(
      "driver rdma: no active port has an IPv4 address ({}); give one to its interface, or use "
      "--driver tcp",
      rdma::describe_ports(report));
}

}  // namespace sluice
