// The planner on whole clusters: time, and how near the predicted makespan comes to its lower
// bound.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <vector>

#include "base/random.h"
#include "control/schedule/replan.h"

namespace sluice {
namespace {

struct Cluster {
  DistributionTable table;
  PlanInput input;
};

SlotDigest some_digest(Random& random) {
  SlotDigest digest;
  digest.sum = {random.next(), random.next()};
  digest.records = 1 + random.below(1000);
  digest.bytes = random.below(64 << 20);
  return digest;
}

void make_cluster(uint32_t nodes, uint32_t slot_bits, double divergent, Cluster* cluster) {
  Random random(3);
  TableInput in;
  for (uint32_t i = 1; i <= nodes; ++i) {
    in.members.push_back(
        {"n" + std::to_string(i), i, 1 + 7 * random.unit(), "r" + std::to_string(i % 100)});
  }
  in.replicas = 3;
  in.slot_bits = slot_bits;
  auto change = compute_table(nullptr, in);
  if (!change.ok()) std::abort();
  cluster->table = std::move(change->table);
  PlanInput& input = cluster->input;
  input.table = &cluster->table;
  input.quorum = 2;
  for (uint32_t n = 0; n < nodes; ++n) {
    const TableMember& member = cluster->table.members()[n];
    input.nodes.push_back({member.name, member.weight * 1e9, member.weight * 1e9});
    input.targets.push_back({n, member.weight});
  }
  for (uint32_t slot = 0; slot < cluster->table.slots(); ++slot) {
    const SlotDigest digest = some_digest(random);
    const auto replicas = cluster->table.replicas_of(slot);
    for (const uint16_t member : replicas) input.published.push_back({slot, member, digest});
    if (random.chance(divergent)) input.published.back().digest = some_digest(random);
  }
}

// Arguments: nodes, slot_bits, divergent slots in a thousand.
void plan_backup(benchmark::State& state) {
  Cluster cluster;
  make_cluster(static_cast<uint32_t>(state.range(0)), static_cast<uint32_t>(state.range(1)),
               static_cast<double>(state.range(2)) / 1000, &cluster);
  Plan plan;
  for (auto _ : state) {
    auto made = make_plan(cluster.input);
    if (!made.ok()) {
      state.SkipWithError("no plan");
      return;
    }
    plan = *std::move(made);
  }
  std::vector<std::set<uint32_t>> targets(cluster.input.nodes.size());
  std::vector<std::set<uint32_t>> sources(cluster.input.nodes.size());
  for (const SlotPlan& slot : plan.slots) {
    for (const PlanCopy& copy : plan.senders_of(slot)) {
      if (copy.node == slot.target) continue;
      targets[copy.node].insert(slot.target);
      sources[slot.target].insert(copy.node);
    }
  }
  size_t fan_out = 0, fan_in = 0;
  for (size_t n = 0; n < targets.size(); ++n) {
    fan_out = std::max(fan_out, targets[n].size());
    fan_in = std::max(fan_in, sources[n].size());
  }
  state.counters["largest_fan_out"] = static_cast<double>(fan_out);
  state.counters["largest_fan_in"] = static_cast<double>(fan_in);
  uint64_t local = 0;
  for (const NodeLoad& load : plan.loads) local += load.local_bytes;
  state.counters["makespan_over_bound"] = plan.makespan_s / plan.lower_bound_s;
  state.counters["local_share"] =
      static_cast<double>(local) / static_cast<double>(plan.total_bytes());
}
BENCHMARK(plan_backup)
    ->Args({10, 12, 0})
    ->Args({10, 12, 10})
    ->Args({100, 16, 1})
    ->Args({1000, 18, 1})
    ->Args({1000, 20, 1})
    ->Args({10000, 18, 100})
    ->Unit(benchmark::kMillisecond);

// One node of many dies halfway.
void replan_after_a_death(benchmark::State& state) {
  Cluster cluster;
  make_cluster(static_cast<uint32_t>(state.range(0)), static_cast<uint32_t>(state.range(1)), 0,
               &cluster);
  const auto plan = make_plan(cluster.input);
  if (!plan.ok()) {
    state.SkipWithError("no plan");
    return;
  }
  std::vector<uint8_t> done(plan->slots.size());
  Random random(4);
  for (uint8_t& is_done : done) is_done = random.chance(0.5);
  const std::vector<uint32_t> dead{0};
  double ratio = 0;
  for (auto _ : state) {
    const auto next = replan(*plan, done, dead, cluster.input.targets, cluster.input.quorum);
    if (!next.ok()) {
      state.SkipWithError("no plan");
      return;
    }
    ratio = next->plan.makespan_s / next->plan.lower_bound_s;
  }
  state.counters["makespan_over_bound"] = ratio;
}
BENCHMARK(replan_after_a_death)->Args({10, 12})->Args({1000, 18})->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice
