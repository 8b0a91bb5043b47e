// sluice local: a cluster of background processes on this machine.
#include <bit>
#include <csignal>
#include <memory>

#include "base/text.h"
#include "control/cli/command.h"
#include "control/cli/progress.h"
#include "control/local/local_cluster.h"
#include "control/node/config.h"
#include "control/table/table.h"

namespace sluice {
namespace {

constexpr int64_t kReadyMs = 90'000;
constexpr int64_t kStopMs = 20'000;
constexpr uint32_t kMaxLocalNodes = 256;
constexpr char kMeasured[] = "measured";

struct LocalArguments {
  LocalOptions options;
  int64_t nodes = 0;
  int64_t replicas = 0;
  bool has_replicas = false;
  int64_t slots = kDefaultSlots;
  bool has_slots = false;
  std::vector<std::string> weights;
  std::vector<std::string> limits;
  std::vector<std::string> trees;
  std::string name;
  bool accept_data_loss = false;
};

bool read_weights(const std::vector<std::string>& texts, LocalOptions* options, Outcome* error) {
  options->measured_weights = texts == std::vector<std::string>{kMeasured};
  if (options->measured_weights) return true;
  for (const std::string& text : texts) {
    if (!parse_weight(text, &options->weights.emplace_back())) {
      *error =
          usage_error("--weights {}: positive numbers, or {} alone", printable(text), kMeasured);
      return false;
    }
  }
  return true;
}

bool read_limits(const std::vector<std::string>& texts, LocalOptions* options, Outcome* error) {
  const auto fail = [&](Outcome outcome) {
    *error = std::move(outcome);
    return false;
  };
  for (const std::string& text : texts) {
    std::string name;
    std::string value;
    uint64_t rate = 0;
    if (!split_assignment(text, &name, &value) || !parse_rate(value, &rate) ||
        rate < kLeastBytesPerSecond) {
      return fail(usage_error("--limit {}: NAME=RATE with a rate of at least 1MiB/s, as n2=25MB/s",
                              printable(text)));
    }
    if (!options->limits.emplace(name, rate).second)
      return fail(usage_error("--limit: '{}' twice", printable(name)));
  }
  return true;
}

// NAME=DIR; the directory may be relative to this one.
bool read_trees(const std::vector<std::string>& texts, LocalOptions* options, Outcome* error) {
  const auto fail = [&](Outcome outcome) {
    *error = std::move(outcome);
    return false;
  };
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals + 1 == text.size())
      return fail(usage_error("--tree {}: NAME=DIR", printable(text)));
    LocalTree tree{text.substr(0, equals), ""};
    if (const absl::Status named = check_tree_name(tree.name); !named.ok())
      return fail(usage_error("--tree {}: {}", printable(text), message_of(named)));
    std::error_code error_code;
    tree.path = std::filesystem::absolute(text.substr(equals + 1), error_code).lexically_normal();
    if (error_code || !is_utf8(tree.path))
      return fail(usage_error("--tree {}: DIR has to be a path in UTF-8", printable(text)));
    const auto same = [&tree](const LocalTree& other) { return other.name == tree.name; };
    if (std::any_of(options->trees.begin(), options->trees.end(), same))
      return fail(usage_error("--tree: '{}' twice", tree.name));
    options->trees.push_back(std::move(tree));
  }
  return true;
}

// Whether limits are of nodes n1 to nN.
bool are_of_nodes(const LocalOptions& options, Outcome* error) {
  for (const auto& [name, rate] : options.limits) {
    bool known = false;
    for (uint32_t i = 1; i <= options.nodes && !known; ++i) known = name == fmt::format("n{}", i);
    if (known) continue;
    *error =
        usage_error("--limit: no node '{}'; there are n1 to n{}", printable(name), options.nodes);
    return false;
  }
  return true;
}

