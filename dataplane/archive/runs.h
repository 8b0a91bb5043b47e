// The order in which an archive's blocks are read: as they stand on disk, but with the blocks of
// one run together.
#ifndef SLUICE_DATAPLANE_ARCHIVE_RUNS_H_
#define SLUICE_DATAPLANE_ARCHIVE_RUNS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "dataplane/archive/manifest.h"

namespace sluice {

// DATA_LOSS when a slot's sequence numbers are not 0, 1, 2 ... or its runs do not begin and end.
absl::StatusOr<std::vector<BlockLocation>> order_runs(std::vector<BlockLocation> blocks);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_RUNS_H_
