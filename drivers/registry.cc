#include "drivers/registry.h"

#include <utility>

#include "base/status.h"
#include "drivers/rdma/probe.h"
#include "drivers/rdma/rdma.h"
#include "drivers/tcp/tcp.h"

namespace sluice {
namespace {

constexpr std::string_view kMissing[] = {"dpdk"};
constexpr std::string_view kMissingFix = "not part of this version; use --driver tcp";

std::string missing_reason(std::string_view driver) {
  return fmt::format("this build has no {} driver", driver);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> make_transport(std::string_view driver) {
  if (driver == "tcp")
    return absl::StatusOr<std::unique_ptr<Transport>>(std::make_unique<TcpTransport>());
  if (driver == "rdma") {
    const rdma::Report report = rdma::examine();
    if (!report.usable) {
      return failed_precondition("driver rdma: {}; {}, or use --driver tcp", report.reason,
                                 report.fix);
    }
    return absl::StatusOr<std::unique_ptr<Transport>>(std::make_unique<RdmaTransport>());
  }
  for (std::string_view missing : kMissing) {
    if (driver == missing)
      return failed_precondition("{}: {}", missing_reason(driver), kMissingFix);
  }
  return invalid_argument("driver \"{}\" does not exist; the drivers are tcp, rdma and dpdk",
                          driver);
}

std::vector<DriverReport> examine_drivers() {
  std::vector<DriverReport> reports;
  reports.push_back(
      {"tcp", true, "TCP sockets of the operating system, sendfile from the arena", ""});
  rdma::Report rdma = rdma::examine();
  reports.push_back({"rdma", rdma.usable, std::move(rdma.reason), std::move(rdma.fix)});
  for (std::string_view missing : kMissing) {
    reports.push_back(
        {std::string(missing), false, missing_reason(missing), std::string(kMissingFix)});
  }
  return reports;
}

absl::StatusOr<std::string> local_host(std::string_view driver) {
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
