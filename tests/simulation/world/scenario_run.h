// Lives through a scenario in a simulated world, and checks what DESIGN promises: to be called
// inside of a run, which fails where a promise is broken.
//
// I1 Every read returns the value of a write that is at least as new as each one acknowledged
//    before it began (or concurrent with it).
// I2 A completed backup holds each write acknowledged before it was asked for, or a newer one.
// I3 It holds nothing stamped above its cut.
// I4 After a completed restore the cluster holds every record of the archive, or a newer one.
// I5 Each completed backup that nobody deleted verifies.
// I6 Attempts of a backup never fall, and its states follow each other as states.h has it.
// I8 Everything ends; once all is healed, a read, a write, a backup, its verification and a restore
//    succeed at once.
// I9 Nothing is reported as damaged that is not.
// I10 A clean stop succeeds, and leaves no cut behind.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_

#include "tests/simulation/simulation.h"
#include "tests/simulation/world/scenario.h"

namespace sluice::simulation {

// For statistics; added to the run's output as a line "counts ...".
struct RunCounts {
  uint64_t acknowledged = 0;
  uint64_t unacknowledged = 0;
  uint64_t backups_completed = 0;
  uint64_t backups_failed = 0;
  uint64_t restores_completed = 0;
  uint64_t faults = 0;
};

void live_through(const Scenario& scenario);

// In a child process; `print` to stderr what happens.
Result run_scenario(const Scenario& scenario, bool print = false);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_
