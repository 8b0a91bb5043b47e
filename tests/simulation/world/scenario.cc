#include "tests/simulation/world/scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace sluice::simulation {
namespace {

constexpr std::array kFaults = {OpKind::kCrash,     OpKind::kPowerLoss, OpKind::kRestart,
                                OpKind::kPause,     OpKind::kPartition, OpKind::kNoBlock,
                                OpKind::kClockJump, OpKind::kDiskError, OpKind::kSlowDisk};
constexpr std::array kOperators = {OpKind::kBackup, OpKind::kBackup,  OpKind::kBackup,
                                   OpKind::kVerify, OpKind::kRestore, OpKind::kRestoreToOther,
                                   OpKind::kRetry,  OpKind::kDelete,  OpKind::kCancel,
                                   OpKind::kResume, OpKind::kResume};
constexpr size_t kBackupNames = 4;

// Most often none, else by powers of ten up to `most`.
double draw_rate(Random& random, double most) {
  if (random.chance(0.5)) return 0;
  return most * std::pow(10.0, -static_cast<double>(random.below(3)));
}

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
    op.trigger = static_cast<Op::Trigger>(1 + random.below(3));
    op.count = random.below(random.chance(0.5) ? 10 : 100);
  }
  return op;
}

}  // namespace

std::string_view name_of(OpKind kind) {
  constexpr std::array<std::string_view, 19> kNames = {
      "crash",     "power loss", "restart",    "pause",     "partition",
      "no block",  "clock jump", "disk error", "slow disk", "full disk",
      "data loss", "backup",     "verify",     "restore",   "restore to other",
      "retry",     "delete",     "cancel",     "resume"};
  return kNames[static_cast<size_t>(kind)];
}

bool is_fault(OpKind kind) { return kind < OpKind::kBackup; }

std::string describe(const Op& op) {
  constexpr std::array<std::string_view, 4> kTriggers = {"", "commit", "sync", "call"};
  std::string text = fmt::format("{} ms: {}", op.at_ms, name_of(op.kind));
  if (!is_fault(op.kind)) return fmt::format("{} of backup {}", text, op.backup);
  text += fmt::format(" of host {} for {} ms", op.host + 1, op.lasts_ms);
  if (op.kind == OpKind::kPartition) text += fmt::format(" from host {}", op.other + 1);
  if (op.trigger != Op::Trigger::kTime) {
    text += fmt::format(", behind {} {}s", op.count, kTriggers[static_cast<size_t>(op.trigger)]);
  }
  return text;
}

Scenario make_scenario(uint64_t seed, bool full_disks) {
  Random random(Random::mix(seed ^ 0x5ce7a210));
  Scenario scenario;
  scenario.seed = seed;
  scenario.shape.nodes = 1 + random.below(4);
  if (random.chance(0.5)) scenario.shape.nodes = 3;
  scenario.shape.replicas =
      static_cast<uint32_t>(1 + random.below(std::min<size_t>(scenario.shape.nodes, 3)));
  if (scenario.shape.nodes >= 3 && random.chance(0.6)) scenario.shape.replicas = 3;
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
  if (full_disks) scenario.ops.push_back(draw_fault(random, OpKind::kFullDisk, scenario));
  const size_t operators = 2 + random.below(6);
  for (size_t i = 0; i < operators; ++i) {
    Op op;
    // The others have nothing to work on without one.
    op.kind = i == 0 ? OpKind::kBackup : kOperators[random.below(kOperators.size())];
    op.at_ms = draw_ms(random, 0, i == 0 ? scenario.lasts_ms / 3 : scenario.lasts_ms);
    op.backup = random.below(kBackupNames);
    if (op.kind == OpKind::kRestoreToOther) {
      scenario.other = {.nodes = 1 + random.below(2), .replicas = 1, .slot_bits = 2};
    }
    scenario.ops.push_back(op);
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