// The options as far as they can be judged without the folder.
bool check_options(LocalArguments& arguments, Outcome* error) {
  LocalOptions& options = arguments.options;
  const auto fail = [&](Outcome outcome) {
    *error = std::move(outcome);
    return false;
  };
  if (arguments.nodes < 1 || arguments.nodes > kMaxLocalNodes) {
    return fail(usage_error("--nodes {}: 1 to {}", arguments.nodes, kMaxLocalNodes));
  }
  const int64_t most_replicas = std::min<int64_t>(arguments.nodes, kMaxReplicas);
  if (arguments.has_replicas && (arguments.replicas < 1 || arguments.replicas > most_replicas)) {
    return fail(usage_error("--replicas {}: 1 to {} with {} nodes", arguments.replicas,
                            most_replicas, arguments.nodes));
  }
  if (arguments.slots < 2 || arguments.slots > (int64_t{1} << kMaxTableSlotBits) ||
      !std::has_single_bit(static_cast<uint64_t>(arguments.slots))) {
    return fail(usage_error("--slots {}: a power of two, 2 to {}", arguments.slots,
                            1 << kMaxTableSlotBits));
  }
  const auto nodes = static_cast<size_t>(arguments.nodes);
  if (!read_weights(arguments.weights, &options, error)) return false;
  if (!read_limits(arguments.limits, &options, error)) return false;
  if (!read_trees(arguments.trees, &options, error)) return false;
  if (!options.weights.empty() && options.weights.size() != nodes) {
    return fail(usage_error("--weights has {} values for {} nodes", options.weights.size(), nodes));
  }
  if (!options.racks.empty() && options.racks.size() != nodes) {
    return fail(usage_error("--racks has {} values for {} nodes", options.racks.size(), nodes));
  }
  for (const std::string& rack : options.racks) {
    if (!is_utf8(rack)) return fail(usage_error("--racks {}: not UTF-8", printable(rack)));
  }
  options.nodes = static_cast<uint32_t>(arguments.nodes);
  if (!are_of_nodes(options, error)) return false;
  options.replicas = static_cast<uint32_t>(arguments.replicas);
  options.slots = arguments.has_slots ? static_cast<uint32_t>(arguments.slots) : 0;
  return true;
}

std::vector<LocalCluster::Started> running(const LocalCluster& cluster) {
  std::vector<LocalCluster::Started> processes;
  for (const LocalNode& node : cluster.nodes()) {
    if (const auto process = cluster.process(node)) processes.push_back({&node, *process});
  }
  return processes;
}

Outcome started_outcome(const LocalCluster& cluster,
                        const std::vector<LocalCluster::Started>& started) {
  Outcome outcome;
  outcome.fields["cluster"] = cluster.url();
  outcome.fields["nodes"] = Json::array();
  TextTable table({"node", "pid", "address"});
  for (const auto& [node, process] : started) {
    outcome.fields["nodes"].push_back(
        {{"name", node->name}, {"pid", process.pid}, {"address", node->control_address}});
    table.add({node->name, std::to_string(process.pid), node->control_address});
  }
  outcome.text = fmt::format("cluster {}\n{}", cluster.url(), table.str());
  return outcome;
}

absl::Status start_all(LocalCluster& cluster, std::vector<LocalCluster::Started>* started) {
  for (const LocalNode& node : cluster.nodes()) {
    SLUICE_ASSIGN_OR_RETURN(const ProcessId process, cluster.start(node, false));
    started->push_back({&node, process});
  }
  return cluster.wait_until_serving(*started, kReadyMs, Interrupts::interrupted);
}

Outcome up(const Invocation& invocation, LocalArguments& arguments) {
  Outcome error;
  if (!check_options(arguments, &error)) return error;
  if (invocation.cluster.starts_with("etcd:")) {
    if (!check_cluster(invocation, &error)) return error;
    arguments.options.etcd_url = invocation.cluster;
  }
  const Interrupts::Handler handler([] {});  // waiting looks at Interrupts::interrupted()
  const auto cluster = LocalCluster::create(arguments.options);
  if (!cluster.ok()) return failure(cluster.status());
  if (const auto processes = running(**cluster); !processes.empty()) {
    return failure(failed_precondition(
        "a cluster runs in {} already ({}, process {}, and {} more); 'sluice local down' stops "
        "it",
        arguments.options.folder, processes[0].node->name, processes[0].process.pid,
        processes.size() - 1));
  }
  if (const absl::Status status = (*cluster)->settle(); !status.ok()) return failure(status);
  std::vector<LocalCluster::Started> started;
  if (const absl::Status status = start_all(**cluster, &started); !status.ok()) {
    const auto stopped = (*cluster)->stop(started, kStopMs);
    return failure(stopped.ok() ? status : with_context(status, message_of(stopped.status())));
  }
  return started_outcome(**cluster, started);
}

