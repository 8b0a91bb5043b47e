// What an archive of a simulated cluster holds, read from the disks of its hosts.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_ARCHIVE_CONTENT_H_
#define SLUICE_TESTS_SIMULATION_WORLD_ARCHIVE_CONTENT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/client/results.h"
#include "dataplane/block/record.h"

namespace sluice::simulation {

// By key; all of the backup's parts have to be there.
absl::StatusOr<std::map<std::string, Record>> read_archive_content(
    const std::vector<ArchivePlace>& places);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_ARCHIVE_CONTENT_H_
