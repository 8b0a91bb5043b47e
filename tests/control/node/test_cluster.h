// A whole cluster in this process: real nodes, stores, TCP on loopback, and one SQLite cluster
// block. Calls go over gRPC and blocks over TCP, unless other networks are given.
#ifndef SLUICE_TESTS_CONTROL_NODE_TEST_CLUSTER_H_
#define SLUICE_TESTS_CONTROL_NODE_TEST_CLUSTER_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "control/client/cluster_client.h"
#include "control/node/node.h"
#include "dataplane/block/record.h"
#include "drivers/sim/sim.h"
#include "tests/control/calls/direct_calls.h"

namespace sluice {

// The system's clock, some way off. Its monotonic time has another beginning: a part of a node that
// reads the system's beside it is found out.
class SkewedClock final : public Clock {
 public:
  int64_t wall_ms() const override { return system_clock().wall_ms() + skew_ms_; }
  int64_t monotonic_ns() const override { return system_clock().monotonic_ns() + kLaterNs; }
  void sleep_ns(int64_t duration) override { system_clock().sleep_ns(duration); }
  void skew(int64_t ms) { skew_ms_ = ms; }

 private:
  static constexpr int64_t kLaterNs = int64_t{3600} * 1'000'000'000;
  std::atomic<int64_t> skew_ms_{0};
};

class TestCluster {
 public:
  struct Options {
    size_t nodes = 3;
    uint32_t replicas = 3;
    uint32_t slot_bits = 6;
    BackupRunOptions backup = {.grace_ms = 1500,
                               .stall_ms = 30'000,
                               .max_replans = 8,
                               .cut_margin_ms = 50,
                               .rebalance = {}};
    // How far each node's clock is off from the start; as many as there are.
    std::vector<int64_t> skews_ms;
    // Changes a node's options before it starts.
    std::function<void(size_t i, NodeOptions& options)> adjust;
    // Carries the calls of the nodes and of client(), in place of gRPC. Outlives the cluster.
    DirectNetwork* calls = nullptr;
    // Carries blocks of data, in place of TCP. Outlives the cluster.
    SimFabric* fabric = nullptr;
    // What the nodes get instead of a block of their own.
    std::function<std::unique_ptr<ClusterBlock>(std::unique_ptr<ClusterBlock>)> wrap_block;
  };
  TestCluster() : TestCluster(Options()) {}
  explicit TestCluster(const Options& options);
  ~TestCluster();

  std::string name(size_t i) const { return "n" + std::to_string(i + 1); }
  void start(size_t i, bool accept_data_loss = false);
  // As start(), for one that may be refused.
  absl::Status try_start(size_t i, bool accept_data_loss = false);
  void stop(size_t i);
  Node& node(size_t i) { return *nodes_[i]; }
  SkewedClock& clock(size_t i) { return *clocks_[i]; }
  // A new client; asks nodes from n1 on.
  std::unique_ptr<ClusterClient> client();
  ClusterBlock& block() { return *block_; }
  const std::string& url() const { return url_; }
  const std::string& folder() const { return folder_; }

 private:
  TransportFactory transport_of(const std::string& node) const;

  const Options options_;
  std::string folder_;
  std::string url_;
  std::unique_ptr<ClusterBlock> block_;
  std::vector<std::unique_ptr<SkewedClock>> clocks_;
  std::vector<std::unique_ptr<PeerDialer>> dialers_;        // the clients' is behind the nodes'
  std::vector<std::unique_ptr<ClusterBlock>> node_blocks_;  // where they are wrapped
  std::vector<std::unique_ptr<Node>> nodes_;
};

// True as soon as `done` is, false after the time.
bool eventually(int64_t timeout_ms, const std::function<bool()>& done);

// All records of an archive, by key.
std::map<std::string, Record> read_archive(const std::vector<ArchivePlace>& places);

// All live records of a cluster.
std::map<std::string, std::string> read_cluster(ClusterClient& client);

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_NODE_TEST_CLUSTER_H_