// What the cluster block does not know of nodes that have stopped.
void report_listed(const LocalCluster& cluster, const std::vector<LocalCluster::Started>& stopped,
                   Outcome* outcome) {
  const auto live = cluster.listed_live(stopped);
  std::string why;
  if (!live.ok()) {
    for (const auto& one : stopped) outcome->fields["listed_live"].push_back(one.node->name);
    why = fmt::format("cannot ask the cluster block: {}", message_of(live.status()));
  } else if (!live->empty()) {
    outcome->fields["listed_live"] = *live;
    why = "the cluster block was not told that they stopped";
  }
  if (why.empty()) return;
  const auto& names = outcome->fields["listed_live"].get<std::vector<std::string>>();
  outcome->text += fmt::format("{}; it may list {} as live until their leases end\n", why,
                               fmt::join(names, ", "));
}

Outcome down(const LocalArguments& arguments) {
  const Interrupts::Handler handler([] {});  // it ends by itself soon, and half a stop helps nobody
  const auto cluster = LocalCluster::load(arguments.options.folder);
  if (!cluster.ok()) return failure(cluster.status());
  const auto processes = running(**cluster);
  const auto killed = (*cluster)->stop(processes, kStopMs);
  if (!killed.ok()) return failure(killed.status());
  Outcome outcome;
  outcome.fields["stopped"] = Json::array();
  for (const auto& one : processes) outcome.fields["stopped"].push_back(one.node->name);
  outcome.fields["killed"] = *killed;
  outcome.text = fmt::format("{} nodes stopped", processes.size());
  if (!killed->empty()) outcome.text += fmt::format(", {} of them by SIGKILL", killed->size());
  outcome.text += "\n";
  outcome.fields["listed_live"] = Json::array();
  if (!processes.empty()) report_listed(**cluster, processes, &outcome);
  return outcome;
}

Outcome kill_node(const LocalArguments& arguments) {
  const auto cluster = LocalCluster::load(arguments.options.folder);
  if (!cluster.ok()) return failure(cluster.status());
  const auto node = (*cluster)->find(arguments.name);
  if (!node.ok()) return failure(node.status());
  const auto process = (*cluster)->process(**node);
  if (!process) return failure(failed_precondition("node {} does not run", arguments.name));
  if (absl::Status status = send_signal(*process, SIGKILL); !status.ok()) return failure(status);
  if (!wait_until_gone(*process, kStopMs))
    return failure(internal_error("process {} does not end", process->pid));
  Outcome outcome;
  outcome.fields = {{"name", arguments.name}, {"pid", process->pid}};
  outcome.text = fmt::format("node {} (process {}) killed\n", arguments.name, process->pid);
  return outcome;
}

Outcome start_node(const LocalArguments& arguments) {
  const Interrupts::Handler handler([] {});
  const auto cluster = LocalCluster::load(arguments.options.folder);
  if (!cluster.ok()) return failure(cluster.status());
  const auto node = (*cluster)->find(arguments.name);
  if (!node.ok()) return failure(node.status());
  if (const auto process = (*cluster)->process(**node)) {
    return failure(
        failed_precondition("node {} runs already (process {})", arguments.name, process->pid));
  }
  if (const absl::Status status = (*cluster)->settle(); !status.ok()) return failure(status);
  const auto process = (*cluster)->start(**node, arguments.accept_data_loss);
  if (!process.ok()) return failure(process.status());
  const std::vector<LocalCluster::Started> started = {{*node, *process}};
  if (const absl::Status status =
          (*cluster)->wait_until_serving(started, kReadyMs, Interrupts::interrupted);
      !status.ok()) {
    (void)(*cluster)->stop(started, kStopMs);
    return failure(status);
  }
  return started_outcome(**cluster, started);
}

