// Who joins a simulated cluster, and with what, checked as it passes between processes: ends the
// run where a promise is broken.
//
// I11 A node answers no call that reads or changes records before its process has begun to join.
//     One that peers know to have done more since its last join does not join, unless the loss is
//     accepted.
//
// Not thread-safe: called by whichever thread of the run sends something, without waiting.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_ORACLE_JOINS_H_
#define SLUICE_TESTS_SIMULATION_WORLD_ORACLE_JOINS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/simulation/world/world.h"

namespace sluice::simulation {

// Lives until the run ends.
class JoinOracle {
 public:
  // Processes that run now have joined.
  explicit JoinOracle(World& world);

  // Whether this host answers all that it is asked, and gets all answers, for a while now.
  void tells_all(std::function<bool(const Host&)> is_well) { is_well_ = std::move(is_well); }
  // Told when a process with a copy of a node's data publishes what it has: before it may answer
  // anything, and then now and again.
  void tell_copies(std::function<void(const Host&)> on_copy) { on_copy_ = std::move(on_copy); }
  void answered(const DirectMessage& message);
  // By the running process.
  void about_to_commit(const std::vector<ClusterOp>& ops);

 private:
  // What a process was told by a node.
  struct Heard {
    std::string token;  // of the node's join
    uint64_t change = 0;
    int64_t at_ns = 0;
  };

  void joins(const Host& host, std::string_view token, uint64_t change);

  World& world_;
  std::function<bool(const Host&)> is_well_;
  std::function<void(const Host&)> on_copy_;
  std::set<const Process*> joined_;
  std::map<std::string, std::string, std::less<>> tokens_;  // of each node's last join
  std::map<std::pair<const Process*, std::string>, Heard> heard_;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_ORACLE_JOINS_H_
