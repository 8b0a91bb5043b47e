// Themes of scenarios in the cluster that is restored into.
#include <algorithm>
#include <array>

#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/scenario_draws.h"

namespace sluice::simulation {

// The cluster that is restored into has writers and faults of its own.
void draw_trouble_in_other(Random& random, Scenario& scenario) {
  scenario.other.nodes = 1 + random.below(3);
  scenario.other.replicas = static_cast<uint32_t>(1 + random.below(scenario.other.nodes));
  scenario.other.slot_bits = static_cast<uint32_t>(2 + random.below(4));
  scenario.other_writers = random.below(3);
  constexpr std::array kKinds = {OpKind::kPowerLoss, OpKind::kPowerLoss, OpKind::kCrash,
                                 OpKind::kBlackout,  OpKind::kDataGone,  OpKind::kRestart,
                                 OpKind::kPause,     OpKind::kCutStreams};
  for (size_t n = 2 + random.below(3); n > 0; --n) {
    Op op = draw_fault(random, kKinds[random.below(kKinds.size())], scenario);
    op.cluster = 1;
    op.host = random.below(scenario.other.nodes);
    op.other = random.below(scenario.other.nodes);
    if (random.chance(0.5)) {
      op.trigger = random.chance(0.5) ? Op::Trigger::kSync : Op::Trigger::kRestoreEnd;
      op.count = op.trigger == Op::Trigger::kSync ? random.below(60) : random.below(2);
    }
    scenario.ops.push_back(op);
  }
  int64_t at_ms = draw_ms(random, scenario.lasts_ms / 6, scenario.lasts_ms / 2);
  const size_t backup = kBackupNames + random.below(kBackupNames);
  for (size_t n = 2 + random.below(3); n > 0; --n) {
    Op op;
    op.kind = OpKind::kRestoreToOther;
    op.backup = backup;
    op.at_ms = at_ms;
    at_ms += draw_ms(random, 100, 5'000);
    scenario.ops.push_back(op);
    if (random.chance(0.6)) continue;
    Op crash;
    crash.kind = OpKind::kCrashOperator;
    crash.at_ms = op.at_ms + draw_ms(random, 5, 300);
    scenario.ops.push_back(crash);
  }
  draw_backups(random, scenario, 1);
}

// A restore is cut short, a store that it has brought slots to is replaced, and it is run again.
void draw_replaced_store(Random& random, Scenario& scenario) {
  scenario.other.nodes = 1 + random.below(2);
  scenario.other.replicas = 1;
  scenario.other.slot_bits = 3;
  Op restore;
  restore.kind = OpKind::kRestoreToOther;
  restore.at_ms = draw_ms(random, scenario.lasts_ms / 3, scenario.lasts_ms / 2);
  restore.backup = kBackupNames;
  scenario.ops.push_back(restore);
  Op crash;
  crash.kind = OpKind::kCrashOperator;
  crash.at_ms = restore.at_ms + draw_ms(random, 4, 120);
  scenario.ops.push_back(crash);
  Op gone = draw_fault(random, OpKind::kDataGone, scenario);
  gone.trigger = Op::Trigger::kTime;
  gone.cluster = 1;
  gone.host = gone.other = random.below(scenario.other.nodes);
  gone.at_ms = crash.at_ms + draw_ms(random, 0, 50);
  gone.lasts_ms = draw_ms(random, 10, 200);
  scenario.ops.push_back(gone);
  for (size_t n = 2; n > 0; --n) {
    restore.at_ms = gone.at_ms + draw_ms(random, 1'000, 5'000);
    scenario.ops.push_back(restore);
  }
}

// Power is lost as soon as a restore over what was restored before has completed.
void draw_loss_behind_a_restore(Random& random, Scenario& scenario) {
  scenario.other.nodes = 1 + random.below(2);
  scenario.other.replicas = static_cast<uint32_t>(scenario.other.nodes);
  scenario.other.slot_bits = 2;
  int64_t at_ms = draw_ms(random, 500, scenario.lasts_ms / 4);
  for (size_t n = 0; n < 3; ++n) {
    Op backup;
    backup.kind = OpKind::kBackup;
    backup.backup = n;
    backup.at_ms = at_ms;
    Op restore;
    restore.kind = OpKind::kRestoreToOther;
    restore.backup = n;
    restore.at_ms = at_ms + draw_ms(random, 700, 2'000);
    at_ms = restore.at_ms + draw_ms(random, 500, 3'000);
    scenario.ops.push_back(backup);
    scenario.ops.push_back(restore);
  }
  for (size_t n = 1 + random.below(2); n > 0; --n) {
    Op loss = draw_fault(random, OpKind::kBlackout, scenario);
    loss.cluster = 1;
    loss.host = loss.other = 0;
    loss.at_ms = 0;
    loss.lasts_ms = draw_ms(random, 100, 2'000);
    loss.trigger = Op::Trigger::kRestoreEnd;
    loss.count = random.below(4);
    scenario.ops.push_back(loss);
  }
}

// What a restore has left on its lists is tried again by clients that die, or the restore is.
void draw_unfinished_retries(Random& random, Scenario& scenario) {
  scenario.other = {.nodes = 1 + random.below(2), .replicas = 1, .slot_bits = 2};
  Op op;
  op.kind = OpKind::kBackup;
  op.backup = 0;
  op.at_ms = draw_ms(random, 1'000, scenario.lasts_ms / 3);
  scenario.ops.push_back(op);
  op.at_ms += draw_ms(random, 600, 1'500);
  for (size_t n = 2 + random.below(3); n > 0; --n) {
    Op rot = draw_fault(random, OpKind::kArchiveRot, scenario);
    rot.trigger = Op::Trigger::kTime;
    rot.at_ms = op.at_ms;
    scenario.ops.push_back(rot);
  }
  op.kind = OpKind::kRestoreToOther;
  op.at_ms += 10;
  scenario.ops.push_back(op);
  for (size_t n = 1 + random.below(3); n > 0; --n) {
    op.kind = random.chance(0.5) ? OpKind::kRetryInOther : OpKind::kRestoreToOther;
    op.at_ms += draw_ms(random, 300, 2'000);
    scenario.ops.push_back(op);
    Op crash;
    crash.kind = OpKind::kCrashOperator;
    crash.at_ms = op.at_ms + draw_ms(random, 2, 60);
    scenario.ops.push_back(crash);
  }
}

// The first restore into slots that are written to for the first time.
void draw_writes_into_a_restore(Random& random, Scenario& scenario) {
  scenario.other.nodes = 1 + random.below(3);
  scenario.other.replicas = static_cast<uint32_t>(1 + random.below(scenario.other.nodes));
  scenario.other.slot_bits = static_cast<uint32_t>(3 + random.below(4));
  scenario.other_writers = 3;
  scenario.keys = 64;
  scenario.longest_pause_ms = 20;
  Op op;
  op.kind = OpKind::kBackup;
  op.at_ms = draw_ms(random, 1'000, scenario.lasts_ms / 2);
  scenario.ops.push_back(op);
  op.kind = OpKind::kRestoreToOther;
  op.at_ms += draw_ms(random, 600, 2'000);
  scenario.ops.push_back(op);
}

// What a restore could not bring to a node that is away is tried again while that is still away, by
// nodes that stop in the middle of it.
void draw_stopped_retries(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.lasts_ms = 25'000;
  scenario.other = {.nodes = 2, .replicas = 1, .slot_bits = 3};
  Op op;
  op.kind = OpKind::kBackup;
  op.at_ms = draw_ms(random, 1'000, 2'000);
  scenario.ops.push_back(op);
  Op away = draw_fault(random, OpKind::kCrash, scenario);
  away.trigger = Op::Trigger::kTime;
  away.cluster = 1;
  away.host = random.below(scenario.other.nodes);
  away.other = away.host;
  away.at_ms = op.at_ms + draw_ms(random, 500, 1'000);
  away.lasts_ms = draw_ms(random, 6'000, 25'000);
  scenario.ops.push_back(away);
  op.kind = OpKind::kRestoreToOther;
  op.at_ms = away.at_ms + draw_ms(random, 100, 4'000);
  scenario.ops.push_back(op);
  op.kind = OpKind::kRetryInOther;
  for (size_t n = 2 + random.below(2); n > 0; --n) {
    op.at_ms += draw_ms(random, 1'500, 6'000);
    scenario.ops.push_back(op);
    Op stop = draw_fault(random, OpKind::kRestart, scenario);
    stop.trigger = Op::Trigger::kTime;
    stop.at_ms = op.at_ms + draw_ms(random, 10, int64_t{40} << random.below(7));
    stop.lasts_ms = draw_ms(random, 10, 200);
    scenario.ops.push_back(stop);
  }
}

}  // namespace sluice::simulation
