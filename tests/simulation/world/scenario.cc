#include "tests/simulation/world/scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "tests/simulation/world/scenario_draws.h"

namespace sluice::simulation {
namespace {

constexpr std::array kFaults = {OpKind::kBlackout,   OpKind::kCrash,    OpKind::kPowerLoss,
                                OpKind::kRestart,    OpKind::kPause,    OpKind::kSlowNode,
                                OpKind::kPartition,  OpKind::kNoBlock,  OpKind::kClockJump,
                                OpKind::kDiskError,  OpKind::kSlowDisk, OpKind::kCutStreams,
                                OpKind::kCrashClient};
// After which less can be expected of what else happens.
constexpr std::array kDamages = {OpKind::kDataGone,   OpKind::kDataCopied,  OpKind::kDataSetBack,
                                 OpKind::kArchiveRot, OpKind::kArchiveGone, OpKind::kArchiveSetBack,
                                 OpKind::kArchiveSwap};
constexpr double kDamageChance = 0.06;
constexpr double kDataLossChance = 0.12;
constexpr std::array kOperators = {
    OpKind::kBackup,         OpKind::kBackup,        OpKind::kBackup,  OpKind::kBackupTwice,
    OpKind::kVerify,         OpKind::kRestore,       OpKind::kRestore, OpKind::kRestoreToOther,
    OpKind::kRestoreToOther, OpKind::kRestorePrefix, OpKind::kRetry,   OpKind::kDelete,
    OpKind::kCancel,         OpKind::kCancel,        OpKind::kResume,  OpKind::kResume};
constexpr double kThemeChance = 0.35;
constexpr double kCompletedChance = 0.8;
constexpr double kDeletedWhileReadChance = 0.25;
constexpr double kDamagedRestoreChance = 0.3;

// Of one that has to be there.
bool reads_backup(OpKind kind) {
  return kind == OpKind::kVerify || kind == OpKind::kRestore || kind == OpKind::kRestorePrefix ||
         kind == OpKind::kRestoreToOther;
}

// Most often none, else by powers of ten up to `most`.
double draw_rate(Random& random, double most) {
  if (random.chance(0.5)) return 0;
  return most * std::pow(10.0, -static_cast<double>(random.below(3)));
}

}  // namespace

int64_t draw_ms(Random& random, int64_t least, int64_t most) {
  return least + static_cast<int64_t>(random.below(static_cast<uint64_t>(most - least + 1)));
}

Op draw_fault(Random& random, OpKind kind, const Scenario& scenario) {
  Op op;
  op.kind = kind;
  op.at_ms = draw_ms(random, 0, scenario.lasts_ms * 9 / 10);
  op.host = random.below(scenario.shape.nodes);
  op.other = random.below(scenario.shape.nodes);
  op.lasts_ms = draw_ms(random, 10, random.chance(0.3) ? 12'000 : 3'000);
  if (random.chance(0.5)) {
    op.trigger = static_cast<Op::Trigger>(1 + random.below(4));
    op.count = random.below(random.chance(0.5) ? 10 : 100);
    op.state = static_cast<BackupState>(random.below(8));
    if (op.trigger == Op::Trigger::kState) op.count = random.below(2);
  }
  if (kind == OpKind::kCrashClient && op.trigger != Op::Trigger::kTime) {
    op.trigger = Op::Trigger::kCall;
  }
  return op;
}

Op draw_damage(Random& random, OpKind kind, const Scenario& scenario) {
  Op op = draw_fault(random, kind, scenario);
  op.trigger = Op::Trigger::kTime;
  // Often for so long that it has to be refused.
  if (kind == OpKind::kDataSetBack) {
    op.at_ms /= 2;
    op.lasts_ms = draw_ms(random, 1'000, scenario.lasts_ms / 2);
    // Or so short that the cluster block may not know yet what has happened since.
    if (random.chance(0.5)) op.lasts_ms = draw_ms(random, 20, 900);
  }
  return op;
}

Op draw_operator(Random& random, OpKind kind, const Scenario& scenario) {
  Op op;
  op.kind = kind;
  op.at_ms = draw_ms(random, 0, scenario.lasts_ms);
  op.backup = random.below(kBackupNames);
  if ((reads_backup(kind) || kind == OpKind::kDelete) && random.chance(kCompletedChance)) {
    op.backup += kBackupNames;
  }
  // At the worst moment: while a backup goes from one state to the next.
  if (kind != OpKind::kBackup && random.chance(reads_backup(kind) ? 0.2 : 0.5)) {
    op.trigger = Op::Trigger::kState;
    op.state = static_cast<BackupState>(random.below(8));
    op.count = random.below(reads_backup(kind) ? 2 : 3);
  }
  return op;
}

namespace {

// Of the node whose data was copied last: long enough for the copy to take its name.
void draw_standstill(Random& random, Scenario& scenario) {
  Op pause = scenario.ops.back();
  pause.kind = OpKind::kPause;
  pause.at_ms = std::max<int64_t>(pause.at_ms - draw_ms(random, 0, 1'000), 0);
  pause.lasts_ms = draw_ms(random, 3'000, 12'000);
  scenario.ops.back().lasts_ms = pause.lasts_ms + draw_ms(random, 1'000, 15'000);
  // Or so long that the copy is gone again before it goes on.
  if (random.chance(0.4)) {
    pause.lasts_ms = draw_ms(random, 12'000, 18'000);
    pause.at_ms /= 4;
    scenario.ops.back().at_ms = pause.at_ms + draw_ms(random, 0, 500);
    scenario.ops.back().lasts_ms = draw_ms(random, 4'500, 8'000);
  }
  scenario.ops.push_back(pause);
}

// After the loss of data that was drawn last.
void draw_restores(Random& random, Scenario& scenario) {
  Op restore = scenario.ops.back();
  restore.kind = OpKind::kRestore;
  for (size_t n = random.below(3); n > 0; --n) {
    restore.at_ms += draw_ms(random, 0, 4'000);
    restore.backup = kBackupNames + random.below(kBackupNames);
    scenario.ops.push_back(restore);
  }
}

// Archives are damaged before or while one is restored, and what it leaves is tried again, maybe by
// a client that dies; or it is restored again.
void draw_damaged_restore(Random& random, const Op& restore, Scenario& scenario) {
  for (size_t n = 1 + random.below(3); n > 0; --n) {
    Op rot;
    rot.kind = OpKind::kArchiveRot;
    rot.host = random.below(scenario.shape.nodes);
    rot.at_ms = std::max<int64_t>(restore.at_ms - draw_ms(random, -500, 2'000), 0);
    scenario.ops.push_back(rot);
  }
  Op again = restore;
  if (random.chance(0.7)) again.kind = OpKind::kRetryInOther;
  again.trigger = Op::Trigger::kTime;
  for (size_t n = random.below(3); n > 0; --n) {
    again.at_ms += draw_ms(random, 100, 3'000);
    scenario.ops.push_back(again);
    if (random.chance(0.5)) continue;
    Op crash;
    crash.kind = OpKind::kCrashOperator;
    crash.trigger = random.chance(0.5) ? Op::Trigger::kCall : Op::Trigger::kTime;
    crash.at_ms = again.at_ms + (crash.trigger == Op::Trigger::kTime ? draw_ms(random, 5, 200) : 0);
    crash.count = random.below(4);
    scenario.ops.push_back(crash);
  }
}

// Of the same backup, while it is read.
Op draw_deletion(Random& random, const Op& reads) {
  Op op = reads;
  op.kind = OpKind::kDelete;
  op.at_ms += draw_ms(random, 0, int64_t{10} << random.below(8));
  return op;
}

}  // namespace

std::string_view name_of(OpKind kind) {
  constexpr std::array<std::string_view, static_cast<size_t>(OpKind::kCount)> kNames = {
      "crash",
      "power-loss",
      "blackout",
      "restart",
      "pause",
      "pause-coordinator",
      "slow-node",
      "partition",
      "no-block",
      "clock-jump",
      "disk-error",
      "slow-disk",
      "full-disk",
      "data-gone",
      "data-copied",
      "data-set-back",
      "archive-rot",
      "archive-gone",
      "archive-set-back",
      "archive-swap",
      "cut-streams",
      "crash-client",
      "crash-operator",
      "backup",
      "backup-twice",
      "verify",
      "restore",
      "restore-prefix",
      "restore-to-other",
      "retry",
      "retry-in-other",
      "delete",
      "cancel",
      "resume"};
  return kNames[static_cast<size_t>(kind)];
}

bool is_fault(OpKind kind) { return kind < OpKind::kBackup; }

bool is_in_other(OpKind kind) {
  return kind == OpKind::kRestoreToOther || kind == OpKind::kRetryInOther;
}

std::string describe(const Op& op) {
  constexpr std::array<std::string_view, static_cast<size_t>(Op::Trigger::kCount)> kTriggers = {
      "", "commit", "sync", "call", "head", "sync", "completed restore", "sync of directories"};
  std::string text = fmt::format("{} ms: {}", op.at_ms, name_of(op.kind));
  if (!is_fault(op.kind)) {
    text += op.backup < kBackupNames ? fmt::format(" of backup {}", op.backup)
                                     : fmt::format(" of a completed backup ({})", op.backup);
  } else if (op.kind != OpKind::kCrashClient && op.kind != OpKind::kCrashOperator) {
    text += fmt::format(" of {}host {} for {} ms", op.cluster == 0 ? "" : "the other cluster's ",
                        op.host + 1, op.lasts_ms);
  }
  if (op.kind == OpKind::kPartition || op.kind == OpKind::kArchiveSwap ||
      op.kind == OpKind::kCutStreams) {
    text += fmt::format(", host {}", op.other + 1);
  }
  if (op.trigger == Op::Trigger::kTime) return text;
  text += fmt::format(", behind {} {}s", op.count, kTriggers[static_cast<size_t>(op.trigger)]);
  if (op.trigger == Op::Trigger::kState) text += fmt::format(" that are {}", name_of(op.state));
  if (op.trigger == Op::Trigger::kSyncBehindState) {
    text += fmt::format(" behind a head that is {}", name_of(op.state));
  }
  return text;
}

Scenario make_scenario(uint64_t seed, bool full_disks) {
  Random random(Random::mix(seed ^ 0x5ce7a210));
  Scenario scenario;
  scenario.seed = seed;
  scenario.shape.nodes = 1 + random.below(4);
  if (random.chance(0.4)) scenario.shape.nodes = 3;
  scenario.shape.replicas =
      static_cast<uint32_t>(1 + random.below(std::min<size_t>(scenario.shape.nodes, 3)));
  if (scenario.shape.nodes >= 3 && random.chance(0.5)) scenario.shape.replicas = 3;
  scenario.shape.slot_bits = static_cast<uint32_t>(2 + random.below(3));
  scenario.writers = 1 + random.below(3);
  scenario.keys = size_t{8} << random.below(4);
  scenario.longest_pause_ms = int64_t{50} << random.below(4);
  scenario.lasts_ms = draw_ms(random, 8'000, 25'000);
  scenario.calls.lost = draw_rate(random, 0.01);
  scenario.calls.broken = draw_rate(random, 0.01);
  scenario.calls.delayed = draw_rate(random, 0.05);
  scenario.block.fails = draw_rate(random, 0.05);
  scenario.block.fails_after = draw_rate(random, 0.05);
  scenario.block.fails_late = draw_rate(random, 0.02);
  for (const OpKind kind : kFaults) {
    if (random.chance(0.5)) continue;
    for (size_t n = 1 + random.below(3); n > 0; --n) {
      scenario.ops.push_back(draw_fault(random, kind, scenario));
    }
  }
  for (const OpKind kind : kDamages) {
    const bool loses_data = kind == OpKind::kDataCopied || kind == OpKind::kDataGone;
    if (!random.chance(loses_data ? kDataLossChance : kDamageChance)) continue;
    scenario.ops.push_back(draw_damage(random, kind, scenario));
    if (kind == OpKind::kDataCopied && random.chance(0.5)) draw_standstill(random, scenario);
    if (kind == OpKind::kDataGone) draw_restores(random, scenario);
  }
  if (full_disks) scenario.ops.push_back(draw_fault(random, OpKind::kFullDisk, scenario));
  const size_t operators = 3 + random.below(6);
  for (size_t i = 0; i < operators; ++i) {
    // The others have nothing to work on without one.
    const bool first = i == 0;
    OpKind kind = kOperators[random.below(kOperators.size())];
    if (first) kind = OpKind::kBackup;
    if (i == 1 && random.chance(0.3)) kind = OpKind::kRestore;
    Op op = draw_operator(random, kind, scenario);
    if (first) op.at_ms = draw_ms(random, 0, scenario.lasts_ms / 3);
    if (op.kind == OpKind::kRestoreToOther) {
      if (scenario.other.nodes == 0) {
        scenario.other = {.nodes = 1 + random.below(2), .replicas = 1, .slot_bits = 2};
      }
      if (random.chance(kDamagedRestoreChance)) draw_damaged_restore(random, op, scenario);
    }
    scenario.ops.push_back(op);
    if (reads_backup(op.kind) && random.chance(kDeletedWhileReadChance)) {
      scenario.ops.push_back(draw_deletion(random, op));
    }
  }
  if (random.chance(kThemeChance)) draw_theme(random, scenario);
  // Whoever takes a name waits for many times the lease of the node that had it.
  if (std::any_of(scenario.ops.begin(), scenario.ops.end(),
                  [](const Op& op) { return op.kind == OpKind::kDataCopied; })) {
    scenario.shape.lease_ms = 1000;
  }
  std::stable_sort(scenario.ops.begin(), scenario.ops.end(),
                   [](const Op& a, const Op& b) { return a.at_ms < b.at_ms; });
  return scenario;
}

std::string describe(const Scenario& scenario) {
  std::string text = fmt::format(
      "seed {}: {} nodes, {} replicas, {} slots, {} writers, {} keys, {} ms; calls lost {}, broken "
      "{}, delayed {}; block fails {}, after {}, late {}\n",
      scenario.seed, scenario.shape.nodes, scenario.shape.replicas, 1 << scenario.shape.slot_bits,
      scenario.writers, scenario.keys, scenario.lasts_ms, scenario.calls.lost,
      scenario.calls.broken, scenario.calls.delayed, scenario.block.fails,
      scenario.block.fails_after, scenario.block.fails_late);
  for (size_t i = 0; i < scenario.ops.size(); ++i) {
    text += fmt::format("  [{}] {}\n", i, describe(scenario.ops[i]));
  }
  return text;
}

}  // namespace sluice::simulation
