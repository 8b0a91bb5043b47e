// The configuration of a serving node: a TOML file.
#ifndef SLUICE_CONTROL_NODE_CONFIG_H_
#define SLUICE_CONTROL_NODE_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "control/backup/node_trees.h"

namespace sluice {

// Key in the file = member here.
struct NodeConfig {
  std::string name;
  std::string cluster;  // URL of the cluster block
  std::string data_folder;
  std::string archive_folder;  // apart from data_folder; data_folder + "-archives" when absent
  std::string control_listen = "127.0.0.1:0";  // HOST:PORT of gRPC; port 0: any
  std::string data_listen = "127.0.0.1:0";     // in the driver's words
  std::string driver = "tcp";
  std::optional<double> weight;  // absent: measured, at start and in what the node does
  std::string rack;              // failure domain
  uint64_t arena_bytes = uint64_t{256} << 20;
  uint64_t memtable_bytes = uint64_t{64} << 20;
  uint64_t block_cache_bytes = uint64_t{64} << 20;
  bool accept_data_loss = false;  // join although the data that the cluster knows of is gone
  int64_t lease_ms = 3000;        // how soon the others notice that this node died
  // A backup that this node coordinates is planned again, by what nodes really did, when its plan
  // has been followed that long and some are much slower than planned; 0: never.
  int64_t rebalance_after_ms = 10'000;
  // [limits]
  uint64_t bytes_per_second = 0;  // of bulk, in each direction (exchange.h); 0: absent, no limit
  // [[tree]], each
  std::vector<TreeSettings> trees;
};

// With less, requests would be late rather than slow.
inline constexpr uint64_t kLeastBytesPerSecond = uint64_t{1} << 20;

// INVALID_ARGUMENT naming the source, line and key for what is no TOML, an unknown key, a wrong
// type or a value out of range.
absl::StatusOr<NodeConfig> parse_node_config(std::string_view toml, std::string_view source);
absl::StatusOr<NodeConfig> load_node_config(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_CONFIG_H_
