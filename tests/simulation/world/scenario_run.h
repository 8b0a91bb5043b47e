// Lives through a scenario in a simulated world, and checks what DESIGN promises (oracle.h): to be
// called inside of a run, which fails where a promise is broken.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_

#include <functional>

#include "tests/simulation/simulation.h"
#include "tests/simulation/world/scenario.h"

namespace sluice::simulation {

// Called before each operation, on the thread that it happens on: for tests, to break a promise at
// one.
using OpHook = std::function<void(const Op&)>;

// Adds to the run's output what happened in it, a line "count NAME NUMBER" for each kind.
void live_through(const Scenario& scenario, const OpHook& before = {});

// In a child process; `print` to stderr what happens.
Result run_scenario(const Scenario& scenario, bool print = false, const OpHook& before = {});

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_RUN_H_
