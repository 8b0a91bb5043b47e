// What a local cluster is, and its file local.json. Pure.
//
// The file is the user's: it may have been edited, cut short, or be another program's. What
// parse_description() accepts can be written into configuration files and paths.
#ifndef SLUICE_CONTROL_LOCAL_DESCRIPTION_H_
#define SLUICE_CONTROL_LOCAL_DESCRIPTION_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

struct LocalNode {
  std::string name;
  double weight = 1;              // 0: measured
  uint64_t bytes_per_second = 0;  // limit of its bulk; 0: none
  std::string rack;
  std::string control_address;  // HOST:PORT
  std::string data_address;

  friend bool operator==(const LocalNode&, const LocalNode&) = default;
};

// A directory tree that each node backs up where it is.
struct LocalTree {
  std::string name;
  std::string path;  // absolute; "%n" in it stands for the node's name
  std::string path_of(const std::string& node) const;

  friend bool operator==(const LocalTree&, const LocalTree&) = default;
};

struct LocalDescription {
  std::string id;       // of this cluster, and its UUID; copies have the same
  std::string made_in;  // the directory that the configuration files name
  std::string url;
  std::string driver;
  uint32_t replicas = 0;
  uint32_t slots = 0;  // a power of two
  // Whether the cluster block and the configuration files were made. An interrupted command leaves
  // a description that is not complete, and the next one finishes it.
  bool complete = false;
  std::vector<LocalNode> nodes;  // at least one, of distinct names
  std::vector<LocalTree> trees;  // of distinct names

  friend bool operator==(const LocalDescription&, const LocalDescription&) = default;
};

// DATA_LOSS, saying what is wrong, for text that no to_json() made.
absl::StatusOr<LocalDescription> parse_description(std::string_view text);
std::string to_json(const LocalDescription& description);

}  // namespace sluice

#endif  // SLUICE_CONTROL_LOCAL_DESCRIPTION_H_
