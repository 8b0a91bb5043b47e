// Themes of scenarios that are about single records: when they are durable, and what reads see.
#include <algorithm>
#include <array>

#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/scenario_draws.h"

namespace sluice::simulation {
namespace {

// Syncs of the host take up to `most_ms`, all the time.
void slow_syncs(Random& random, Scenario& scenario, size_t host, int64_t most_ms) {
  Op slow = draw_fault(random, OpKind::kSlowDisk, scenario);
  slow.trigger = Op::Trigger::kTime;
  slow.host = slow.other = host;
  slow.lasts_ms = draw_ms(random, most_ms, most_ms * 10);
  for (slow.at_ms = 0; slow.at_ms < scenario.lasts_ms; slow.at_ms += slow.lasts_ms) {
    scenario.ops.push_back(slow);
  }
}

// Many writes and reads of few keys, each of them on one replica.
void crowd_few_keys(Random& random, Scenario& scenario, int64_t longest_sync_ms) {
  make_calm(scenario);
  scenario.shape.nodes = 1 + random.below(2);
  scenario.shape.replicas = 1;
  scenario.lasts_ms = 8'000;
  scenario.keys = 4;
  scenario.writers = 3 + random.below(3);
  scenario.longest_pause_ms = 50;
  for (size_t host = 0; host < scenario.shape.nodes; ++host) {
    slow_syncs(random, scenario, host, longest_sync_ms);
  }
}

// Clocks of hosts differ, by seconds or hours.
void set_clocks_apart(Random& random, Scenario& scenario) {
  for (size_t host = 0; host < scenario.shape.nodes; ++host) {
    if (random.chance(0.5)) continue;
    Op jump = draw_fault(random, OpKind::kClockJump, scenario);
    jump.trigger = Op::Trigger::kTime;
    jump.host = jump.other = host;
    jump.at_ms = draw_ms(random, 0, 500);
    scenario.ops.push_back(jump);
  }
}

void draw_losses(Random& random, Scenario& scenario, Op::Trigger trigger) {
  for (size_t n = 6; n > 0; --n) {
    Op loss = draw_fault(random, OpKind::kPowerLoss, scenario);
    loss.trigger = trigger;
    loss.count = trigger == Op::Trigger::kSync ? 1 + random.below(6) : 0;
    loss.lasts_ms = draw_ms(random, 10, 100);
    scenario.ops.push_back(loss);
  }
}

}  // namespace

// Power is lost as a sync begins, or in the middle of one, while writes wait for it and reads see
// them.
void draw_losses_behind_a_sync(Random& random, Scenario& scenario) {
  crowd_few_keys(random, scenario, 60);
  const bool reads = random.chance(0.5);
  scenario.readers = reads ? 3 : 0;
  draw_losses(random, scenario, reads ? Op::Trigger::kTime : Op::Trigger::kSync);
}

// Answers are lost and writes come again while the first of them is being made durable.
void draw_repeated_writes(Random& random, Scenario& scenario) {
  crowd_few_keys(random, scenario, 400);
  scenario.calls.broken = 0.1;
  draw_losses(random, scenario, Op::Trigger::kTime);
}

// A node that the others do not hear writes to its own replica alone, and is heard again. Clocks
// differ: what was written by others meanwhile may be ahead of its own.
void draw_half_written(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.shape.nodes = scenario.shape.replicas = 3;
  scenario.keys = 8;
  scenario.writers = 3;
  scenario.readers = 3;
  scenario.longest_pause_ms = 400;
  if (random.chance(0.5)) set_clocks_apart(random, scenario);
  for (int64_t at_ms = 500; at_ms < scenario.lasts_ms; at_ms += draw_ms(random, 1'500, 4'000)) {
    Op op = draw_fault(random, OpKind::kPartition, scenario);
    op.trigger = Op::Trigger::kTime;
    op.at_ms = at_ms;
    op.lasts_ms = draw_ms(random, 100, 1'200);
    for (size_t i = 1; i < scenario.shape.nodes; ++i) {
      op.other = (op.host + i) % scenario.shape.nodes;
      scenario.ops.push_back(op);
    }
  }
}

// Writes are on their way as cuts are taken, from nodes whose clocks are ahead.
void draw_writes_behind_the_cut(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.writers = 4;
  scenario.longest_pause_ms = 5;
  scenario.lasts_ms = 8'000;
  set_clocks_apart(random, scenario);
  draw_backups(random, scenario, 4);
}

}  // namespace sluice::simulation
