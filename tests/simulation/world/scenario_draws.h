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
// A fault behind something that happens early in the run.
Op draw_strike(Random& random, OpKind kind, const Scenario& scenario, Op::Trigger trigger,
               BackupState state);
void draw_backups(Random& random, Scenario& scenario, size_t count);
// Nothing happens but what is added from now on.
void make_calm(Scenario& scenario);

// Themes in files of their own, by what they are about. scenario_themes_records.cc:
void draw_losses_behind_a_sync(Random& random, Scenario& scenario);
void draw_repeated_writes(Random& random, Scenario& scenario);
void draw_half_written(Random& random, Scenario& scenario);
void draw_writes_behind_the_cut(Random& random, Scenario& scenario);
// scenario_themes_restore.cc:
void draw_trouble_in_other(Random& random, Scenario& scenario);
void draw_replaced_store(Random& random, Scenario& scenario);
void draw_loss_behind_a_restore(Random& random, Scenario& scenario);
void draw_unfinished_retries(Random& random, Scenario& scenario);
void draw_stopped_retries(Random& random, Scenario& scenario);
void draw_writes_into_a_restore(Random& random, Scenario& scenario);
// Adds operations that go together, and what they need: one of the themes.
void draw_theme(Random& random, Scenario& scenario);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SCENARIO_DRAWS_H_
