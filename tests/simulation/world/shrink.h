// Finds the least of a scenario that still breaks the same promise.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SHRINK_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SHRINK_H_

#include <cstddef>
#include <functional>
#include <string>

#include "tests/simulation/simulation.h"
#include "tests/simulation/world/scenario.h"

namespace sluice::simulation {

// What makes two failures alike: the promise that is broken ("I1"), or how the run ended.
std::string failure_kind(const Result& result);

struct Shrunk {
  Scenario scenario;  // fails alike
  Result result;      // of its run
  size_t runs = 0;
};

using ScenarioRunner = std::function<Result(const Scenario&)>;

// `result` is of a run of the scenario that failed. Leaves out operations (ddmin: in ever smaller
// pieces, until none can be left out), faults of calls and of the cluster block, whole kinds of
// faults; makes the cluster, its clients and the time smaller; and ends preemption as early as it
// can. Repeats that while it helps, for at most so many runs.
Shrunk shrink(const Scenario& scenario, const Result& result, const ScenarioRunner& run,
              size_t most_runs);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SHRINK_H_
