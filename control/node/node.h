// One serving node: store, streams, roles in backups, and the server of calls in front of them.
#ifndef SLUICE_CONTROL_NODE_NODE_H_
#define SLUICE_CONTROL_NODE_NODE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/backup/backup_run.h"
#include "control/cluster_block/cluster_block.h"
#include "control/membership/weights.h"
#include "control/node/call_server.h"
#include "control/node/config.h"
#include "control/peers/peer_link.h"
#include "drivers/registry.h"

namespace rocksdb {
class Env;
}

namespace sluice {

// How often a node looks for what nothing wakes it for.
struct NodeTicks {
  int64_t timer_ms = 10;      // due cuts, the first table, room on a full disk
  int64_t streams_ms = 50;    // time limits of streams
  int64_t requests_ms = 200;  // time limits of lots and of requests to replicas
};

struct NodeOptions {
  NodeConfig config;
  ClusterBlock* block = nullptr;  // instead of the one of config.cluster; outlives the node
  Clock* clock = nullptr;         // the system's when null
  PeerDialer* dialer = nullptr;   // gRPC's when null; outlives the node
  CallServerFactory serve;        // gRPC's server when empty
  TransportFactory transport;     // make_transport when empty; outlives the node
  rocksdb::Env* env = nullptr;    // of its store; RocksDB's own when null; outlives the node
  // Of other clusters that a restore is to write to, by their URLs; open_cluster_block when empty.
  ClusterBlockOpener open_block;
  NodeTicks ticks;
  BackupRunOptions backup;
  // Asked while the node waits to join: true ends start() with CANCELLED. Empty: false.
  std::function<bool()> stop_asked;
  double least_work_seconds = kLeastWorkSeconds;  // before an average of work replaces the probe
};

class Node {
 public:
  // Opens everything and joins the cluster. Serves as soon as the cluster has a distribution table;
  // until then the health service answers NOT_SERVING. Fails with what to change: NOT_FOUND (no
  // cluster there), ALREADY_EXISTS (the name, or a port, is taken: naming address and key),
  // FAILED_PRECONDITION (other cluster's or lost data), ...
  static absl::StatusOr<std::unique_ptr<Node>> start(const NodeOptions& options);
  virtual ~Node() = default;

  virtual const std::string& name() const = 0;
  virtual const std::string& control_address() const = 0;
  virtual const std::string& data_address() const = 0;
  virtual bool serving() const = 0;
  // Waits at most timeout_ms until it serves.
  virtual bool wait_until_serving(int64_t timeout_ms) = 0;
  // Not OK once the node lost its name to another process: it has to stop.
  virtual absl::Status status() const = 0;
  // Leaves cleanly: backups that it coordinates go to other nodes. Idempotent; also done by the
  // destructor.
  virtual void stop() = 0;
};

// Runs a node until SIGTERM or SIGINT, or until it loses its name. Blocks those signals in this
// thread and those begun by it.
absl::Status run_node(const NodeConfig& config);

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_NODE_H_
