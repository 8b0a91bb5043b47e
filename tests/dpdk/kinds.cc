// The contract suite's networks here: a DPDK device for each node.
#include <map>
#include <memory>

#include "drivers/dpdk/dpdk.h"
#include "drivers/fault.h"
#include "tests/dpdk/rig.h"
#include "tests/drivers/network_kinds.h"

namespace sluice {
namespace {

class DpdkNetwork final : public Network {
 public:
  explicit DpdkNetwork(bool faulty) : faulty_(faulty) {}
  Transport& transport(size_t node) override {
    if (!transports_.contains(node)) {
      // A port to connect from, where the node does not listen.
      transports_[node] = dpdk::make_dpdk_transport(rig_listen(node));
      FaultOptions options;
      options.seed = node + 7;
      options.partial_post = 0.3;
      options.delay = 0.3;
      faults_.try_emplace(node, *transports_[node], options);
    }
    if (faulty_) return faults_.at(node);
    return *transports_[node];
  }
  std::string listen_address(size_t node) override { return rig_listen(node); }
  std::string nobody() override { return "10.12.0.200:1"; }
  std::string nonsense() override { return "no-port"; }
  // On a busy machine a peer may answer so late that a packet is sent again.
  bool exact_bytes() const override { return false; }

 private:
  const bool faulty_;
  std::map<size_t, std::unique_ptr<Transport>> transports_;
  std::map<size_t, FaultTransport> faults_;
};

}  // namespace

std::vector<NetworkKind> network_kinds() {
  return {
      {"Dpdk", [] { return std::make_unique<DpdkNetwork>(false); }},
      {"FaultyDpdk", [] { return std::make_unique<DpdkNetwork>(true); }},
  };
}

}  // namespace sluice
