// The distribution table at scale, next to straw2 (the bucket type of CRUSH: Weil et al., SC 2006),
// a placement without a table: each slot goes to the R members with the longest weighted straws.
// Counters: how far the fullest member is above its ideal share (overload), and what adding one
// member to the cluster moves, over the least that it must.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"
#include "control/table/table.h"

namespace sluice {
namespace {

constexpr uint32_t kReplicas = 3;

TableInput cluster_of(uint32_t members, uint32_t slot_bits) {
  TableInput input;
  Random random(1);
  for (uint32_t i = 1; i <= members; ++i) {
    input.members.push_back(
        {"n" + std::to_string(i), i, 1 + 3 * random.unit(), "r" + std::to_string(i % 20)});
  }
  input.replicas = kReplicas;
  input.slot_bits = slot_bits;
  input.seed = 7;
  return input;
}

TableInput with_one_more(TableInput input) {
  const auto number = static_cast<uint32_t>(input.members.size() + 1);
  input.members.push_back({"n" + std::to_string(number), number, 2, "r0"});
  return input;
}

double over(uint64_t value, uint64_t reference) {
  return static_cast<double>(value) / static_cast<double>(std::max<uint64_t>(reference, 1));
}

void report_table(benchmark::State& state, const TableChange& first, const TableChange& added) {
  state.counters["nodes"] = static_cast<double>(first.table.members().size());
  state.counters["slots"] = first.table.slots();
  state.counters["worst_deviation_slots"] =
      std::max(worst_deviation(first.table), worst_deviation(added.table));
  state.counters["overload"] = imbalance(first.table) - 1;
  state.counters["moved_over_minimum"] = over(added.moved, added.moved_minimum);
}

// Arguments: members, slot_bits.
void table_from_nothing(benchmark::State& state) {
  const TableInput input =
      cluster_of(static_cast<uint32_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  TableChange first;
  for (auto _ : state) first = *compute_table(nullptr, input);
  report_table(state, first, *compute_table(&first.table, with_one_more(input)));
}
BENCHMARK(table_from_nothing)
    ->Args({10, 12})
    ->Args({100, 16})
    ->Args({1000, 18})
    ->Unit(benchmark::kMillisecond);

void table_add_member(benchmark::State& state) {
  const TableInput input =
      cluster_of(static_cast<uint32_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  const TableChange first = *compute_table(nullptr, input);
  TableChange added;
  for (auto _ : state) added = *compute_table(&first.table, with_one_more(input));
  report_table(state, first, added);
}
BENCHMARK(table_add_member)
    ->Args({10, 12})
    ->Args({100, 16})
    ->Args({1000, 18})
    ->Unit(benchmark::kMillisecond);

// Every weight changes: far more to place than with one member more.
void table_reweigh_all(benchmark::State& state) {
  const TableInput input =
      cluster_of(static_cast<uint32_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  const TableChange first = *compute_table(nullptr, input);
  TableInput changed = input;
  Random random(2);
  for (TableMember& member : changed.members) member.weight = 1 + 3 * random.unit();
  TableChange next;
  for (auto _ : state) next = *compute_table(&first.table, changed);
  report_table(state, first, next);
}
BENCHMARK(table_reweigh_all)->Args({100, 16})->Args({1000, 18})->Unit(benchmark::kMillisecond);

std::vector<uint32_t> straw2(const std::vector<TableMember>& members, uint32_t slot) {
  std::vector<std::pair<double, uint32_t>> straws;
  straws.reserve(members.size());
  for (const TableMember& member : members) {
    const uint64_t bits = Random::mix(Random::mix(slot) ^ (uint64_t{member.number} << 32));
    const double draw = (static_cast<double>(bits >> 11) + 1) * 0x1.0p-53;
    straws.emplace_back(std::log(draw) / member.weight, member.number);
  }
  std::partial_sort(straws.begin(), straws.begin() + kReplicas, straws.end(), std::greater<>());
  std::vector<uint32_t> chosen;
  for (uint32_t i = 0; i < kReplicas; ++i) chosen.push_back(straws[i].second);
  return chosen;
}

void crush_straw2(benchmark::State& state) {
  const TableInput input =
      cluster_of(static_cast<uint32_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  const TableInput more = with_one_more(input);
  const uint32_t slots = uint32_t{1} << input.slot_bits;
  std::vector<std::vector<uint32_t>> before(slots);
  for (auto _ : state) {
    for (uint32_t slot = 0; slot < slots; ++slot) before[slot] = straw2(input.members, slot);
  }
  std::vector<uint64_t> held(input.members.size() + 2);
  uint64_t moved = 0;
  uint64_t new_member = 0;
  for (uint32_t slot = 0; slot < slots; ++slot) {
    for (const uint32_t number : before[slot]) ++held[number];
    for (const uint32_t number : straw2(more.members, slot)) {
      const auto& old = before[slot];
      moved += std::find(old.begin(), old.end(), number) == old.end();
      new_member += number == more.members.back().number;
    }
  }
  std::vector<double> weights;
  for (const TableMember& member : input.members) weights.push_back(member.weight);
  const std::vector<double> shares = ideal_shares(weights, kReplicas);
  double overload = 0;
  for (size_t i = 0; i < shares.size(); ++i) {
    const double load = static_cast<double>(held[input.members[i].number]) / (shares[i] * slots);
    overload = std::max(overload, load - 1);
  }
  state.counters["overload"] = overload;
  state.counters["moved_over_minimum"] = over(moved, new_member);
}
BENCHMARK(crush_straw2)
    ->Args({10, 12})
    ->Args({100, 16})
    ->Args({1000, 18})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice
