// Deletes what a restored archive does not have: keys that are live in the cluster, in the range
// that was restored, and older than the restore's moment. It comes after all records of the archive
// have been restamped on all replicas, so that what is older is none of them.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_EXTRA_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_EXTRA_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "control/peers/cluster_connection.h"
#include "dataplane/block/record.h"

namespace sluice {

struct ExtraDeletion {
  ClusterConnection* cluster = nullptr;
  std::string prefix;  // of the cluster's keys
  Version moment;      // the deletions' version
  // Whether to go on. Called from several threads.
  std::function<absl::Status()> check;
  std::function<void(uint32_t slots_done, uint32_t slots)> progress;  // one at a time
};

struct ExtraDeleted {
  uint64_t deleted = 0;  // keys
  // Of these: not durable on all replicas, though on W of them; and why.
  uint64_t left = 0;
  std::string reason;
};

// Every key is looked for on all replicas that answer, at least R-W+1, until none is found, and is
// deleted on all, at least W. UNAVAILABLE, naming the slot, where fewer answer.
absl::StatusOr<ExtraDeleted> delete_extra(const ExtraDeletion& deletion);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_EXTRA_H_
