#include "bench/simulation/large_cluster.h"

#include <CLI/CLI.hpp>
#include <string>
#include <utility>

#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

SlotDigest some_digest(const LargeCluster& cluster, Random& random) {
  SlotDigest digest;
  digest.sum.low = random.next();
  digest.sum.high = random.next();
  digest.records = 1 + random.below(1000);
  digest.bytes = random.below(cluster.largest_slot);
  return digest;
}

}  // namespace

void add_options(CLI::App& app, LargeCluster& cluster) {
  app.add_option("--nodes", cluster.nodes)->check(CLI::Range(4u, 65'534u));
  app.add_option("--racks", cluster.racks)->check(CLI::Range(1u, 65'534u));
  app.add_option("--slot-bits", cluster.slot_bits)->check(CLI::Range(1u, kMaxTableSlotBits));
  app.add_option("--replicas", cluster.replicas)->check(CLI::Range(1u, kMaxReplicas));
  app.add_option("--spread", cluster.spread)->check(CLI::Range(1., 1000.));
  app.add_option("--divergent", cluster.divergent, "Share of the slots")->check(CLI::Range(0., 1.));
  app.add_option("--largest-slot", cluster.largest_slot, "Bytes");
  app.add_option("--seed", cluster.seed);
}

absl::StatusOr<DistributionTable> table_of(const LargeCluster& cluster) {
  Random random(cluster.seed);
  TableInput input;
  for (uint32_t number = 1; number <= cluster.nodes; ++number) {
    input.members.push_back({"n" + std::to_string(number), number,
                             1 + (cluster.spread - 1) * random.unit(),
                             "r" + std::to_string(number % cluster.racks)});
  }
  input.replicas = cluster.replicas;
  input.slot_bits = cluster.slot_bits;
  input.seed = 7;
  SLUICE_ASSIGN_OR_RETURN(TableChange change, compute_table(nullptr, input));
  return std::move(change.table);
}

PlanInput input_of(const LargeCluster& cluster, const DistributionTable& table, uint32_t targets) {
  Random random(Random::mix(cluster.seed));
  PlanInput input;
  input.table = &table;
  input.quorum = cluster.replicas / 2 + 1;
  for (const TableMember& member : table.members()) {
    const double rate = member.weight * cluster.rate_of_weight;
    input.nodes.push_back({member.name, rate, rate});
  }
  if (targets == 0) targets = cluster.nodes;
  for (uint32_t i = 0; i < targets; ++i) {
    const auto node = static_cast<uint32_t>(uint64_t{i} * cluster.nodes / targets);
    input.targets.push_back({node, table.members()[node].weight});
  }
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    const SlotDigest digest = some_digest(cluster, random);
    for (const uint16_t member : table.replicas_of(slot)) {
      input.published.push_back({slot, member, digest});
    }
    if (random.chance(cluster.divergent)) {
      input.published.back().digest = some_digest(cluster, random);
    }
  }
  return input;
}

}  // namespace sluice
