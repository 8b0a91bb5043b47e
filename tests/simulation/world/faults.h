// Strikes the hosts of a cluster with a scenario's faults, and starts again what went down, as a
// service manager does.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_FAULTS_H_
#define SLUICE_TESTS_SIMULATION_WORLD_FAULTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

// To be used by threads of the harness; lives until the run ends.
class Faults {
 public:
  Faults(World& world, const Scenario& scenario, std::vector<Host*> hosts);

  // Watches for what strikes at the count-th of something, and begins to start what is down.
  void begin();
  // At its time: strikes, or waits for what it is to strike at.
  void add(const Op& op);
  // No fault from now on, and nothing of them is left. Waits until all nodes serve.
  void heal();
  void wait_until_all_serve();
  // Of all hosts of the world, for good.
  void stop_all();

  const std::map<OpKind, uint64_t>& fired() const { return fired_; }

 private:
  struct Armed {
    Op op;
    uint64_t left;
    bool fired = false;
  };
  struct HostState {
    bool down = false;  // to be left as it is until the time
    int64_t down_until_ns = 0;
    bool data_lost = false;
    bool disk_failed = false;  // writes of its process fail until the store is opened again
  };

  void count(Op::Trigger trigger, size_t host);
  void count_of_caller(Op::Trigger trigger);
  void strike(const Op& op);
  void crash(const Op& op);
  void jump_clock(const Op& op);
  void fail_disk(const Op& op);
  void later(const Op& op, std::function<void()> undo);
  void supervise();
  void hold_down(const Op& op);

  World& world_;
  const Scenario& scenario_;
  const std::vector<Host*> hosts_;
  std::vector<HostState> states_;
  std::vector<std::unique_ptr<Armed>> armed_;
  std::vector<Process*> paused_;
  std::map<OpKind, uint64_t> fired_;
  bool healed_ = false;
  bool stops_all_ = false;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_FAULTS_H_
