#include "control/local/local_cluster.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/deadline.h"
#include "base/random.h"
#include "base/status.h"
#include "base/text.h"
#include "control/client/cluster_client.h"
#include "control/cluster_block/cluster_block.h"
#include "control/membership/membership.h"
#include "control/node/arena_budget.h"
#include "control/node/bootstrap.h"
#include "control/node/config.h"
#include "drivers/registry.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kDescription[] = "local.json";
constexpr size_t kDescriptionLimit = size_t{1} << 20;
constexpr int64_t kReadyPollMs = 50;
constexpr int64_t kAskMs = 1'000;
constexpr size_t kLogTailBytes = 1500;

// A string of TOML: the escapes of JSON are those of its basic strings.
std::string toml_string(const std::string& text) {
  std::string escaped = Json(text).dump();
  for (size_t at = 0; (at = escaped.find('\x7f', at)) != std::string::npos;)
    escaped.replace(at, 1, "\\u007f");
  return escaped;
}

std::string names_of(const std::vector<LocalTree>& trees) {
  std::string text;
  for (const LocalTree& tree : trees) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", tree.name, printable(tree.path));
  }
  return text.empty() ? "none" : text;
}

std::string weight_text(double weight) {
  return weight == 0 ? "measured" : fmt::format("{}", weight);
}

