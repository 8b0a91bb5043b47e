// Themes of scenarios: faults and operations that are each likely, but seldom meet by themselves.
#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <vector>

#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/scenario_draws.h"

namespace sluice::simulation {

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

namespace {

// Nodes are started again behind their cuts, while writes are on their way.
void draw_restarts_behind_the_cut(Random& random, Scenario& scenario) {
  // Another node goes on with a write that its replica has not answered.
  scenario.shape.nodes = std::max<size_t>(scenario.shape.nodes, 2);
  if (random.chance(0.8)) scenario.shape.replicas = 1;
  scenario.calls.delayed_from_writers = 0.3;
  scenario.writers = 6;
  scenario.longest_pause_ms = 50;
  for (size_t n = 1 + random.below(3); n > 0; --n) {
    Op op =
        draw_strike(random, OpKind::kCrash, scenario, Op::Trigger::kState, BackupState::kEnabled);
    op.lasts_ms = draw_ms(random, 10, 100);
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

// A process is killed between making its directories and making their names durable, and the power
// is lost once the next one has served.
void draw_kill_in_a_new_directory(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.longest_pause_ms = 50;
  Op gone = draw_fault(random, OpKind::kDataGone, scenario);
  gone.trigger = Op::Trigger::kTime;
  gone.at_ms = draw_ms(random, 500, scenario.lasts_ms / 3);
  gone.lasts_ms = draw_ms(random, 10, 200);
  Op kill = gone;
  kill.kind = OpKind::kCrash;
  kill.trigger = Op::Trigger::kNamesSync;
  kill.count = random.below(4);
  Op loss = gone;
  loss.kind = random.chance(0.5) ? OpKind::kPowerLoss : OpKind::kBlackout;
  loss.at_ms += draw_ms(random, 2'500, 6'000);
  scenario.ops.insert(scenario.ops.end(), {gone, kill, loss});
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

// Whoever drives a backup stands still for longer than its lease, and goes on when another node
// has taken the backup over.
void draw_paused_coordinator(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.lasts_ms = 25'000;
  scenario.shape.nodes = std::max<size_t>(scenario.shape.nodes, 2);
  constexpr std::array kStates = {BackupState::kPlanning, BackupState::kEnabled,
                                  BackupState::kCopyCompleted, BackupState::kConsolidated};
  Op op;
  op.kind = OpKind::kBackup;
  op.at_ms = draw_ms(random, 500, 4'000);
  op.backup = random.below(kBackupNames);
  scenario.ops.push_back(op);
  op.kind = OpKind::kPauseCoordinator;
  op.at_ms = 0;
  op.trigger = Op::Trigger::kState;
  op.state = kStates[random.below(kStates.size())];
  op.lasts_ms = draw_ms(random, 10'500, 16'000);
  scenario.ops.push_back(op);
  // What others do lasts longer where they have to wait as well.
  for (size_t host = 0; host < scenario.shape.nodes; ++host) {
    if (random.chance(0.6)) continue;
    Op slow = draw_fault(random, OpKind::kSlowDisk, scenario);
    slow.trigger = Op::Trigger::kTime;
    slow.host = slow.other = host;
    slow.at_ms = 0;
    slow.lasts_ms = draw_ms(random, 5'000, 20'000);
    scenario.ops.push_back(slow);
  }
}

// Each attempt has other targets: one of them is away for some of the time.
void draw_unplanned_slots(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.lasts_ms = 25'000;
  scenario.shape.nodes = 2 + random.below(3);
  scenario.shape.replicas = static_cast<uint32_t>(1 + random.below(scenario.shape.nodes));
  scenario.shape.slot_bits = 5;
  const size_t host = random.below(scenario.shape.nodes);
  const auto add = [&](OpKind kind, int64_t at_ms) -> Op& {
    Op op;
    op.kind = kind;
    op.at_ms = at_ms;
    op.host = op.other = host;
    return scenario.ops.emplace_back(op);
  };
  int64_t at_ms = draw_ms(random, 500, 2'000);
  // Its part has some slots, then the node is away until it has lost its lease.
  for (size_t i = 0; i < scenario.shape.nodes; ++i) {
    Op& slow = add(OpKind::kSlowDisk, at_ms);
    slow.host = slow.other = i;
    slow.lasts_ms = draw_ms(random, 200, 2'000);
  }
  add(OpKind::kBackup, at_ms);
  Op& away = add(random.chance(0.5) ? OpKind::kCrash : OpKind::kPowerLoss, at_ms);
  away.trigger = Op::Trigger::kSyncBehindState;
  away.state = BackupState::kEnabled;
  away.count = 4 + random.below(24);
  away.lasts_ms = draw_ms(random, 1'000, 14'000);
  for (size_t n = 1 + random.below(3); n > 0; --n) {
    at_ms += draw_ms(random, 300, 4'000);
    add(OpKind::kCancel, at_ms);
    at_ms += draw_ms(random, 50, 2'000);
    add(OpKind::kResume, at_ms);
  }
}

// Copies differ, and the streams that merge them break.
void draw_broken_merges(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.shape = {.nodes = 3 + random.below(2), .replicas = 3, .slot_bits = 5};
  scenario.writers = 3;
  scenario.keys = 32;
  scenario.longest_pause_ms = 200;
  scenario.lasts_ms = 10'000;
  const auto draw_host = [&](Op& op) {
    op.trigger = Op::Trigger::kTime;
    op.host = random.below(scenario.shape.nodes);
    op.other = (op.host + 1 + random.below(scenario.shape.nodes - 1)) % scenario.shape.nodes;
  };
  for (size_t n = 3; n > 0; --n) {
    Op crash = draw_fault(random, OpKind::kCrash, scenario);
    draw_host(crash);
    crash.at_ms = draw_ms(random, 500, scenario.lasts_ms * 3 / 4);
    crash.lasts_ms = draw_ms(random, 100, 1'000);
    scenario.ops.push_back(crash);
    Op backup;
    backup.kind = OpKind::kBackup;
    backup.backup = n;
    backup.at_ms = crash.at_ms + crash.lasts_ms + draw_ms(random, 400, 1'500);
    scenario.ops.push_back(backup);
  }
  for (size_t n = 12; n > 0; --n) {
    Op cut = draw_fault(random, OpKind::kCutStreams, scenario);
    draw_host(cut);
    cut.at_ms = 0;
    cut.trigger = Op::Trigger::kState;
    cut.state = BackupState::kEnabled;
    cut.count = n % 3;
    scenario.ops.push_back(cut);
  }
}

// Parts of completed backups are exchanged, between hosts or on one.
void draw_swapped_parts(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.shape.nodes = std::max<size_t>(scenario.shape.nodes, 2);
  Op op;
  op.kind = OpKind::kBackup;
  for (op.backup = 0; op.backup < 2; ++op.backup) {
    op.at_ms += draw_ms(random, 500, 2'000);
    scenario.ops.push_back(op);
  }
  Op swap = draw_damage(random, OpKind::kArchiveSwap, scenario);
  swap.at_ms = op.at_ms + draw_ms(random, 2'000, 4'000);
  scenario.ops.push_back(swap);
}

// A node comes back at another address while others cannot read of it, and nothing else changes.
void draw_missed_changes(Random& random, Scenario& scenario) {
  make_calm(scenario);
  scenario.shape.nodes = 2 + random.below(2);
  scenario.shape.replicas = 2;
  scenario.writers = 0;
  Op crash = draw_fault(random, OpKind::kCrash, scenario);
  crash.trigger = Op::Trigger::kTime;
  crash.at_ms = scenario.lasts_ms - draw_ms(random, 3'000, 5'000);
  crash.lasts_ms = draw_ms(random, 10, 500);
  scenario.ops.push_back(crash);
  for (size_t host = 0; host < scenario.shape.nodes; ++host) {
    if (host == crash.host) continue;
    Op alone = crash;
    alone.kind = OpKind::kNoBlock;
    alone.host = alone.other = host;
    alone.at_ms += draw_ms(random, 0, 400);
    alone.lasts_ms = draw_ms(random, 500, 2'000);
    scenario.ops.push_back(alone);
  }
}

constexpr double kCalmChance = 0.6;

struct Theme {
  std::string_view name;
  void (*draw)(Random& random, Scenario& scenario);
};
// A name twice: twice as often.
constexpr Theme kThemes[] = {
    {"restarts-behind-the-cut", draw_restarts_behind_the_cut},
    {"losses-of-power-in-a-part", draw_losses_of_power_in_a_part},
    {"kill-in-a-new-directory", draw_kill_in_a_new_directory},
    {"absence-at-the-commit", draw_absence_at_the_commit},
    {"attempts", draw_attempts},
    {"quarrel-about-a-name", draw_quarrel_about_a_name},
    {"paused-coordinator", draw_paused_coordinator},
    {"unplanned-slots", draw_unplanned_slots},
    {"broken-merges", draw_broken_merges},
    {"deletions-while-read", draw_deletions_while_read},
    {"swapped-parts", draw_swapped_parts},
    {"short-set-back", draw_short_set_back},
    {"missed-changes", draw_missed_changes},
    {"losses-behind-a-sync", draw_losses_behind_a_sync},
    {"repeated-writes", draw_repeated_writes},
    {"half-written", draw_half_written},
    {"writes-behind-the-cut", draw_writes_behind_the_cut},
    {"trouble-in-other", draw_trouble_in_other},
    {"trouble-in-other", draw_trouble_in_other},
    {"replaced-store", draw_replaced_store},
    {"loss-behind-a-restore", draw_loss_behind_a_restore},
    {"unfinished-retries", draw_unfinished_retries},
    {"stopped-retries", draw_stopped_retries},
    {"writes-into-a-restore", draw_writes_into_a_restore},
};

}  // namespace

void draw_theme(Random& random, Scenario& scenario) {
  if (random.chance(kCalmChance)) make_calm(scenario);
  const Theme& theme = kThemes[random.below(std::size(kThemes))];
  scenario.theme = theme.name;
  theme.draw(random, scenario);
}

std::vector<std::string_view> theme_names() {
  std::vector<std::string_view> names;
  for (const Theme& theme : kThemes) {
    if (names.empty() || names.back() != theme.name) names.push_back(theme.name);
  }
  return names;
}

}  // namespace sluice::simulation
