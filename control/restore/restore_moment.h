// The moment at which a restore that undoes takes place among all writes: its records get one
// version, which is above those of all writes that were acknowledged, or begun to be read, before
// it was asked for (control/records/stamp_coordinator.h), and below those of all that are begun
// once it is known. So what was written before loses against the archive, what is written after the
// restore began stays, and a restore that is resumed, by whomever, does not change its mind.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_MOMENT_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_MOMENT_H_

#include "absl/status/statusor.h"
#include "control/peers/cluster_connection.h"
#include "dataplane/block/record.h"

namespace sluice {

// Asks one node for a version of all slots, and moves the clocks of all nodes past it, of W
// replicas of each slot at least. UNAVAILABLE naming the slot where fewer answer.
absl::StatusOr<Version> take_moment(ClusterConnection& cluster);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_MOMENT_H_
