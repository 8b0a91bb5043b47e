// Tells when the count-th commit, sync or call of a host, call of a client, or state of a backup is
// about to happen, at which something of a scenario is to happen.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_TRIGGERS_H_
#define SLUICE_TESTS_SIMULATION_WORLD_TRIGGERS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

// To be used by threads of the harness; lives until the run ends.
class Triggers {
 public:
  // `fire` is called on the thread that is about to do it, of a host or a client: it must not wait.
  Triggers(World& world, std::vector<Host*> hosts, std::function<void(const Op&)> fire);

  void arm(const Op& op);
  // Nothing fires any more.
  void disarm() { armed_.clear(); }

 private:
  struct Armed {
    Op op;
    uint64_t left;
    bool fired = false;
  };

  void about_to(Op::Trigger trigger, const std::function<bool(const Op&)>& concerns);
  void about_to_call();
  void about_to_commit(const std::vector<ClusterOp>& ops);
  // Of the calling thread; the number of hosts where it is of none of theirs.
  size_t host_of_caller() const;

  const std::vector<Host*> hosts_;
  const std::function<void(const Op&)> fire_;
  std::vector<std::shared_ptr<Armed>> armed_;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_TRIGGERS_H_
