// The networks that the contract suite runs on: every transport, plain and with faults.
#ifndef SLUICE_TESTS_DRIVERS_NETWORK_KINDS_H_
#define SLUICE_TESTS_DRIVERS_NETWORK_KINDS_H_

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "drivers/transport.h"

namespace sluice {

// Some nodes that can reach each other.
class Network {
 public:
  virtual ~Network() = default;
  // The transport of one node; lives as long as the network.
  virtual Transport& transport(size_t node) = 0;
  // Where that node may listen.
  virtual std::string listen_address(size_t node) = 0;
  // A well-formed address at which nobody listens.
  virtual std::string nobody() = 0;
  // A text that is no address of this transport.
  virtual std::string nonsense() = 0;
  // Whether exactly what one end hands out reaches the other: nothing is lost, and nothing sent
  // again, be it because a busy machine let a timer run out.
  virtual bool exact_bytes() const { return true; }
  // Whether nodes may be in threads of their own: not where a thread that waits moves the time that
  // another one's timers run by.
  virtual bool threads() const { return true; }
};

struct NetworkKind {
  std::string name;
  std::function<std::unique_ptr<Network>()> make;
};

inline std::ostream& operator<<(std::ostream& out, const NetworkKind& kind) {
  return out << kind.name;
}

std::vector<NetworkKind> network_kinds();

}  // namespace sluice

#endif  // SLUICE_TESTS_DRIVERS_NETWORK_KINDS_H_
