// sluice node and sluice cluster.
#include <malloc.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <thread>

#include "base/file.h"
#include "control/cli/command.h"
#include "control/local/process.h"
#include "control/node/bootstrap.h"
#include "control/node/config.h"
#include "control/node/node.h"
#include "control/table/table.h"

namespace sluice {
namespace {

struct ClusterArguments {
  int64_t replicas = 3;
  int64_t slots = 4096;
  int64_t nodes = 0;
  double seconds = 60;
};

struct NodeArguments {
  std::string config;
  bool accept_data_loss = false;
};

Outcome init_cluster(const Invocation& invocation, const ClusterArguments& arguments) {
  Outcome outcome;
  if (!check_cluster(invocation, &outcome)) return outcome;
  if (arguments.replicas < 1 || arguments.replicas > kMaxReplicas) {
    return usage_error("--replicas {}: 1 to {}", arguments.replicas, kMaxReplicas);
  }
  if (arguments.slots < 2 || arguments.slots > (int64_t{1} << kMaxTableSlotBits) ||
      !std::has_single_bit(static_cast<uint64_t>(arguments.slots))) {
    return usage_error("--slots {}: a power of two, 2 to {}", arguments.slots,
                       1 << kMaxTableSlotBits);
  }
  const auto block = open_cluster_block(invocation.cluster, {.create = true});
  if (!block.ok()) return failure(block.status());
  ClusterShape shape;
  shape.replicas = static_cast<uint32_t>(arguments.replicas);
  shape.slot_bits = static_cast<uint32_t>(std::countr_zero(static_cast<uint64_t>(arguments.slots)));
  const auto made = make_cluster(**block, shape);
  if (!made.ok()) return failure(made.status());
  const ClusterInfo& info = *made;
  outcome.fields = {{"cluster", invocation.cluster},
                    {"uuid", info.uuid},
                    {"replicas", info.replicas},
                    {"slots", info.slots()}};
  outcome.text = fmt::format("cluster {} made at {}: {} replicas, {} slots\n", info.uuid,
                             invocation.cluster, info.replicas, info.slots());
  return outcome;
}

Outcome form_cluster(const Invocation& invocation, const ClusterArguments& arguments) {
  Outcome outcome;
  if (!check_cluster(invocation, &outcome)) return outcome;
  if (arguments.nodes < 1 || arguments.nodes > kMaxTableMembers) {
    return usage_error("--nodes {}: 1 to {}", arguments.nodes, kMaxTableMembers);
  }
  if (!(arguments.seconds > 0 && arguments.seconds <= 86400)) {
    return usage_error("--seconds: more than 0, at most 86400");
  }
  const auto block = open_cluster_block(invocation.cluster);
  if (!block.ok()) return failure(block.status());
  const absl::Status status = publish_first_table(**block, static_cast<size_t>(arguments.nodes),
                                                  static_cast<int64_t>(arguments.seconds * 1000));
  if (!status.ok()) return failure(status);
  outcome.fields["cluster"] = invocation.cluster;
  outcome.text = "the cluster has its distribution table and serves\n";
  return outcome;
}

// glibc makes eight heaps for each processor and gives none of one's memory to another: after many
// values of 64 MiB a node held twice what it needed.
void keep_few_heaps() {
  mallopt(M_ARENA_MAX, std::max(2, static_cast<int>(std::thread::hardware_concurrency())));
}

Outcome node(const NodeArguments& arguments) {
  keep_few_heaps();
  auto config = load_node_config(arguments.config);
  if (!config.ok()) return failure(config.status());
  config->accept_data_loss = config->accept_data_loss || arguments.accept_data_loss;
  // Says to 'sluice local' whose process this directory has, wherever it is moved or copied to.
  if (const absl::Status made = make_folders(config->data_folder); !made.ok()) return failure(made);
  const auto lock = take_process_lock(config->data_folder + "/" + kNodeLockFile);
  if (!lock.ok()) {
    return failure(with_context(
        lock.status(),
        fmt::format("node {}{}", config->name,
                    absl::IsAlreadyExists(lock.status()) ? ": its data directory is in use" : "")));
  }
  const absl::Status status = run_node(*config);
  return status.ok() ? Outcome() : failure(status);
}

}  // namespace

void register_node(CLI::App& app, Invocation& invocation) {
  const auto arguments = std::make_shared<NodeArguments>();
  CLI::App* command =
      add_command(app, "node",
                  "Run one serving node in the foreground, until SIGTERM or SIGINT (what a service "
                  "manager runs)",
                  "sluice node --config /etc/sluice/n1.toml\n"
                  "\nThe file is TOML:\n"
                  "  name = \"n1\"\n"
                  "  cluster = \"sqlite:/srv/sluice/cluster.db\"\n"
                  "  data_folder = \"/srv/sluice/n1\"\n"
                  "  archive_folder = \"/srv/sluice/n1-archive\"\n"
                  "  control_listen = \"127.0.0.1:7000\"    (gRPC)\n"
                  "  data_listen = \"127.0.0.1:7001\"       (blocks, in the driver's words)\n"
                  "  driver = \"tcp\"\n"
                  "  weight = 2.5                         (measured at start without it)\n"
                  "  rack = \"r1\"");
  command->add_option("--config", arguments->config, "The node's configuration")
      ->required()
      ->type_name("FILE.toml");
  command->add_flag("--accept-data-loss", arguments->accept_data_loss,
                    "Join although the data directory that the cluster knows of is gone");
  command->callback([&invocation, arguments] {
    invocation.own_signals = true;
    invocation.run = [arguments] { return node(*arguments); };
  });
}

void register_cluster(CLI::App& app, Invocation& invocation) {
  CLI::App* cluster =
      add_command(app, "cluster", "Make a cluster whose nodes are started elsewhere",
                  "sluice --cluster sqlite:/srv/cluster.db cluster init");
  cluster->require_subcommand(1, 1);
  const auto arguments = std::make_shared<ClusterArguments>();
  CLI::App* init = add_command(
      *cluster, "init",
      "Describe a new cluster in its cluster block; nodes join it with 'sluice node --config'",
      "sluice --cluster sqlite:/srv/cluster.db cluster init --replicas 3 --slots 4096");
  init->add_option("--replicas", arguments->replicas, "Copies of each record; fixed for good")
      ->capture_default_str();
  init->add_option("--slots", arguments->slots,
                   "Shards of the keys, a power of two; fixed for good")
      ->capture_default_str();
  CLI::App* form = add_command(*cluster, "form",
                               "Wait until so many nodes are live, then share the slots among "
                               "them; nodes serve from then on",
                               "sluice --cluster sqlite:/srv/cluster.db cluster form --nodes 5");
  form->add_option("--nodes", arguments->nodes, "How many nodes to wait for")
      ->required()
      ->type_name("N");
  form->add_option("--seconds", arguments->seconds, "How long to wait")->capture_default_str();
  form->callback([&invocation, arguments] {
    invocation.run = [&invocation, arguments] { return form_cluster(invocation, *arguments); };
  });
  init->callback([&invocation, arguments] {
    invocation.run = [&invocation, arguments] { return init_cluster(invocation, *arguments); };
  });
}

}  // namespace sluice
