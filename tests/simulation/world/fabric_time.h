// The simulation's time for a simulated fabric.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_FABRIC_TIME_H_
#define SLUICE_TESTS_SIMULATION_WORLD_FABRIC_TIME_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "drivers/sim/fabric.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {

// Lives until the run ends.
class FabricTime final : public SimTime {
 public:
  int64_t now_ns() const override { return simulation::now_ns(); }
  void call_at(int64_t at_ns, std::function<void()> due) override {
    const uint64_t number = ++asked_;
    at(at_ns, [this, number, call = std::move(due)] {
      if (number == asked_) call();
    });
  }
  void forget() override { ++asked_; }

 private:
  uint64_t asked_ = 0;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_FABRIC_TIME_H_
