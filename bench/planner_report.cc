// The plan of one large backup, for bench/run planner: what was published and what is to be sent,
// as files that somebody else counts peers and times in.
//
//   planner_report --dir DIR [--nodes N] [--racks N] [--slot-bits B] [--replicas R] [--spread X]
//                  [--divergent SHARE] [--targets N] [--fan N]
//
// Writes numbers of 64 bits in the machine's byte order: DIR/published has rows of slot, node,
// bytes on the wire and the digest's number; DIR/plan has rows of slot, sender and target. Prints
// the nodes' rates and the targets' weights, the seconds that planning took and what the plan says
// of itself, as JSON.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "control/schedule/planner.h"

namespace sluice {
namespace {

struct Settings {
  std::string directory;
  uint32_t nodes = 10'000;
  uint32_t racks = 100;
  uint32_t slot_bits = 18;
  uint32_t replicas = 3;
  double spread = 8;  // of the weights: the largest over the smallest
  double divergent = 0.1;
  uint32_t targets = 0;  // 0: all nodes
  uint32_t fan = kPlanFan;
  uint64_t seed = 1;
};

constexpr double kRateOfWeight = 1e8;  // bytes a second
constexpr uint64_t kMaxSlotBytes = 64 << 20;

SlotDigest some_digest(Random& random) {
  SlotDigest digest;
  digest.sum = {random.next(), random.next()};
  digest.records = 1 + random.below(1000);
  digest.bytes = random.below(kMaxSlotBytes);
  return digest;
}

absl::StatusOr<DistributionTable> table_of(const Settings& settings, Random& random) {
  TableInput input;
  for (uint32_t number = 1; number <= settings.nodes; ++number) {
    input.members.push_back({"n" + std::to_string(number), number,
                             1 + (settings.spread - 1) * random.unit(),
                             "r" + std::to_string(number % settings.racks)});
  }
  input.replicas = settings.replicas;
  input.slot_bits = settings.slot_bits;
  input.seed = 7;
  SLUICE_ASSIGN_OR_RETURN(TableChange change, compute_table(nullptr, input));
  return std::move(change.table);
}

PlanInput input_of(const Settings& settings, const DistributionTable& table, Random& random) {
  PlanInput input;
  input.table = &table;
  input.quorum = settings.replicas / 2 + 1;
  input.fan = settings.fan;
  for (const TableMember& member : table.members()) {
    const double rate = member.weight * kRateOfWeight;
    input.nodes.push_back({member.name, rate, rate});
  }
  const uint32_t targets = settings.targets == 0 ? settings.nodes : settings.targets;
  for (uint32_t i = 0; i < targets; ++i) {
    const auto node = static_cast<uint32_t>(uint64_t{i} * settings.nodes / targets);
    input.targets.push_back({node, table.members()[node].weight});
  }
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    const SlotDigest digest = some_digest(random);
    for (const uint16_t member : table.replicas_of(slot)) {
      input.published.push_back({slot, member, digest});
    }
    if (random.chance(settings.divergent)) input.published.back().digest = some_digest(random);
  }
  return input;
}

void write(const std::vector<uint64_t>& numbers, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(numbers.data()),
             static_cast<std::streamsize>(numbers.size() * sizeof(uint64_t)));
}

void write_published(const PlanInput& input, const std::string& path) {
  std::vector<uint64_t> rows;
  for (const PublishedDigest& published : input.published) {
    rows.insert(rows.end(), {published.slot, published.node, wire_bytes_of(published.digest),
                             published.digest.sum.low});
  }
  write(rows, path);
}

void write_plan(const Plan& plan, const std::string& path) {
  std::vector<uint64_t> rows;
  for (const SlotPlan& slot : plan.slots) {
    for (const PlanCopy& sent : plan.senders_of(slot)) {
      rows.insert(rows.end(), {slot.slot, sent.node, slot.target});
    }
  }
  write(rows, path);
}

absl::Status report(const Settings& settings) {
  Random random(settings.seed);
  SLUICE_ASSIGN_OR_RETURN(const DistributionTable table, table_of(settings, random));
  const PlanInput input = input_of(settings, table, random);
  const auto begin = std::chrono::steady_clock::now();
  SLUICE_ASSIGN_OR_RETURN(const Plan plan, make_plan(input));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  write_published(input, settings.directory + "/published");
  write_plan(plan, settings.directory + "/plan");
  nlohmann::json json = {{"seconds", took.count()},
                         {"makespan_s", plan.makespan_s},
                         {"lower_bound_s", plan.lower_bound_s},
                         {"largest_fan_in", plan.largest_fan_in},
                         {"largest_fan_out", plan.largest_fan_out}};
  for (const PlanNode& node : input.nodes) json["rates"].push_back(node.send_rate);
  for (const PlanTarget& target : input.targets) json["targets"].push_back(target.node);
  std::printf("%s\n", json.dump().c_str());
  return absl::OkStatus();
}

int run(int argc, char** argv) {
  CLI::App app("The plan of one large backup");
  Settings settings;
  app.add_option("--dir", settings.directory, "Gets the rows")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--nodes", settings.nodes)->check(CLI::Range(4u, 65'534u));
  app.add_option("--racks", settings.racks)->check(CLI::Range(1u, 65'534u));
  app.add_option("--slot-bits", settings.slot_bits)->check(CLI::Range(1u, kMaxTableSlotBits));
  app.add_option("--replicas", settings.replicas)->check(CLI::Range(1u, kMaxReplicas));
  app.add_option("--spread", settings.spread)->check(CLI::Range(1., 1000.));
  app.add_option("--divergent", settings.divergent, "Share of the slots")
      ->check(CLI::Range(0., 1.));
  app.add_option("--targets", settings.targets, "How many nodes are targets; 0: all");
  app.add_option("--fan", settings.fan, "Peers that a node talks to; 0: any number");
  app.add_option("--seed", settings.seed);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = report(settings);
  if (!status.ok()) std::fprintf(stderr, "planner_report: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { return sluice::run(argc, argv); }
