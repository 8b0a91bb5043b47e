#include "control/cli/command.h"

#include <cmath>
#include <cstdlib>

#include "control/cluster_block/cluster_block.h"

namespace sluice {

CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& about,
                      const std::string& example) {
  CLI::App* command = parent.add_subcommand(name, about);
  if (!example.empty()) command->footer("\nExample:\n  " + example);
  return command;
}

bool check_cluster(const Invocation& invocation, Outcome* error) {
  if (invocation.cluster.empty()) {
    *error = usage_error(
        "no cluster is named; say --cluster URL or set SLUICE_CLUSTER (sqlite:PATH or "
        "etcd://HOST:PORT/PREFIX)");
    return false;
  }
  if (const auto url = parse_cluster_url(invocation.cluster); !url.ok()) {
    *error = usage_error("{}", message_of(url.status()));
    return false;
  }
  return true;
}

absl::StatusOr<std::unique_ptr<ClusterClient>> open_client(const Invocation& invocation) {
  return ClusterClient::open(invocation.cluster);
}

Outcome with_client(const Invocation& invocation,
                    const std::function<Outcome(ClusterClient&)>& body) {
  Outcome error;
  if (!check_cluster(invocation, &error)) return error;
  const auto client = open_client(invocation);
  if (!client.ok()) return failure(client.status());
  return body(**client);
}

Outcome with_backup_contents(const Invocation& invocation, const std::string& backup,
                             const std::vector<std::string>& archives, const TreeChoice& choice,
                             const std::function<Outcome(BackupContents&)>& body) {
  const auto run = [&](const absl::StatusOr<std::unique_ptr<BackupContents>>& contents) {
    return contents.ok() ? body(**contents) : failure(contents.status());
  };
  if (!archives.empty()) return run(open_local_contents(archives, choice));
  return with_client(invocation, [&](ClusterClient& client) {
    return run(client.backup_contents(backup, choice));
  });
}

bool parse_weight(const std::string& text, double* weight) {
  char* end = nullptr;
  *weight = std::strtod(text.c_str(), &end);
  return end != text.c_str() && *end == '\0' && std::isfinite(*weight) && *weight > 0;
}

bool parse_rate(const std::string& text, uint64_t* bytes_per_second) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1},     {"B", 1},         {"kB", 1e3},      {"MB", 1e6},
      {"GB", 1e9}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (end == text.c_str()) return false;
  std::string_view unit = end;
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (unit.ends_with("/s")) unit.remove_suffix(2);
  const auto* const known = std::find_if(std::begin(kUnits), std::end(kUnits),
                                         [&](const auto& each) { return each.first == unit; });
  if (known == std::end(kUnits)) return false;
  const double rate = number * known->second;
  if (!std::isfinite(rate) || rate < 1 || rate > 1e15) return false;
  *bytes_per_second = static_cast<uint64_t>(rate);
  return true;
}

bool split_assignment(const std::string& text, std::string* name, std::string* value) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) return false;
  *name = text.substr(0, equals);
  *value = text.substr(equals + 1);
  return true;
}

}  // namespace sluice
