// What this machine has for RDMA: for `sluice doctor`, and for errors that say what is missing.
#ifndef SLUICE_DRIVERS_RDMA_PROBE_H_
#define SLUICE_DRIVERS_RDMA_PROBE_H_

#include <string>
#include <vector>

namespace sluice::rdma {

struct PortReport {
  std::string device;
  int port = 0;
  bool active = false;
  // "rxe0 port 1: ACTIVE, Ethernet, MTU 4096, RoCE v2 10.11.0.1"
  std::string text;
  std::string ipv4;  // the first IPv4 address among its GIDs; empty when there is none
};

struct Report {
  bool usable = false;
  std::string reason;  // what is missing, or the ports and the limit on locked memory
  std::string fix;     // empty when usable
  std::vector<PortReport> ports;
};

// Asks the operating system and every device; milliseconds. Thread-safe.
Report examine();

// "rxe0 port 1: ACTIVE, ...; rxe1 port 1: DOWN, ...", or "no device".
std::string describe_ports(const Report& report);

// The limit on locked memory in words; what a node may pin.
std::string memlock_text();

}  // namespace sluice::rdma

#endif  // SLUICE_DRIVERS_RDMA_PROBE_H_
