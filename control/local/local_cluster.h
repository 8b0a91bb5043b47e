// A cluster of background processes on this machine, all of it in one folder D:
//   local.json          what it is: URL, driver, nodes with weights, limits, racks and addresses;
//                       written first, and again when the rest is there
//   cluster.db          the cluster block (unless etcd is used)
//   nX.toml nX.log nX.pid   configuration, output and process of node nX
//   nX/ nX-archive/     its records, its parts of archives
//   nX/node.lock        locked by the node while it runs: this alone says whose process it is
// One command at a time works in D: it holds a lock on D/.lock.
//
// D may be moved: its configuration files are then rewritten where it is. A copy of a D that is
// still there is not started: its configuration, addresses and identity are the original's.
#ifndef SLUICE_CONTROL_LOCAL_LOCAL_CLUSTER_H_
#define SLUICE_CONTROL_LOCAL_LOCAL_CLUSTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "control/cluster_block/cluster_block.h"
#include "control/local/description.h"
#include "control/local/process.h"

namespace sluice {

inline constexpr uint32_t kDefaultSlots = 4096;

struct LocalOptions {
  std::string folder;
  uint32_t nodes = 0;
  uint32_t replicas = 0;  // 0: min(3, nodes)
  uint32_t slots = 0;     // a power of two; 0: kDefaultSlots
  std::string driver = "tcp";
  std::vector<double> weights;             // empty: 1 each
  bool measured_weights = false;           // instead
  std::map<std::string, uint64_t> limits;  // bytes a second, by node
  std::vector<std::string> racks;
  std::vector<LocalTree> trees;
  std::string etcd_url;  // empty: SQLite in the folder
};

// Confined to one thread.
class LocalCluster {
 public:
  // The cluster in a folder: as it is when there is one (FAILED_PRECONDITION when the options ask
  // for another), else made by the options, with its configuration files and cluster block.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> create(const LocalOptions& options);
  // NOT_FOUND when there is none in the folder.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> load(const std::string& folder);

  const std::string& url() const { return description_.url; }
  const std::vector<LocalNode>& nodes() const { return description_.nodes; }
  // NOT_FOUND naming the nodes there are.
  absl::StatusOr<const LocalNode*> find(const std::string& name) const;
  // Its process while that runs: the one that has locked its data directory in this very folder.
  std::optional<ProcessId> process(const LocalNode& node) const;

  // Adopts the place the folder is in now. Before any start(). FAILED_PRECONDITION for a copy, and
  // for a folder that was moved while nodes run in it.
  absl::Status settle();
  absl::StatusOr<ProcessId> start(const LocalNode& node, bool accept_data_loss);
  // Until the given nodes are live under these processes, answer, and the table is published.
  // UNAVAILABLE with the end of the log of a node that ended, or after timeout_ms; CANCELLED once
  // `interrupted` says so.
  struct Started {
    const LocalNode* node = nullptr;
    ProcessId process;
  };
  absl::Status wait_until_serving(const std::vector<Started>& started, int64_t timeout_ms,
                                  const std::function<bool()>& interrupted) const;
  // SIGTERM to all, SIGKILL to those that are there after timeout_ms. Returns the names of the
  // latter.
  absl::StatusOr<std::vector<std::string>> stop(const std::vector<Started>& processes,
                                                int64_t timeout_ms) const;
  // Which of them the cluster block lists as live. An etcd is not waited for.
  absl::StatusOr<std::vector<std::string>> listed_live(const std::vector<Started>& stopped) const;

 private:
  LocalCluster(std::string folder, UniqueFd lock)
      : folder_(std::move(folder)), lock_(std::move(lock)) {}
  static absl::StatusOr<std::unique_ptr<LocalCluster>> open_folder(const std::string& folder);
  absl::Status read_description();
  absl::Status write_description() const;
  absl::Status take(const LocalOptions& options);
  absl::Status complete();
  absl::Status check_same(const LocalOptions& options) const;
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string log_of(const LocalNode& node) const { return path(node.name + ".log"); }
  std::string config_of(const LocalNode& node) const;
  absl::Status write_configs() const;
  absl::Status make_cluster_in(ClusterBlock& block) const;
  absl::Status why_not_serving(const std::vector<Started>& started) const;

  const std::string folder_;  // absolute
  UniqueFd lock_;
  LocalDescription description_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_LOCAL_LOCAL_CLUSTER_H_
