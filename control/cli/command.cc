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

bool parse_weight(const std::string& text, std::string* name, double* weight) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) return false;
  *name = text.substr(0, equals);
  char* end = nullptr;
  *weight = std::strtod(text.c_str() + equals + 1, &end);
  return *end == '\0' && std::isfinite(*weight) && *weight > 0;
}

}  // namespace sluice
