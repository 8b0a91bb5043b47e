#include "tests/simulation/world/shrink.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace sluice::simulation {
namespace {

class Shrinker {
 public:
  Shrinker(const Scenario& scenario, const Result& result, const ScenarioRunner& run,
           size_t most_runs)
      : shrunk_{scenario, result, 0},
        kind_(failure_kind(result)),
        run_(run),
        most_runs_(most_runs) {}

  Shrunk shrink() {
    make_minimal();
    end_preemption();
    make_minimal();
    return std::move(shrunk_);
  }

 private:
  void make_minimal() {
    bool changed = true;
    while (changed && !is_over()) {
      changed = drop_rates();
      changed |= drop_kinds();
      changed |= drop_ops();
      changed |= make_smaller();
    }
  }

  bool is_over() const { return shrunk_.runs >= most_runs_; }

  bool accept(const Scenario& smaller) {
    if (is_over()) return false;
    ++shrunk_.runs;
    Result result = run_(smaller);
    if (result.passed() || failure_kind(result) != kind_) return false;
    shrunk_.scenario = smaller;
    shrunk_.result = std::move(result);
    return true;
  }

  // The field with this value instead.
  template <typename Field, typename Value>
  bool set(const Field& field, const Value& value) {
    Scenario smaller = shrunk_.scenario;
    if (field(smaller) == value) return false;
    field(smaller) = value;
    return accept(smaller);
  }

  bool drop_rates() {
    bool changed = false;
    changed |= set([](Scenario& s) -> double& { return s.calls.lost; }, 0.0);
    changed |= set([](Scenario& s) -> double& { return s.calls.broken; }, 0.0);
    changed |= set([](Scenario& s) -> double& { return s.calls.delayed; }, 0.0);
    changed |= set([](Scenario& s) -> double& { return s.block.fails; }, 0.0);
    changed |= set([](Scenario& s) -> double& { return s.block.fails_after; }, 0.0);
    changed |= set([](Scenario& s) -> double& { return s.block.fails_late; }, 0.0);
    return changed;
  }

  bool drop_kinds() {
    std::set<OpKind> kinds;
    for (const Op& op : shrunk_.scenario.ops) kinds.insert(op.kind);
    if (kinds.size() < 2) return false;
    bool changed = false;
    for (const OpKind kind : kinds) {
      Scenario smaller = shrunk_.scenario;
      std::erase_if(smaller.ops, [kind](const Op& op) { return op.kind == kind; });
      changed |= accept(smaller);
    }
    return changed;
  }

  bool drop_ops() {
    bool changed = false;
    for (size_t piece = shrunk_.scenario.ops.size(); piece > 0; piece /= 2) {
      for (size_t at = 0; at < shrunk_.scenario.ops.size() && !is_over();) {
        Scenario smaller = shrunk_.scenario;
        const auto begin = smaller.ops.begin() + static_cast<ptrdiff_t>(at);
        const size_t dropped = std::min(piece, smaller.ops.size() - at);
        smaller.ops.erase(begin, begin + static_cast<ptrdiff_t>(dropped));
        if (accept(smaller)) {
          changed = true;
        } else {
          at += piece;
        }
      }
    }
    return changed;
  }

  bool make_smaller() {
    bool changed = false;
    changed |= drop_node();
    const auto& now = shrunk_.scenario;
    const auto replicas = [](Scenario& s) -> uint32_t& { return s.shape.replicas; };
    if (now.shape.replicas > 1) changed |= set(replicas, now.shape.replicas - 1);
    const auto slot_bits = [](Scenario& s) -> uint32_t& { return s.shape.slot_bits; };
    if (now.shape.slot_bits > 1) changed |= set(slot_bits, now.shape.slot_bits - 1);
    changed |= set([](Scenario& s) -> size_t& { return s.writers; }, size_t{1});
    const auto keys = [](Scenario& s) -> size_t& { return s.keys; };
    if (now.keys > 1) changed |= set(keys, now.keys / 2);
    changed |= set([](Scenario& s) -> size_t& { return s.other_writers; }, size_t{0});
    const bool needs_other =
        now.other_writers > 0 || std::any_of(now.ops.begin(), now.ops.end(), [](const Op& op) {
          return is_in_other(op.kind) || op.cluster == 1;
        });
    if (!needs_other) changed |= set([](Scenario& s) -> size_t& { return s.other.nodes; }, 0u);
    const int64_t last_ms = now.ops.empty() ? 0 : now.ops.back().at_ms;
    const auto lasts_ms = [](Scenario& s) -> int64_t& { return s.lasts_ms; };
    changed |= set(lasts_ms, std::max(last_ms, now.lasts_ms / 2));
    return changed;
  }

  bool drop_node() {
    Scenario smaller = shrunk_.scenario;
    if (smaller.shape.nodes == 1) return false;
    const size_t nodes = --smaller.shape.nodes;
    smaller.shape.replicas = std::min(smaller.shape.replicas, static_cast<uint32_t>(nodes));
    for (Op& op : smaller.ops) {
      if (op.cluster != 0) continue;
      op.host %= nodes;
      op.other %= nodes;
    }
    return accept(smaller);
  }

  // By bisection, as if a failure with fewer steps of preemption implied one with more.
  void end_preemption() {
    const auto steps = [](Scenario& s) -> uint64_t& { return s.preempted_steps; };
    if (set(steps, uint64_t{0})) return;
    uint64_t low = 0;
    uint64_t high = std::min(shrunk_.scenario.preempted_steps, shrunk_.result.steps);
    while (low + 1 < high && !is_over()) {
      const uint64_t middle = low + (high - low) / 2;
      (set(steps, middle) ? high : low) = middle;
    }
  }

  Shrunk shrunk_;
  const std::string kind_;
  const ScenarioRunner& run_;
  const size_t most_runs_;
};

}  // namespace

std::string failure_kind(const Result& result) {
  if (result.end != Result::End::kFailed) {
    return fmt::format("end {}", static_cast<int>(result.end));
  }
  return result.failure.substr(0, result.failure.find(':'));
}

Shrunk shrink(const Scenario& scenario, const Result& result, const ScenarioRunner& run,
              size_t most_runs) {
  return Shrinker(scenario, result, run, most_runs).shrink();
}

}  // namespace sluice::simulation