bool is_same_folder(const std::string& a, const std::string& b) {
  struct stat one {};
  struct stat two {};
  return stat(a.c_str(), &one) == 0 && stat(b.c_str(), &two) == 0 && one.st_dev == two.st_dev &&
         one.st_ino == two.st_ino;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::open_folder(const std::string& folder) {
  char absolute[PATH_MAX];
  if (realpath(folder.c_str(), absolute) == nullptr) return errno_status(errno, folder);
  // Configuration files and the cluster's own JSON name it.
  if (!is_utf8(absolute))
    return invalid_argument("{}: its name is not UTF-8; use another directory",
                            printable(absolute));
  const std::string lock_file = std::string(absolute) + "/.lock";
  UniqueFd lock(open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  // What runs in a directory that has become read-only can still be stopped.
  if (!lock) lock.reset(open(lock_file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!lock) return errno_status(errno, fmt::format("open {}", lock_file));
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return unavailable("another 'sluice local' command is working in {}; wait for it to end",
                       absolute);
  }
  return std::unique_ptr<LocalCluster>(new LocalCluster(absolute, std::move(lock)));
}

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::load(const std::string& folder) {
  struct stat info {};
  if (stat((folder + "/" + kDescription).c_str(), &info) != 0) {
    if (errno != ENOENT && errno != ENOTDIR)
      return errno_status(errno, fmt::format("look for a cluster in {}", folder));
    return not_found("no local cluster in {}; 'sluice local up --dir {} --nodes N' makes one",
                     folder, folder);
  }
  SLUICE_ASSIGN_OR_RETURN(auto cluster, open_folder(folder));
  SLUICE_RETURN_IF_ERROR(cluster->read_description());
  return cluster;
}

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::create(const LocalOptions& options) {
  SLUICE_RETURN_IF_ERROR(make_folders(options.folder));
  SLUICE_ASSIGN_OR_RETURN(auto cluster, open_folder(options.folder));
  struct stat info {};
  if (stat(cluster->path(kDescription).c_str(), &info) == 0) {
    SLUICE_RETURN_IF_ERROR(cluster->read_description());
    SLUICE_RETURN_IF_ERROR(cluster->check_same(options));
  } else if (errno != ENOENT) {
    return errno_status(errno, fmt::format("look for a cluster in {}", options.folder));
  } else {
    SLUICE_RETURN_IF_ERROR(cluster->take(options));
  }
  if (!cluster->description_.complete) SLUICE_RETURN_IF_ERROR(cluster->complete());
  return cluster;
}

absl::Status LocalCluster::read_description() {
  const std::string file = path(kDescription);
  SLUICE_ASSIGN_OR_RETURN(const std::string text, read_file(file, kDescriptionLimit));
  auto description = parse_description(text);
  if (!description.ok()) {
    return data_loss("{} is damaged: {}", file, message_of(description.status()));
  }
  description_ = *std::move(description);
  return absl::OkStatus();
}

absl::Status LocalCluster::write_description() const {
  return write_file_durably(path(kDescription), to_json(description_));
}

absl::Status LocalCluster::check_same(const LocalOptions& options) const {
  const auto differs = [&](const char* what, auto has, auto asked) {
    return failed_precondition(
        "{} holds a cluster with {} {}, not {}; start it as it is, or use another directory",
        folder_, what, has, asked);
  };
  if (options.nodes != description_.nodes.size())
    return differs("--nodes", description_.nodes.size(), options.nodes);
  if (options.replicas != 0 && options.replicas != description_.replicas)
    return differs("--replicas", description_.replicas, options.replicas);
  if (options.slots != 0 && options.slots != description_.slots)
    return differs("--slots", description_.slots, options.slots);
  if (options.driver != description_.driver)
    return differs("--driver", description_.driver, options.driver);
  if (!options.etcd_url.empty() && options.etcd_url != description_.url)
    return differs("--cluster", description_.url, options.etcd_url);
  for (size_t i = 0; i < options.weights.size(); ++i) {
    if (options.weights[i] != description_.nodes[i].weight)
      return differs("--weights", weight_text(description_.nodes[i].weight), options.weights[i]);
  }
  if (options.measured_weights && description_.nodes[0].weight != 0)
    return differs("--weights", description_.nodes[0].weight, "measured");
  for (const auto& [name, limit] : options.limits) {
    SLUICE_ASSIGN_OR_RETURN(const LocalNode* node, find(name));
    if (limit != node->bytes_per_second)
      return differs("--limit", fmt::format("{}={}", name, node->bytes_per_second), limit);
  }
  for (size_t i = 0; i < options.racks.size(); ++i) {
    if (options.racks[i] != description_.nodes[i].rack)
      return differs("--racks", description_.nodes[i].rack, options.racks[i]);
  }
  if (!options.trees.empty() && options.trees != description_.trees)
    return differs("--tree", names_of(description_.trees), names_of(options.trees));
  return absl::OkStatus();
}

absl::Status LocalCluster::take(const LocalOptions& options) {
  description_.id = make_uuid();
  description_.made_in = folder_;
  description_.url = options.etcd_url.empty() ? "sqlite:" + path("cluster.db") : options.etcd_url;
  description_.driver = options.driver;
  description_.replicas =
      options.replicas != 0 ? options.replicas : std::min<uint32_t>(3, options.nodes);
  description_.slots = options.slots != 0 ? options.slots : kDefaultSlots;
  description_.trees = options.trees;
  SLUICE_ASSIGN_OR_RETURN(const std::vector<uint16_t> ports, free_ports(size_t{2} * options.nodes));
  SLUICE_ASSIGN_OR_RETURN(const std::string data_host, local_host(options.driver));
  for (uint32_t i = 0; i < options.nodes; ++i) {
    LocalNode node;
    node.name = fmt::format("n{}", i + 1);
    node.weight = options.weights.empty() ? 1 : options.weights[i];
    if (options.measured_weights) node.weight = 0;
    if (const auto limit = options.limits.find(node.name); limit != options.limits.end())
      node.bytes_per_second = limit->second;
    node.rack = options.racks.empty() ? "" : options.racks[i];
    node.control_address = fmt::format("127.0.0.1:{}", ports[2 * i]);
    node.data_address = fmt::format("{}:{}", data_host, ports[2 * i + 1]);
    description_.nodes.push_back(std::move(node));
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::complete() {
  SLUICE_RETURN_IF_ERROR(settle());
  SLUICE_ASSIGN_OR_RETURN(const auto block, open_cluster_block(description_.url, {.create = true}));
  const bool is_continued = access(path(kDescription).c_str(), F_OK) == 0;
  // Before the cluster is made, so that the next command knows it for this directory's own.
  SLUICE_RETURN_IF_ERROR(write_description());
  const absl::Status made = make_cluster_in(*block);
  if (absl::IsUnavailable(made)) {
    return unavailable("{}; 'sluice local up' with the same options continues from here",
                       message_of(made));
  }
  if (!made.ok()) {
    // Nothing was made, now or by a command that was interrupted. What is full, or does not let us
    // in, says nothing of that.
    const bool is_refused = absl::IsAlreadyExists(made) || absl::IsFailedPrecondition(made) ||
                            absl::IsInvalidArgument(made);
    if (is_refused && !is_continued) unlink(path(kDescription).c_str());
    return made;
  }
  SLUICE_RETURN_IF_ERROR(write_configs());
  description_.complete = true;
  return write_description();
}

absl::Status LocalCluster::write_configs() const {
  for (const LocalNode& node : description_.nodes) {
    SLUICE_RETURN_IF_ERROR(write_file_durably(path(node.name + ".toml"), config_of(node)));
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::settle() {
  if (description_.made_in == folder_ || is_same_folder(description_.made_in, folder_))
    return absl::OkStatus();
  LocalCluster original(description_.made_in, UniqueFd());
  if (original.read_description().ok() && original.description_.id == description_.id) {
    return failed_precondition(
        "{0} is a copy of the cluster in {1}, and its configuration files name {1}: started, its "
        "nodes would work on the original's data. Remove or rename {1} to use the copy instead, or "
        "make another cluster and restore a backup into it",
        folder_, description_.made_in);
  }
  for (const LocalNode& node : description_.nodes) {
    if (const auto running = process(node)) {
      return failed_precondition(
          "{} was moved from {} while node {} (process {}) runs in it; 'sluice local down --dir "
          "{}' first",
          folder_, description_.made_in, node.name, running->pid, folder_);
    }
  }
  const std::string old_url = "sqlite:" + description_.made_in + "/cluster.db";
  if (description_.url == old_url) description_.url = "sqlite:" + path("cluster.db");
  SLUICE_RETURN_IF_ERROR(write_configs());
  description_.made_in = folder_;
  return write_description();  // last: a crash before it does all of this again
}

absl::Status LocalCluster::make_cluster_in(ClusterBlock& block) const {
  ClusterShape shape;
  shape.uuid = description_.id;
  shape.slot_bits = static_cast<uint32_t>(std::countr_zero(description_.slots));
  shape.replicas = description_.replicas;
  const absl::Status status = make_cluster(block, shape).status();
  if (!absl::IsAlreadyExists(status)) return status;
  SLUICE_ASSIGN_OR_RETURN(const ClusterUrl url, parse_cluster_url(description_.url));
  if (url.kind == ClusterUrl::Kind::kEtcd) {
    // Whose it is cannot be told.
    return already_exists(
        "{} in {}: use another PREFIX, or, if that cluster is gone for good, erase what is under "
        "this one (etcdctl del --prefix {}/)",
        message_of(status), description_.url, url.prefix);
  }
  // Its description was removed.
  SLUICE_ASSIGN_OR_RETURN(const ClusterInfo there, load_cluster(block));
  if (there.slot_bits == shape.slot_bits && there.replicas == shape.replicas)
    return absl::OkStatus();
  return failed_precondition(
      "there is a cluster in {} already, with {} slots and {} replicas; ask for these, or use "
      "another directory",
      description_.url, there.slots(), there.replicas);
}

std::string LocalCluster::config_of(const LocalNode& node) const {
  std::string text = "# Written by 'sluice local up'; read by 'sluice node --config'.\n";
  const auto add = [&](const char* key, const std::string& value) {
    text += fmt::format("{} = {}\n", key, toml_string(value));
  };
  add("name", node.name);
  add("cluster", description_.url);
  add("data_folder", path(node.name));
  add("archive_folder", path(node.name + "-archive"));
  add("control_listen", node.control_address);
  add("data_listen", node.data_address);
  add("driver", description_.driver);
  add("rack", node.rack);
  if (node.weight != 0) text += fmt::format("weight = {}\n", node.weight);
  // The default is for clusters of a dozen nodes.
  const uint64_t arena_bytes = recommended_arena_bytes(description_.nodes.size());
  if (arena_bytes > NodeConfig().arena_bytes)
    text += fmt::format("arena_bytes = {}\n", arena_bytes);
  if (node.bytes_per_second != 0)
    text += fmt::format("limits.bytes_per_second = {}\n", node.bytes_per_second);
  for (const LocalTree& tree : description_.trees) {
    text += "[[tree]]\n";
    add("name", tree.name);
    add("path", tree.path_of(node.name));
  }
  return text;
}

absl::StatusOr<const LocalNode*> LocalCluster::find(const std::string& name) const {
  std::string names;
  for (const LocalNode& node : description_.nodes) {
    if (node.name == name) return &node;
    names += (names.empty() ? "" : ", ") + node.name;
  }
  return not_found("no node '{}' in {}; there are {}", name, folder_, names);
}

std::optional<ProcessId> LocalCluster::process(const LocalNode& node) const {
  const auto holder = holder_of_process_lock(path(node.name) + "/" + kNodeLockFile);
  return holder && is_running(*holder) ? holder : std::nullopt;
}

absl::StatusOr<ProcessId> LocalCluster::start(const LocalNode& node, bool accept_data_loss) {
  if (!description_.complete) {
    return failed_precondition(
        "the cluster in {0} is not complete: the command that made it was interrupted; 'sluice "
        "local up --dir {0} --nodes {1}' continues it",
        folder_, description_.nodes.size());
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string program, own_executable());
  std::vector<std::string> arguments = {program, "node", "--config", path(node.name + ".toml")};
  if (accept_data_loss) arguments.push_back("--accept-data-loss");
  SLUICE_ASSIGN_OR_RETURN(const ProcessId process, spawn_daemon(arguments, log_of(node)));
  // For whoever looks into the directory: nothing here depends on it.
  if (const absl::Status written = write_pid_file(path(node.name + ".pid"), process); !written.ok())
    spdlog::warn("{}", message_of(written));
  return process;
}

// OK when they serve; UNAVAILABLE or DEADLINE_EXCEEDED with what is still missing.
absl::Status LocalCluster::why_not_serving(const std::vector<Started>& started) const {
  SLUICE_ASSIGN_OR_RETURN(const auto block, open_cluster_block(description_.url));
  SLUICE_RETURN_IF_ERROR(publish_first_table(*block, description_.nodes.size(), kReadyPollMs));
  SLUICE_ASSIGN_OR_RETURN(const auto client, ClusterClient::open(*block, description_.url));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<NodeView> views, client->nodes());
  for (const Started& one : started) {
    const auto view = std::find_if(views.begin(), views.end(),
                                   [&](const NodeView& v) { return v.name == one.node->name; });
    if (view == views.end()) return unavailable("{} has not joined", one.node->name);
    if (view->state != NodeState::kLive || view->process != one.process.pid)
      return unavailable("{} is not live", one.node->name);
    if (!view->reached) return unavailable("{} does not answer", one.node->name);
  }
  return client->table().status();
}

absl::Status LocalCluster::wait_until_serving(const std::vector<Started>& started,
                                              int64_t timeout_ms,
                                              const std::function<bool()>& interrupted) const {
  Deadline deadline(system_clock(), timeout_ms);
  while (true) {
    for (const Started& one : started) {
      if (is_running(one.process)) continue;
      return unavailable("node {} ended; the end of {}:\n{}", one.node->name, log_of(*one.node),
                         tail_of_file(log_of(*one.node), kLogTailBytes));
    }
    if (interrupted()) return cancelled("interrupted");
    const absl::Status status = why_not_serving(started);
    if (status.ok()) return status;
    if (!deadline.pause(kReadyPollMs)) {
      return unavailable("not ready after {} s: {}; the logs are {}/n*.log", timeout_ms / 1000,
                         message_of(status), folder_);
    }
  }
}

absl::StatusOr<std::vector<std::string>> LocalCluster::listed_live(
    const std::vector<Started>& stopped) const {
  OpenClusterOptions options;
  options.call_ms = kAskMs;
  SLUICE_ASSIGN_OR_RETURN(const auto block, open_cluster_block(description_.url, options));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<Member> members, list_members(*block));
  std::vector<std::string> live;
  for (const Started& one : stopped) {
    const auto member = std::find_if(members.begin(), members.end(), [&](const Member& each) {
      return each.info.name == one.node->name;
    });
    if (member != members.end() && member->live) live.push_back(one.node->name);
  }
  return live;
}

absl::StatusOr<std::vector<std::string>> LocalCluster::stop(const std::vector<Started>& processes,
                                                            int64_t timeout_ms) const {
  for (const Started& one : processes) {
    const absl::Status status = send_signal(one.process, SIGTERM);
    if (!status.ok() && is_running(one.process)) return status;
  }
  const Deadline deadline(system_clock(), timeout_ms);
  std::vector<std::string> killed;
  for (const Started& one : processes) {
    if (!wait_until_gone(one.process, deadline.left_ms())) {
      SLUICE_RETURN_IF_ERROR(send_signal(one.process, SIGKILL));
      if (!wait_until_gone(one.process, timeout_ms)) {
        return internal_error("process {} of {} does not end", one.process.pid, one.node->name);
      }
      killed.push_back(one.node->name);
    }
    unlink(path(one.node->name + ".pid").c_str());
  }
  return killed;
}

}  // namespace sluice
