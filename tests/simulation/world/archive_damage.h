// What hardware and operators do to the archive directories of simulated hosts. The oracle learns
// of which backups parts are damaged.
//
// To be called by threads of the harness; waits for nothing. No process that uses the directories
// is to run, but for rot().
#ifndef SLUICE_TESTS_SIMULATION_WORLD_ARCHIVE_DAMAGE_H_
#define SLUICE_TESTS_SIMULATION_WORLD_ARCHIVE_DAMAGE_H_

#include <set>
#include <string>

#include "base/random.h"
#include "tests/simulation/world/oracle.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

// The names of those of which the host has a part, or the rest of one.
std::set<std::string> backups_of(Host& host);

// A bit of one file changes, if there is one.
void rot(Host& host, Oracle& oracle, Random& random);
// Each host has the other's directories.
void swap_archives(Host& host, Host& other, Oracle& oracle);
// The directories of two backups are exchanged, if there are two.
void swap_backups(Host& host, Oracle& oracle);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_ARCHIVE_DAMAGE_H_
