// A simulated data centre: hosts with a disk and a clock each, the network between them, and
// clusters of the nodes that ship, with clients. To be made inside of a run (simulation.h); lives
// until the run ends.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_WORLD_H_
#define SLUICE_TESTS_SIMULATION_WORLD_WORLD_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "control/backup/documents.h"
#include "control/client/cluster_client.h"
#include "control/node/node.h"
#include "drivers/sim/sim.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/mounts.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world/fabric_time.h"
#include "tests/simulation/world/sim_block.h"
#include "tests/simulation/world/sim_calls.h"

namespace sluice::simulation {

struct ClusterShapeOptions {
  size_t nodes = 3;
  uint32_t replicas = 3;
  uint32_t slot_bits = 3;
  int64_t lease_ms = 3000;  // of each node
};

class World;

// One process of a node, from its start to its end.
struct NodeProcess {
  Process* process = nullptr;
  bool started = false;  // Node::start() has returned
  bool ended = false;
  bool stop = false;  // asked for
  bool accepts_data_loss = false;
  std::string control_address;
  absl::Status status;   // of its start, then why it ended
  Node* node = nullptr;  // while it runs
};

// A host that a node runs on.
class Host {
 public:
  // `node` is the name of the node that runs on it.
  Host(World& world, std::string name, std::string node, std::string cluster, uint64_t number);

  const std::string& name() const { return name_; }
  const std::string& node() const { return node_; }
  const std::string& cluster() const { return cluster_; }
  Disk& disk() { return disk_; }
  Mount& mount() { return mount_; }
  BlockFaults block_faults;
  int64_t wall_offset_ns = 0;  // of processes that are started from now on

  // Starts a process; there must be none.
  void start(bool accept_data_loss = false);
  bool running() const { return process_ != nullptr && !process_->ended; }
  bool accepts_data_loss() const { return process_ != nullptr && process_->accepts_data_loss; }
  bool serving() const {
    return running() && process_->node != nullptr && process_->node->serving();
  }
  // Of the last process; OK while it runs well.
  absl::Status status() const;
  // Waits until it has ended.
  void stop();
  // Its process dies, or the host loses its power. Harmless where none runs. From any thread.
  void crash(bool power);
  // To be called behind crash(): the other host's process, if one runs, is reached at the address
  // that the last process of this one had.
  void give_address_to(const Host& other);
  Process* process() { return running() ? process_->process : nullptr; }
  bool is_running(const Process& process) const {
    return running() && process_->process == &process;
  }
  std::string data_folder() const { return folder() + "/data"; }
  std::string archive_folder() const { return folder() + "/archives"; }

 private:
  std::string folder() const { return std::string(kRoot) + "/" + name_; }
  void run(NodeProcess& state, bool accept_data_loss);
  NodeOptions options(bool accept_data_loss) const;

  World& world_;
  const std::string name_;
  const std::string node_;
  const std::string cluster_;
  const bool has_fixed_port_;  // or another one after each start
  Disk disk_;
  Mount& mount_;
  NodeProcess* process_ = nullptr;
  std::deque<NodeProcess> processes_;  // all that ever were
};

class World {
 public:
  explicit World(uint64_t seed);

  // Called in the harness's process: makes a cluster, starts its nodes, and waits until all serve.
  void make_cluster(const std::string& name, const ClusterShapeOptions& shape);
  std::vector<Host*> hosts(std::string_view cluster);
  Host& host(std::string_view name);
  // Another host, with this data directory, whose node has the same name; no node runs on it yet.
  // Only host() knows of it.
  Host& make_copy(const Host& host, const Disk::Tree& data);
  std::deque<Host>& all_hosts() { return hosts_; }
  std::deque<Host>& copies() { return copies_; }  // that make_copy() made

  // A client's process; `body` runs in a thread of it, with a client of the cluster.
  using ClientBody = std::function<void(ClusterClient&)>;
  Process& start_client(const std::string& name, const std::string& cluster, ClientBody body,
                        bool* ended = nullptr);
  // As a host's crash. Its name is not to be used again.
  void crash_client(Process& process);
  // The same, and waits for its end.
  void with_client(const std::string& cluster, const ClientBody& body);
  // Of the harness: without faults.
  ClusterBlock& block(const std::string& cluster) { return *blocks_.at(cluster)->late; }
  BlockWorld& block_world(const std::string& cluster) { return *blocks_.at(cluster); }
  // The newest of the name, as its head was stored last, also if it was deleted since.
  std::optional<BackupHead> newest_backup(const std::string& cluster, std::string_view name);
  BlockFaults client_block_faults;

  Random& random() { return random_; }
  SimFabric& fabric() { return fabric_; }
  SimCalls& calls() { return calls_; }
  // Both networks.
  void partition(const std::string& a, const std::string& b);
  void heal_partitions();
  bool is_partitioned() const { return !partitions_.empty(); }

  static std::string url_of(std::string_view cluster) { return "memory:" + std::string(cluster); }
  TransportFactory transport_of(const std::string& name);
  ClusterBlockOpener opener(const BlockFaults& faults);

 private:
  friend class Host;
  static SimOptions fabric_options(SimTime* time);

  Random random_;
  FabricTime time_;
  SimFabric fabric_;
  SimCalls calls_;
  std::map<std::string, std::unique_ptr<BlockWorld>> blocks_;  // by cluster
  std::deque<Host> hosts_;
  std::deque<Host> copies_;
  std::vector<std::pair<std::string, std::string>> partitions_;
  uint64_t clients_ = 0;
};

// The host that an address is of.
std::string host_at(std::string_view address);
RestoreRequest restore_of(std::string backup, std::string source_cluster = {});
// Waits in simulated time; false when `done` is not true by then.
bool wait_until(int64_t timeout_ms, const std::function<bool()>& done, int64_t step_ms = 10);
void sleep_ms(int64_t ms);
// On a thread of its own of the caller's process.
void spawn(std::function<void()> body);
// What nodes log goes into the trace: the same in every run, whether it is printed or not.
void trace_logs();
// Ends the run unless it is OK.
void require_ok(const absl::Status& status, std::string_view what);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_WORLD_H_
