// What the parts of one serving node share. All references outlive every part; the context is made
// and owned by the node.
#ifndef SLUICE_CONTROL_PEERS_NODE_CONTEXT_H_
#define SLUICE_CONTROL_PEERS_NODE_CONTEXT_H_

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/defect.h"
#include "base/status.h"
#include "control/cluster_block/cluster_block.h"
#include "control/peers/directory.h"
#include "control/peers/peers.h"
#include "control/peers/stage_report.h"
#include "dataplane/store/store.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

class JobFence;
class LocalArchives;
class NodeTrees;
class ClockMonitor;
class WorkMeter;

struct NodeContext {
  std::string name;
  uint32_t number = 0;
  Revision joined_at = 0;  // Membership::joined_at()
  std::string cluster_url;
  std::string archive_folder;
  Clock* clock = nullptr;  // the machine's
  ClockMonitor* clock_monitor = nullptr;
  ClusterBlock* block = nullptr;
  // Of other clusters that a restore is to write to.
  ClusterBlockOpener open_block = [](std::string_view url) { return open_cluster_block(url); };
  Directory* directory = nullptr;
  Peers* peers = nullptr;
  Store* store = nullptr;
  Exchange* exchange = nullptr;
  LocalArchives* archives = nullptr;
  NodeTrees* trees = nullptr;
  JobFence* fence = nullptr;
  WorkMeter* work = nullptr;
  // What the stages of restores have done here since the node was started. Thread-safe.
  std::function<std::vector<StageReport>()> stages;

  // Set once the node has joined: its number is known, and it may serve, stamp and coordinate.
  // Before, what it holds may be refused: nothing must come out of it or go into it.
  std::atomic<bool> ready{false};
  // By the clock's monotonic_ns(), from Membership::Options::serve_until.
  std::atomic<int64_t> serves_until_ns{0};

  // Asked when a request arrives, and again before its answer leaves: this process may have stood
  // still in between, for so long that another one has the name by now.
  absl::Status check_ready() const {
    if (defect(Defect::kServesBeforeJoining)) return absl::OkStatus();
    if (!ready) return unavailable("node {} is starting, or stopping", name);
    if (clock->monotonic_ns() < serves_until_ns || defect(Defect::kNamesakesOverlap)) {
      return absl::OkStatus();
    }
    return unavailable(
        "node {} answers nobody: it could not confirm its name in the cluster block for so long "
        "that another process may have it by now; it answers again once it reaches the block",
        name);
  }
  const ClusterInfo& cluster() const { return directory->cluster(); }
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_NODE_CONTEXT_H_
