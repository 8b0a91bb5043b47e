// Whether the parts of a backup are together what its plan asked for.
#ifndef SLUICE_CONTROL_BACKUP_MANIFEST_CHECK_H_
#define SLUICE_CONTROL_BACKUP_MANIFEST_CHECK_H_

#include "absl/status/status.h"
#include "control/schedule/planner.h"
#include "dataplane/archive/manifest.h"

namespace sluice {

// Each planned slot is in exactly one part; an agreed one is as its replicas published it. Parts
// leave out slots without records: a divergent slot is one when the replicas that held records of
// it are gone and those that are left hold none. DATA_LOSS says what is not so. Pure.
absl::Status check_manifest(const Plan& plan, const Manifest& manifest);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_MANIFEST_CHECK_H_
