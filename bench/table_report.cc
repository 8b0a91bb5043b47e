// Distribution tables of one large cluster, for bench/run table: from nothing, with one node more
// and with one node less, as files that somebody else counts copies and moves in.
//
//   table_report --dir DIR [--nodes N] [--racks N] [--slot-bits B] [--replicas R] [--spread X]
//
// Writes DIR/{first,added,removed}.table: R node numbers of 16 bits for each slot, in the machine's
// byte order. Prints the nodes' weights and racks and the seconds that each table took, as JSON.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "control/table/table.h"

namespace sluice {
namespace {

struct Settings {
  std::string directory;
  uint32_t nodes = 10'000;
  uint32_t racks = 100;
  uint32_t slot_bits = 18;
  uint32_t replicas = 3;
  double spread = 8;  // of the weights: the largest over the smallest
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TableInput cluster_of(const Settings& settings) {
  TableInput input;
  Random random(1);
  for (uint32_t number = 1; number <= settings.nodes; ++number) {
    input.members.push_back({"n" + std::to_string(number), number,
                             1 + (settings.spread - 1) * random.unit(),
                             "r" + std::to_string(number % settings.racks)});
  }
  input.replicas = settings.replicas;
  input.slot_bits = settings.slot_bits;
  input.seed = 7;
  return input;
}

void write(const DistributionTable& table, const std::string& path) {
  std::vector<uint16_t> numbers;
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    for (const uint16_t member : table.replicas_of(slot)) {
      numbers.push_back(static_cast<uint16_t>(table.members()[member].number));
    }
  }
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(numbers.data()),
             static_cast<std::streamsize>(numbers.size() * sizeof(uint16_t)));
}

nlohmann::json members_of(const TableInput& input) {
  nlohmann::json members = nlohmann::json::array();
  for (const TableMember& member : input.members) {
    members.push_back(
        {{"number", member.number}, {"weight", member.weight}, {"rack", member.rack}});
  }
  return members;
}

absl::Status report(const Settings& settings) {
  const TableInput first = cluster_of(settings);
  TableInput added = first;
  added.members.push_back({"one more", settings.nodes + 1, (1 + settings.spread) / 2, "r0"});
  TableInput removed = first;
  removed.members.erase(removed.members.begin() + settings.nodes / 2);
  nlohmann::json json;
  const DistributionTable* previous = nullptr;
  TableChange base;
  const std::vector<std::pair<std::string, const TableInput*>> inputs = {
      {"first", &first}, {"added", &added}, {"removed", &removed}};
  for (const auto& [name, input] : inputs) {
    const double begin = now();
    SLUICE_ASSIGN_OR_RETURN(TableChange change, compute_table(previous, *input));
    json[name] = {{"seconds", now() - begin}, {"members", members_of(*input)}};
    write(change.table, fmt::format("{}/{}.table", settings.directory, name));
    if (previous == nullptr) {
      base = std::move(change);
      previous = &base.table;
    }
  }
  std::printf("%s\n", json.dump().c_str());
  return absl::OkStatus();
}

int run(int argc, char** argv) {
  CLI::App app("Distribution tables of one large cluster");
  Settings settings;
  app.add_option("--dir", settings.directory, "Gets the tables")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--nodes", settings.nodes)->check(CLI::Range(4u, 65'534u));
  app.add_option("--racks", settings.racks)->check(CLI::Range(1u, 65'534u));
  app.add_option("--slot-bits", settings.slot_bits)->check(CLI::Range(1u, kMaxTableSlotBits));
  app.add_option("--replicas", settings.replicas)->check(CLI::Range(1u, kMaxReplicas));
  app.add_option("--spread", settings.spread)->check(CLI::Range(1., 1000.));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = report(settings);
  if (!status.ok()) std::fprintf(stderr, "table_report: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { return sluice::run(argc, argv); }
