// A cluster block in one SQLite file, shared by any number of processes of one machine. Not for
// network file systems.
//
// Durable: what commit() returned OK for survives a crash of the process and of the machine (WAL,
// synchronous FULL). Leases run on the machine's monotonic clock, which all its processes share;
// those of an earlier boot have ended. They are kept in a table beside the database
// (control/cluster_block/lease_table.h): granting and renewing one waits for no commit, nobody's,
// and neither does reading. While another writer holds the database for longer than
// busy_timeout_ms, commit() and revoke() are UNAVAILABLE, and nothing else is; a lease that was
// revoked has ended nevertheless.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_CLUSTER_BLOCK_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_CLUSTER_BLOCK_H_

#include <memory>
#include <string>

#include "control/cluster_block/cluster_block.h"

namespace sluice {

struct SqliteClusterBlockOptions {
  std::string path;
  bool create = false;
  Clock* clock =
      nullptr;  // the system's when null; its monotonic time must be common to all processes
  int busy_timeout_ms =
      10'000;  // how long a method waits for other writers before it is UNAVAILABLE
  // How often watches look for what nobody announces: leases that have ended, commits of a process
  // that was killed behind them.
  int poll_ms = 20;
  uint64_t kept_erasures =
      4096;  // how many erased keys are remembered for watches; beyond them: kResync
};

// Errors as open_cluster_block().
absl::StatusOr<std::unique_ptr<ClusterBlock>> open_sqlite_cluster_block(
    const SqliteClusterBlockOptions& options);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_CLUSTER_BLOCK_H_
