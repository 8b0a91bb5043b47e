// How a process that is no node works with a cluster: its block, who is where, and channels to its
// nodes. Thread-safe, as its parts are.
#ifndef SLUICE_CONTROL_PEERS_CLUSTER_CONNECTION_H_
#define SLUICE_CONTROL_PEERS_CLUSTER_CONNECTION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "control/cluster_block/cluster_block.h"
#include "control/peers/directory.h"
#include "control/peers/patient_call.h"
#include "control/peers/peers.h"
#include "drivers/registry.h"

namespace sluice {

class ClusterConnection {
 public:
  struct Options {
    Clock* clock = nullptr;             // the system's when null
    int64_t idle_timeout_ms = 120'000;  // a long job that reports nothing for so long is given up
    PeerDialer* dialer = nullptr;       // gRPC's when null; outlives the connection
    TransportFactory transport;         // make_transport when empty
    ClusterBlockOpener open_block;      // open_cluster_block when empty
  };
  static absl::StatusOr<std::unique_ptr<ClusterConnection>> open(std::string_view url,
                                                                 const Options& options);
  // On an open block, which outlives the connection.
  static absl::StatusOr<std::unique_ptr<ClusterConnection>> open(ClusterBlock& block,
                                                                 std::string_view url,
                                                                 const Options& options);

  // What nodes are told to reach the cluster by.
  const std::string& url() const { return url_; }
  const ClusterInfo& cluster() const { return directory_->cluster(); }
  ClusterBlock& block() { return block_; }
  Directory& directory() { return *directory_; }
  Peers& peers() { return peers_; }
  Clock& clock() { return clock_; }
  const Options& options() const { return options_; }
  // With a node that takes part in a long job.
  Patience patience() const;

 private:
  ClusterConnection(std::unique_ptr<ClusterBlock> owned, ClusterBlock& block, std::string_view url,
                    std::unique_ptr<Directory> directory, const Options& options);

  const std::unique_ptr<ClusterBlock> owned_;  // null when the block is somebody else's
  ClusterBlock& block_;
  const std::string url_;
  const Options options_;
  Clock& clock_;
  const std::unique_ptr<Directory> directory_;
  Peers peers_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_CLUSTER_CONNECTION_H_
