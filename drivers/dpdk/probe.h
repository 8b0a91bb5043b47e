// What this machine has for DPDK: for `sluice doctor`, and for errors that say what is missing.
// Looks, and begins nothing. Thread-safe.
#ifndef SLUICE_DRIVERS_DPDK_PROBE_H_
#define SLUICE_DRIVERS_DPDK_PROBE_H_

#include <cstddef>
#include <string>
#include <vector>

namespace sluice::dpdk {

struct Report {
  bool usable = false;
  std::string reason;  // what there is: huge pages, IOMMU, bound devices, virtual devices
  std::string fix;     // what is missing and how to get it; empty when usable
};

Report examine();

size_t free_huge_page_bytes();

// PCI network devices that are bound to a driver for user space, as "0000:3b:00.0 (vfio-pci)".
std::vector<std::string> bound_devices();

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_PROBE_H_