void register_up(CLI::App& local, Invocation& invocation,
                 const std::shared_ptr<LocalArguments>& arguments) {
  CLI::App* command = add_command(
      local, "up", "Start a cluster of nodes n1..nN in a directory, or the one that is there again",
      "sluice local up --dir /tmp/demo --nodes 4 --weights 1,2,3,4 --racks a,a,b,b\n"
      "\nWeights are explicit here, 1 each unless given: nodes that share one machine are equals. "
      "With --weights measured they measure themselves, as nodes of several machines do, which "
      "finds what --limit makes slow.\n"
      "Nodes listen on 127.0.0.1, with --driver rdma for blocks on the RDMA device's address, and "
      "keep their ports. Records are in D/nX, archives in "
      "D/nX-archive, logs in D/nX.log.");
  command->add_option("--dir", arguments->options.folder, "The directory")
      ->required()
      ->type_name("D");
  command->add_option("--nodes", arguments->nodes, "How many nodes")->required()->type_name("N");
  CLI::Option* replicas = command
                              ->add_option("--replicas", arguments->replicas,
                                           "Copies of each record; 3 without this, or N if fewer")
                              ->type_name("R");
  CLI::Option* slots = command
                           ->add_option("--slots", arguments->slots,
                                        "Shards of the keys, a power of two; fixed for good")
                           ->capture_default_str()
                           ->type_name("S");
  command
      ->add_option("--driver", arguments->options.driver,
                   "How nodes move blocks (see sluice doctor)")
      ->capture_default_str();
  command
      ->add_option("--weights", arguments->weights,
                   "Shares of the nodes, as 1,2,4; or 'measured': each node finds its own")
      ->delimiter(',')
      ->type_name("W,...");
  command
      ->add_option("--limit", arguments->limits,
                   "What blocks may take of a node in each direction, as n2=25MB/s,n5=25MB/s")
      ->delimiter(',')
      ->type_name("NAME=RATE,...");
  command
      ->add_option("--tree", arguments->trees,
                   "A directory tree of each node that backups take where it is; %n in DIR is the "
                   "node's name. May be given more than once")
      ->type_name("NAME=DIR");
  command->add_option("--racks", arguments->options.racks, "Failure domains of the nodes, as a,a,b")
      ->delimiter(',')
      ->type_name("R,...");
  command->callback([&invocation, arguments, replicas, slots] {
    arguments->has_replicas = replicas->count() > 0;
    arguments->has_slots = slots->count() > 0;
    invocation.run = [&invocation, arguments] { return up(invocation, *arguments); };
  });
}

}  // namespace

void register_local(CLI::App& app, Invocation& invocation) {
  CLI::App* local =
      add_command(app, "local", "Run a cluster of background processes on this machine",
                  "sluice local up --dir /tmp/demo --nodes 3");
  local->require_subcommand(1, 1);
  const auto arguments = std::make_shared<LocalArguments>();
  register_up(*local, invocation, arguments);
  CLI::App* down_command = add_command(*local, "down", "Stop all nodes; records and archives stay",
                                       "sluice local down --dir /tmp/demo");
  CLI::App* kill_command = add_command(*local, "kill", "Kill one node (SIGKILL), as a crash would",
                                       "sluice local kill --dir /tmp/demo n2");
  CLI::App* start_command = add_command(*local, "start", "Start one node again",
                                        "sluice local start --dir /tmp/demo n2\n"
                                        "\nA node whose data directory is gone refuses to start. "
                                        "--accept-data-loss lets it join empty: its copies are\n"
                                        "then missing until they are written again.");
  for (CLI::App* command : {down_command, kill_command, start_command}) {
    command->add_option("--dir", arguments->options.folder, "The directory")
        ->required()
        ->type_name("D");
  }
  kill_command->add_option("NAME", arguments->name, "The node")->required();
  start_command->add_option("NAME", arguments->name, "The node")->required();
  start_command->add_flag("--accept-data-loss", arguments->accept_data_loss,
                          "Join although the data directory is gone");
  down_command->callback(
      [&invocation, arguments] { invocation.run = [arguments] { return down(*arguments); }; });
  kill_command->callback(
      [&invocation, arguments] { invocation.run = [arguments] { return kill_node(*arguments); }; });
  start_command->callback([&invocation, arguments] {
    invocation.run = [arguments] { return start_node(*arguments); };
  });
}

}  // namespace sluice
