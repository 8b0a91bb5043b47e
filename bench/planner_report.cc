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

#include "base/status.h"
#include "bench/simulation/large_cluster.h"
#include "control/schedule/planner.h"

namespace sluice {
namespace {

struct Settings {
  std::string directory;
  LargeCluster cluster;
  uint32_t targets = 0;  // 0: all nodes
  uint32_t fan = kPlanFan;
};

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
  SLUICE_ASSIGN_OR_RETURN(const DistributionTable table, table_of(settings.cluster));
  PlanInput input = input_of(settings.cluster, table, settings.targets);
  input.fan = settings.fan;
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
  add_options(app, settings.cluster);
  app.add_option("--targets", settings.targets, "How many nodes are targets; 0: all");
  app.add_option("--fan", settings.fan, "Peers that a node talks to; 0: any number");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = report(settings);
  if (!status.ok()) std::fprintf(stderr, "planner_report: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { return sluice::run(argc, argv); }
