// Which transports this build and this machine have. registry.cc is the only file that names
// drivers.
#ifndef SLUICE_DRIVERS_REGISTRY_H_
#define SLUICE_DRIVERS_REGISTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "drivers/transport.h"

namespace sluice {

// What `sluice doctor` prints about one driver.
struct DriverReport {
  std::string name;
  bool usable = false;
  std::string reason;  // why not, or what it would use
  std::string fix;     // what to do about it; empty when usable
};

// INVALID_ARGUMENT for a name that no build knows, FAILED_PRECONDITION (with the fix) for a driver
// that cannot work here.
absl::StatusOr<std::unique_ptr<Transport>> make_transport(std::string_view driver);
// make_transport, or what somebody has in its place: a simulated network, one with faults.
using TransportFactory =
    std::function<absl::StatusOr<std::unique_ptr<Transport>>(std::string_view driver)>;
std::vector<DriverReport> examine_drivers();
// The host part of an address at which nodes that are all on this machine reach each other with a
// driver: 127.0.0.1, or for rdma an active port's, because loopback is no RDMA device.
absl::StatusOr<std::string> local_host(std::string_view driver);

}  // namespace sluice

#endif  // SLUICE_DRIVERS_REGISTRY_H_
