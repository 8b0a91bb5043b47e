#include "tests/drivers/rdma_here.h"

#include <cstdlib>

#include "drivers/rdma/probe.h"

namespace sluice {

std::string rdma_address() {
  if (const char* given = std::getenv("SLUICE_RDMA_ADDRESS"); given != nullptr) return given;
  const rdma::Report report = rdma::examine();
  for (const rdma::PortReport& port : report.ports) {
    if (report.usable && port.active && !port.ipv4.empty()) return port.ipv4;
  }
  return "";
}

std::string why_no_rdma() {
  const rdma::Report report = rdma::examine();
  if (!report.usable) return report.reason;
  return "no active RDMA port has an IPv4 address: " + report.reason;
}

}  // namespace sluice
