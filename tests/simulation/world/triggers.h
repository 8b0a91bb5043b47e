// Tells when the count-th commit, sync or call of a host, call of a client, or state of a backup is
// about to happen, at which something of a scenario is to happen.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_TRIGGERS_H_
#define SLUICE_TESTS_SIMULATION_WORLD_TRIGGERS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "control/backup/documents.h"
#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

// To be used by threads of the harness; lives until the run ends.
class Triggers {
 public:
  // `fire` is called on the thread that is about to do it, of a host or a client: it must not wait.
  // `hosts`: of each cluster.
  Triggers(World& world, std::array<std::vector<Host*>, 2> hosts,
           std::function<void(const Op&)> fire);

  void arm(const Op& op);
  // Nothing fires any more.
  void disarm() { armed_.clear(); }

 private:
  struct Armed {
    Op op;
    uint64_t left;
    bool fired = false;
    bool state_came = false;  // kSyncBehindState
  };

  void about_to(Op::Trigger trigger, const std::function<bool(const Op&)>& concerns);
  void about_to_sync(const Host& host, std::string_view path);
  void about_to_call();
  void about_to_commit(const std::vector<ClusterOp>& ops);
  void about_to_store(const BackupHead& head);
  // Null where there is no such host.
  const Host* host_of(const Op& op) const;
  // What happens to whoever triggers it happens to the caller's host.
  Op aimed(const Op& op) const;
  // Of the calling thread; null where it is of none.
  const Host* host_of_caller() const;

  const std::array<std::vector<Host*>, 2> hosts_;
  const std::function<void(const Op&)> fire_;
  std::vector<std::shared_ptr<Armed>> armed_;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_TRIGGERS_H_
