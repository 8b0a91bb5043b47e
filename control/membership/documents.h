// The documents that describe a cluster and its nodes, and their keys in the cluster block.
//
// Decoding treats its input as hostile: what is not exactly such a document is DATA_LOSS naming the
// key it came from. Pure: no I/O, no clock.
#ifndef SLUICE_CONTROL_MEMBERSHIP_DOCUMENTS_H_
#define SLUICE_CONTROL_MEMBERSHIP_DOCUMENTS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/membership/weights.h"

namespace sluice {

inline constexpr char kClusterKey[] = "cluster";
inline constexpr char kNodesPrefix[] = "nodes/";
inline constexpr char kLivePrefix[] = "live/";
inline constexpr char kStoresPrefix[] = "stores/";
inline constexpr char kNextNumberKey[] = "next-node-number";
inline std::string node_key(std::string_view name) {
  return std::string(kNodesPrefix).append(name);
}
inline std::string live_key(std::string_view name) { return std::string(kLivePrefix).append(name); }
inline std::string store_key(std::string_view name) {
  return std::string(kStoresPrefix).append(name);
}

// [a-z0-9][a-z0-9._-]{0,62}. INVALID_ARGUMENT, naming the name and the rule.
absl::Status check_node_name(std::string_view name);

// Made once, with the cluster; never changed.
struct ClusterInfo {
  std::string uuid;
  uint32_t slot_bits = 12;  // 1 to 20
  uint32_t replicas = 3;    // R, 1 to 16
  uint64_t seed = 0;        // of the distribution table
  // How far a machine's clock may be from the others' before its node stamps with theirs.
  int64_t max_clock_offset_ms = 2000;
  int64_t created_ms = 0;  // Unix time

  uint32_t slots() const { return uint32_t{1} << slot_bits; }
  // W, the default: a majority.
  uint32_t write_quorum() const { return replicas / 2 + 1; }
  // R-W+1: how many replicas a read asks, and how many digests a backup needs.
  uint32_t read_quorum() const { return replicas - write_quorum() + 1; }
  friend bool operator==(const ClusterInfo&, const ClusterInfo&) = default;
};
absl::Status check(const ClusterInfo& info);
std::string encode(const ClusterInfo& info);
absl::StatusOr<ClusterInfo> decode_cluster_info(std::string_view key, std::string_view document);

// What a node says of itself.
inline constexpr size_t kMaxTreesOfNode = 64;

struct NodeInfo {
  std::string name;
  uint32_t number = 0;  // unique in the cluster, from 1, given at the first join, never given again
  double weight = 1;    // > 0; MiB/s where measured
  bool weight_explicit = false;  // an operator's: measurements do not replace it
  MeasuredRates rates;           // that the weight follows from, unless it is explicit
  std::string rack;              // failure domain; empty: a domain of its own
  std::string control_address;   // HOST:PORT of gRPC
  std::string data_address;      // in the driver's own form
  std::string driver;            // tcp, rdma, ...
  std::string store_id;          // made with the node's data folder
  uint64_t incarnation = 0;      // how often that folder was opened
  std::string archive_folder;
  std::vector<std::string> trees;  // names of those that it backs up where they are
  friend bool operator==(const NodeInfo&, const NodeInfo&) = default;
};
absl::Status check(const NodeInfo& info);
// Where its weight comes from, and what bounds it ("operator" where nothing measured does).
Bottleneck weight_of(const NodeInfo& info);
std::string encode(const NodeInfo& info);
absl::StatusOr<NodeInfo> decode_node_info(std::string_view key, std::string_view document);

// The document at live/<name>, there as long as the process keeps its lease alive.
struct LiveInfo {
  std::string instance;  // UUID of the joined process
  std::string store_id;
  uint64_t incarnation = 0;
  int64_t process = 0;  // process id, for messages
  std::string lock;     // Store::lock_identity()
  friend bool operator==(const LiveInfo&, const LiveInfo&) = default;
};
std::string encode(const LiveInfo& info);
absl::StatusOr<LiveInfo> decode_live_info(std::string_view key, std::string_view document);

// The document at stores/<name>: what a node's data folder must be, or be beyond, to be the one
// that the node served from last. Published with the node's lease renewals; stays when the lease
// ends.
struct StoreInfo {
  std::string store_id;
  uint64_t incarnation = 0;
  std::string token;      // of the last join
  uint64_t sequence = 0;  // Store::durable_sequence()
  uint64_t ceiling = 0;   // of the clock: every stamp that was handed out is below it
  static constexpr uint64_t kMaxServesMs = 24 * 3'600'000;
  // Of the process that serves from it, or did last.
  std::string lock;        // Store::lock_identity()
  std::string process;     // process_identity()
  uint64_t serves_ms = 0;  // how long it serves after it last saw the name its own
  bool left = false;       // it announced that it has stopped serving
  friend bool operator==(const StoreInfo&, const StoreInfo&) = default;
};
std::string encode(const StoreInfo& info);
absl::StatusOr<StoreInfo> decode_store_info(std::string_view key, std::string_view document);

}  // namespace sluice

#endif  // SLUICE_CONTROL_MEMBERSHIP_DOCUMENTS_H_
