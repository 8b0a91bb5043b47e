// Lives through a scenario in a simulated world, and checks what DESIGN promises (oracle.h): to be
// called inside of a run, which fails where a promise is broken.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_

#include "tests/simulation/simulation.h"
#include "tests/simulation/world/scenario.h"

namespace sluice::simulation {

// Adds to the run's output what happened in it, a line "count NAME NUMBER" for each kind.
void live_through(const Scenario& scenario);

// In a child process; `print` to stderr what happens.
Result run_scenario(const Scenario& scenario, bool print = false);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_
