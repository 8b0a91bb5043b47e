// What is seen on the way between the processes of a simulated data centre, checked as it passes:
// ends the run where a promise is broken.
//
// I6 A node that has answered a call of an attempt of a backup carries out none of a lower one that
//    begins later, but for dropping the cut of one that is deleted. What a restore stores is stored
//    under a comparison with its head.
//
// It also notes which version each write of a client was sent with, so that archives can be
// compared with acknowledged writes by version (I2).
//
// Not thread-safe: called by whichever thread of the run sends something, without waiting.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_ORACLE_WIRE_H_
#define SLUICE_TESTS_SIMULATION_WORLD_ORACLE_WIRE_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "control/proto/sluice.pb.h"
#include "tests/simulation/world/history.h"
#include "tests/simulation/world/oracle_joins.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

// Lives until the run ends.
class WireOracle {
 public:
  explicit WireOracle(World& world) : world_(world), joins_(world) {}

  // Of a cluster, whose writes are in this history.
  void watch(const std::string& cluster, History& history);
  JoinOracle& joins() { return joins_; }

 private:
  struct Answered {
    uint64_t attempt = 0;
    int64_t at_ns = 0;
  };

  void sent(const DirectMessage& message);
  History* history_of(const std::string& address);
  void note_versions(const std::string& to, const v1::WriteRequest& request);
  void note_stamps(const std::string& from, const v1::WriteRequest& request,
                   const v1::WriteReply& reply);
  void answered(const DirectMessage& message);
  bool is_deleted(const std::string& backup) const;
  static void check_commit(const std::vector<ClusterOp>& ops);

  World& world_;
  JoinOracle joins_;
  std::map<std::string, History*> histories_;                         // by cluster
  std::map<std::pair<std::string, std::string>, Answered> answered_;  // by host and backup
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_ORACLE_WIRE_H_
