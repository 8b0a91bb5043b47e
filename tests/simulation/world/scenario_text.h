// A scenario as text, a name and a value to a line, for what seeds alone do not say: what was left
// out of it.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_TEXT_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_TEXT_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "tests/simulation/world/scenario.h"

namespace sluice::simulation {

std::string scenario_text(const Scenario& scenario);
// INVALID_ARGUMENT naming the line.
absl::StatusOr<Scenario> parse_scenario(std::string_view text);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_TEXT_H_
