// Themes of scenarios: faults and operations that are each likely, but seldom meet by themselves.
#include <algorithm>
#include <array>

#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/scenario_draws.h"

namespace sluice::simulation {
namespace {

Op draw_strike(Random& random, OpKind kind, const Scenario& scenario, Op::Trigger trigger,
               BackupState state) {
  Op op = draw_fault(random, kind, scenario);
  op.at_ms = draw_ms(random, 0, scenario.lasts_ms / 4);
  op.trigger = trigger;
  op.state = state;
  op.count = trigger == Op::Trigger::kState ? random.below(2) : random.below(16);
  return op;
}

void draw_backups(Random& random, Scenario& scenario, size_t count) {
  for (; count > 0; --count) {
    Op op;
    op.kind = OpKind::kBackup;
    op.at_ms = draw_ms(random, scenario.lasts_ms / 4, scenario.lasts_ms);
    op.backup = random.below(kBackupNames);
    scenario.ops.push_back(op);
  }
}

// Nothing happens but what the theme adds.
void make_calm(Scenario& scenario) {
  scenario.ops.clear();
  scenario.calls = {};
  scenario.block = {};
}

// Nodes are started again behind their cuts, while writes are on their way.
void draw_restarts_behind_the_cut(Random& random, Scenario& scenario) {
  if (random.chance(0.7)) scenario.shape.replicas = 1;
  scenario.calls.delayed = 0.2;
  for (size_t n = 1 + random.below(3); n > 0; --n) {
    Op op =
        draw_strike(random, OpKind::kCrash, scenario, Op::Trigger::kState, BackupState::kEnabled);
    op.lasts_ms = draw_ms(random, 10, 200);
    scenario.ops.push_back(op);
  }
  draw_backups(random, scenario, 3);
}

// Power is lost again and again while a part is written.
void draw_losses_of_power_in_a_part(Random& random, Scenario& scenario) {
  const size_t host = random.below(scenario.shape.nodes);
  for (size_t n = 2 + random.below(3); n > 0; --n) {
    Op op = draw_strike(random, OpKind::kPowerLoss, scenario, Op::Trigger::kSyncBehindState,
                        random.chance(0.7) ? BackupState::kEnabled : BackupState::kPlanning);
    op.host = host;
    op.count = random.below(8) + 8 * random.below(4);
    op.lasts_ms = draw_ms(random, 10, 300);
    scenario.ops.push_back(op);
  }
  scenario.shape.slot_bits = 5;
  draw_backups(random, scenario, 3);
}

// A process is killed while it makes its directory, and the power is lost once the backup stands.
void draw_kill_in_a_new_directory(Random& random, Scenario& scenario) {
  Op kill = draw_strike(random, OpKind::kCrash, scenario, Op::Trigger::kSyncBehindState,
                        BackupState::kEnabled);
  kill.count = random.below(5);
  kill.lasts_ms = draw_ms(random, 10, 300);
  Op loss = kill;
  loss.kind = random.chance(0.5) ? OpKind::kPowerLoss : OpKind::kBlackout;
  loss.trigger = Op::Trigger::kState;
  loss.state = BackupState::kCompleted;
  loss.count = 0;
  scenario.ops.push_back(kill);
  scenario.ops.push_back(loss);
  draw_backups(random, scenario, 2);
}

// Targets are away when the manifest is stored.
void draw_absence_at_the_commit(Random& random, Scenario& scenario) {
  constexpr std::array kKinds = {OpKind::kCrash, OpKind::kPowerLoss, OpKind::kPause,
                                 OpKind::kPartition};
  for (size_t n = 1 + random.below(2); n > 0; --n) {
    scenario.ops.push_back(draw_strike(random, kKinds[random.below(kKinds.size())], scenario,
                                       Op::Trigger::kState, BackupState::kConsolidated));
  }
  draw_backups(random, scenario, 2);
}

// Attempts with other targets each.
void draw_attempts(Random& random, Scenario& scenario) {
  for (size_t n = 2 + random.below(2); n > 0; --n) {
    Op op = draw_strike(random, OpKind::kCrash, scenario, Op::Trigger::kSyncBehindState,
                        BackupState::kEnabled);
    op.lasts_ms = draw_ms(random, 1'000, 8'000);
    scenario.ops.push_back(op);
  }
  const size_t backup = random.below(kBackupNames);
  const int64_t begin_ms = draw_ms(random, 0, scenario.lasts_ms / 2);
  constexpr std::array kKinds = {OpKind::kBackup, OpKind::kCancel, OpKind::kResume,
                                 OpKind::kCancel, OpKind::kResume, OpKind::kResume};
  int64_t at_ms = begin_ms;
  for (const OpKind kind : kKinds) {
    Op op;
    op.kind = kind;
    op.backup = backup;
    op.at_ms = at_ms;
    at_ms += kind == OpKind::kCancel ? draw_ms(random, 200, 3'000) : draw_ms(random, 20, 500);
    scenario.ops.push_back(op);
  }
}

// A name is deleted and given again while commits come late.
void draw_quarrel_about_a_name(Random& random, Scenario& scenario) {
  scenario.block.fails_late = 0.1;
  scenario.block.fails = 0.05;
  const size_t backup = random.below(kBackupNames);
  int64_t at_ms = draw_ms(random, 0, scenario.lasts_ms / 3);
  for (size_t n = 6 + random.below(6); n > 0; --n) {
    Op op;
    op.kind = n % 3 == 0 ? OpKind::kBackup : OpKind::kDelete;
    op.backup = backup;
    op.at_ms = at_ms;
    at_ms += draw_ms(random, 0, op.kind == OpKind::kBackup ? 800 : 300);
    scenario.ops.push_back(op);
  }
}

// What is read from slow disks is deleted.
void draw_deletions_while_read(Random& random, Scenario& scenario) {
  for (size_t host = 0; host < scenario.shape.nodes; ++host) {
    Op slow = draw_fault(random, OpKind::kSlowDisk, scenario);
    slow.trigger = Op::Trigger::kTime;
    slow.host = host;
    slow.at_ms = scenario.lasts_ms / 4;
    slow.lasts_ms = draw_ms(random, 5'000, 12'000);
    scenario.ops.push_back(slow);
  }
  for (size_t n = 2 + random.below(3); n > 0; --n) {
    Op read =
        draw_operator(random, random.chance(0.6) ? OpKind::kVerify : OpKind::kRestore, scenario);
    read.trigger = Op::Trigger::kTime;
    read.at_ms = draw_ms(random, scenario.lasts_ms / 4, scenario.lasts_ms);
    scenario.ops.push_back(read);
    Op deletion = read;
    deletion.kind = OpKind::kDelete;
    deletion.at_ms += draw_ms(random, 0, 400);
    scenario.ops.push_back(deletion);
  }
  draw_backups(random, scenario, 2);
}

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

// Data is set back by less than a renewal of the lease, and nothing keeps peers from telling.
void draw_short_set_back(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.longest_pause_ms = 50;
  for (size_t n = 1 + random.below(3); n > 0; --n) {
    Op op = draw_damage(random, OpKind::kDataSetBack, scenario);
    op.lasts_ms = draw_ms(random, 20, 900);
    scenario.ops.push_back(op);
  }
}

constexpr double kCalmChance = 0.6;
constexpr std::array kThemes = {draw_restarts_behind_the_cut,
                                draw_losses_of_power_in_a_part,
                                draw_kill_in_a_new_directory,
                                draw_absence_at_the_commit,
                                draw_attempts,
                                draw_quarrel_about_a_name,
                                draw_deletions_while_read,
                                draw_trouble_in_other,
                                draw_trouble_in_other,
                                draw_short_set_back,
                                draw_replaced_store,
                                draw_loss_behind_a_restore,
                                draw_unfinished_retries,
                                draw_writes_into_a_restore};

}  // namespace

void draw_theme(Random& random, Scenario& scenario) {
  if (random.chance(kCalmChance)) make_calm(scenario);
  kThemes[random.below(kThemes.size())](random, scenario);
}

}  // namespace sluice::simulation
