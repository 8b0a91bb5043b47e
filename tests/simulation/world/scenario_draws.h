// What scenarios are drawn from. Internal to make_scenario().
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_DRAWS_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_DRAWS_H_

#include <cstdint>

#include "base/random.h"
#include "tests/simulation/world/scenario.h"

namespace sluice::simulation {

// Both included.
int64_t draw_ms(Random& random, int64_t least, int64_t most);
Op draw_fault(Random& random, OpKind kind, const Scenario& scenario);
Op draw_damage(Random& random, OpKind kind, const Scenario& scenario);
Op draw_operator(Random& random, OpKind kind, const Scenario& scenario);
// Adds operations that go together, and what they need.
void draw_theme(Random& random, Scenario& scenario);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_DRAWS_H_
