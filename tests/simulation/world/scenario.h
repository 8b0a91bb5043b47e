// What is to happen in one run: drawn from a seed, all of it before the run begins, so that parts
// of it can be left out.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "tests/simulation/world/sim_block.h"
#include "tests/simulation/world/sim_calls.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

enum class OpKind : uint8_t {
  // Faults, of a host, for a time.
  kCrash,      // started again after it
  kPowerLoss,  // the same
  kRestart,    // stops cleanly
  kPause,
  kPartition,  // from one other
  kNoBlock,    // the host does not reach the cluster block
  kClockJump,  // of the wall clock
  kDiskError,  // of writes and syncs
  kSlowDisk,
  kFullDisk,
  kDataLoss,  // its data directory is gone when it starts again, and that is accepted
  // What operators do.
  kBackup,
  kVerify,
  kRestore,
  kRestoreToOther,
  kRetry,
  kDelete,
  kCancel,
  kResume,
};
std::string_view name_of(OpKind kind);
bool is_fault(OpKind kind);

struct Op {
  // A fault happens at this time, or at the count-th of these after it.
  enum class Trigger : uint8_t { kTime, kCommit, kSync, kCall };
  OpKind kind = OpKind::kBackup;
  int64_t at_ms = 0;
  size_t host = 0;
  size_t other = 0;
  int64_t lasts_ms = 0;
  Trigger trigger = Trigger::kTime;
  uint64_t count = 0;
  size_t backup = 0;  // of an operator: number of a name
};
std::string describe(const Op& op);

struct Scenario {
  uint64_t seed = 0;
  ClusterShapeOptions shape;
  ClusterShapeOptions other;  // of the cluster that is restored into; none: 0 nodes
  size_t writers = 1;
  size_t keys = 16;
  int64_t longest_pause_ms = 50;  // of a writer, between two writes
  int64_t lasts_ms = 20'000;      // until everything is healed
  CallFaults calls;
  BlockFaults block;
  std::vector<Op> ops;  // by time
};
// With `full_disks` disks also run full. Not by default: a store may then have to be opened again
// before it takes writes, and RocksDB built with its assertions may end the process.
Scenario make_scenario(uint64_t seed, bool full_disks = false);
std::string describe(const Scenario& scenario);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_H_
