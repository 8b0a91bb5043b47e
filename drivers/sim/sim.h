// The simulated fabric, seen as a transport. An address is "NODE" or "NODE:SERVICE"; a node listens
// under its own name.
//
// In a stepped fabric, wait() is what moves time: it runs events until this endpoint has something
// to poll or the timeout has passed in virtual time. poll() never moves it. Where the fabric's time
// comes from outside, wait() sleeps.
#ifndef SLUICE_DRIVERS_SIM_SIM_H_
#define SLUICE_DRIVERS_SIM_SIM_H_

#include <memory>
#include <string>
#include <string_view>

#include "drivers/sim/fabric.h"
#include "drivers/transport.h"

namespace sluice {

// One node's transport. The fabric must outlive it and its endpoints.
class SimTransport final : public Transport {
 public:
  SimTransport(SimFabric& fabric, std::string node) : fabric_(fabric), node_(std::move(node)) {}
  std::string_view name() const override { return "sim"; }
  TransportLimits limits() const override;
  absl::StatusOr<std::unique_ptr<Endpoint>> open(Arena& arena, std::string_view listen) override;

 private:
  SimFabric& fabric_;
  const std::string node_;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_SIM_SIM_H_
