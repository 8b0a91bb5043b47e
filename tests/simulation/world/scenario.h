// What is to happen in one run: drawn from a seed, all of it before the run begins, so that parts
// of it can be left out.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_H_

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "control/schedule/states.h"
#include "tests/simulation/world/sim_block.h"
#include "tests/simulation/world/sim_calls.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

enum class OpKind : uint8_t {
  // Faults, of a host, for a time.
  kCrash,      // started again after it
  kPowerLoss,  // the same
  kBlackout,   // the same, of all hosts, which come back one after the other
  kRestart,    // stops cleanly
  kPause,
  kPauseCoordinator,  // the host whose doing triggers it, a moment later
  kSlowNode,          // runs a fraction of the time
  kPartition,         // from one other
  kNoBlock,           // the host does not reach the cluster block
  kClockJump,         // of the wall clock, by seconds or hours, either way
  kDiskError,         // of writes and syncs
  kSlowDisk,
  kFullDisk,
  kDataGone,        // crashes, and its data directory is not there when it starts again
  kDataCopied,      // a copy of its data directory is started on another host, for the time
  kDataSetBack,     // crashes after the time, and has the data directory that it had before it
  kArchiveRot,      // a bit of one of its archive files changes
  kArchiveGone,     // crashes, and its archive directory is not there when it starts again
  kArchiveSetBack,  // crashes after the time, and has the archive directory that it had before it
  kArchiveSwap,     // crashes with another host, and each has the other's archive directory
  kCutStreams,      // connections of streams with one other break
  kCrashClient,     // of any writer or operator
  kCrashOperator,
  // What operators do.
  kBackup,
  kBackupTwice,  // two at once under one name
  kVerify,
  kRestore,
  kRestorePrefix,
  kRestoreToOther,
  kRetry,
  kRetryInOther,
  kDelete,
  kCancel,
  kResume,
  kCount,
};
std::string_view name_of(OpKind kind);
bool is_fault(OpKind kind);
// Of an operator of the cluster that is restored into.
bool is_in_other(OpKind kind);

// Names that backups are given.
inline constexpr size_t kBackupNames = 4;

struct Op {
  // It happens at this time, or at the count-th of these after it: of the host, or of any client
  // for one of clients. kState: when a backup's head is about to be stored in the state.
  // kSyncBehindState: of the host's syncs behind that. kRestoreEnd: when a restore's head is about
  // to be stored as completed.
  enum class Trigger : uint8_t {
    kTime,
    kCommit,
    kSync,
    kCall,
    kState,
    kSyncBehindState,
    kRestoreEnd,
    kNamesSync,
    kCount
  };
  OpKind kind = OpKind::kBackup;
  int64_t at_ms = 0;
  size_t cluster = 0;  // whose hosts a fault strikes: 1 is the one that is restored into
  size_t host = 0;
  size_t other = 0;
  int64_t lasts_ms = 0;
  Trigger trigger = Trigger::kTime;
  uint64_t count = 0;
  BackupState state = BackupState::kPlanning;
  // Of an operator: number of a name; from kBackupNames on, the name of a backup that is completed
  // by then, which is waited for.
  size_t backup = 0;
};
std::string describe(const Op& op);

struct Scenario {
  uint64_t seed = 0;
  ClusterShapeOptions shape;
  ClusterShapeOptions other;  // of the cluster that is restored into; none: 0 nodes
  std::string_view theme;     // empty: none
  size_t writers = 1;
  size_t readers = 0;        // clients that get the same keys, without a longest pause
  size_t other_writers = 0;  // into the other cluster, of other keys
  size_t keys = 16;
  int64_t longest_pause_ms = 50;  // of a writer, between two writes
  int64_t lasts_ms = 20'000;      // until everything is healed
  CallFaults calls;
  BlockFaults block;
  uint64_t preempted_steps = UINT64_MAX;  // Options::preempted_steps
  std::vector<Op> ops;                    // by time
};
// With `full_disks` disks also run full. Not by default: a store may then have to be opened again
// before it takes writes, and RocksDB built with its assertions may end the process.
Scenario make_scenario(uint64_t seed, bool full_disks = false);
// Of all themes that a scenario may have.
std::vector<std::string_view> theme_names();
std::string describe(const Scenario& scenario);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_H_
