// What the stages of the nodes did in a restore: what they say at its end less what they said at
// its beginning. Work for others in that time is in it.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_STAGES_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_STAGES_H_

#include <vector>

#include "control/peers/cluster_connection.h"
#include "control/peers/stage_report.h"

namespace sluice {

// Of all nodes that answer soon: a report is not worth a wait.
std::vector<StageReport> read_stages(ClusterConnection& cluster);

// Of stages that moved something. One of a node that was started meanwhile counts from then.
std::vector<StageReport> stages_since(const std::vector<StageReport>& before,
                                      const std::vector<StageReport>& now);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_STAGES_H_
