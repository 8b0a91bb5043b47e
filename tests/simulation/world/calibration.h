// Whether the simulation finds what it is there to find: defects are put back (base/defect.h), one
// after the other, and seeds are run until one of them fails that passes without the defect. Needs
// a build of the preset "simulation".
#ifndef SLUICE_TESTS_SIMULATION_WORLD_CALIBRATION_H_
#define SLUICE_TESTS_SIMULATION_WORLD_CALIBRATION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "tests/simulation/world/scenario.h"

namespace sluice::simulation {

struct CalibrationOptions {
  uint64_t first_seed = 1;
  uint64_t limit = 1'000;  // seeds for each defect
  size_t jobs = 1;         // processes
  std::string only;        // a defect's name; empty: all
  std::string out;         // file for the table, JSON; empty: none
  std::string table;       // a table to check instead of making one
  std::string theme;       // of the seeds that are tried; empty: all
  std::function<Scenario(uint64_t seed)> scenario_of;
};

void list_defects();
// In all runs from now on; false where no defect has the name, or this build has none.
bool put_back_named(std::string_view name);

// Makes the table: for each defect the seeds that it took, the one that found it, the invariant
// that named it and the processor time. The same for the same options, except for the time. With
// `table` it runs the seeds of a table instead: where one does not find its defect any more, others
// up to the limit are tried, of the theme that its row has, for any change of the product moves
// what a seed does. Rows of `out` whose defects were not tried stay. The exit code: 0 when all were
// found, 1 when not, 2 when nothing could be run.
int calibrate(const CalibrationOptions& options);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_CALIBRATION_H_
