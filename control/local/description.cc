#include "control/local/description.h"

#include <bit>
#include <cmath>
#include <concepts>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/socket_address.h"
#include "base/status.h"
#include "control/backup/node_trees.h"
#include "control/cluster_block/cluster_block.h"
#include "control/membership/documents.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

// The library converts numbers to whatever they are asked as, and reports errors with the text that
// it found: so each field is taken with its own check.
bool read_value(const Json& value, std::string* out) {
  if (!value.is_string()) return false;
  *out = value.get<std::string>();
  return true;
}

template <std::unsigned_integral Number>
requires(!std::same_as<Number, bool>) bool read_value(const Json& value, Number* out) {
  if (!value.is_number_unsigned()) return false;
  const auto number = value.get<uint64_t>();
  *out = static_cast<Number>(number);
  return number <= std::numeric_limits<Number>::max();
}

bool read_value(const Json& value, double* out) {
  if (!value.is_number()) return false;
  *out = value.get<double>();
  return true;
}

bool read_value(const Json& value, bool* out) {
  if (!value.is_boolean()) return false;
  *out = value.get<bool>();
  return true;
}

enum class Presence { kNeeded, kOptional };

template <typename Value>
absl::Status take(const Json& object, const char* field, Value* out,
                  Presence presence = Presence::kNeeded) {
  const auto found = object.find(field);
  if (found == object.end() && presence == Presence::kOptional) return absl::OkStatus();
  if (found == object.end()) return data_loss("it has no '{}'", field);
  if (!read_value(*found, out))
    return data_loss("its '{}' has another type, or a value that does not fit", field);
  return absl::OkStatus();
}

absl::StatusOr<LocalNode> parse_node(const Json& json) {
  LocalNode node;
  SLUICE_RETURN_IF_ERROR(take(json, "name", &node.name));
  SLUICE_RETURN_IF_ERROR(take(json, "weight", &node.weight));
  SLUICE_RETURN_IF_ERROR(
      take(json, "bytes_per_second", &node.bytes_per_second, Presence::kOptional));
  SLUICE_RETURN_IF_ERROR(take(json, "rack", &node.rack));
  SLUICE_RETURN_IF_ERROR(take(json, "control_address", &node.control_address));
  SLUICE_RETURN_IF_ERROR(take(json, "data_address", &node.data_address));
  if (absl::Status named = check_node_name(node.name); !named.ok()) {
    return data_loss("{}", message_of(named));
  }
  if (!std::isfinite(node.weight) || node.weight < 0) {
    return data_loss("node {} has weight {}", node.name, node.weight);
  }
  for (const std::string* address : {&node.control_address, &node.data_address}) {
    if (const auto parsed = parse_address(*address); !parsed.ok()) {
      return data_loss("node {}: {}", node.name, message_of(parsed.status()));
    }
  }
  return node;
}

absl::StatusOr<LocalTree> parse_tree(const Json& json) {
  LocalTree tree;
  SLUICE_RETURN_IF_ERROR(take(json, "name", &tree.name));
  SLUICE_RETURN_IF_ERROR(take(json, "path", &tree.path));
  if (const absl::Status named = check_tree_name(tree.name); !named.ok()) {
    return data_loss("{}", message_of(named));
  }
  if (!tree.path.starts_with('/') || tree.path.find('\0') != std::string::npos) {
    return data_loss("the path of its tree {} is not absolute", tree.name);
  }
  return tree;
}

absl::Status check(const LocalDescription& description) {
  ClusterInfo shape;
  shape.uuid = description.id;
  shape.slot_bits = static_cast<uint32_t>(std::countr_zero(description.slots));
  shape.replicas = description.replicas;
  if (!std::has_single_bit(description.slots)) {
    return data_loss("{} slots are not a power of two", description.slots);
  }
  if (const absl::Status checked = check(shape); !checked.ok()) {
    return data_loss("{}", message_of(checked));
  }
  if (const auto url = parse_cluster_url(description.url); !url.ok()) {
    return data_loss("{}", message_of(url.status()));
  }
  if (!description.made_in.starts_with('/') ||
      description.made_in.find('\0') != std::string::npos) {
    return data_loss("its 'folder' is not an absolute path");
  }
  if (description.nodes.empty()) return data_loss("it has no nodes");
  std::set<std::string_view> names;
  for (const LocalNode& node : description.nodes) {
    if (!names.insert(node.name).second) return data_loss("it has two nodes {}", node.name);
  }
  names.clear();
  for (const LocalTree& tree : description.trees) {
    if (!names.insert(tree.name).second) return data_loss("it has two trees {}", tree.name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LocalDescription> parse_description(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return data_loss("it is not an object of JSON");
  LocalDescription description;
  SLUICE_RETURN_IF_ERROR(take(json, "id", &description.id));
  SLUICE_RETURN_IF_ERROR(take(json, "folder", &description.made_in));
  SLUICE_RETURN_IF_ERROR(take(json, "cluster", &description.url));
  SLUICE_RETURN_IF_ERROR(take(json, "driver", &description.driver));
  SLUICE_RETURN_IF_ERROR(take(json, "replicas", &description.replicas));
  SLUICE_RETURN_IF_ERROR(take(json, "slots", &description.slots));
  description.complete = true;  // as written before there were others
  SLUICE_RETURN_IF_ERROR(take(json, "complete", &description.complete, Presence::kOptional));
  const auto nodes = json.find("nodes");
  if (nodes == json.end() || !nodes->is_array()) return data_loss("it has no 'nodes'");
  for (const Json& each : *nodes) {
    if (!each.is_object()) return data_loss("one of its nodes is not an object");
    SLUICE_ASSIGN_OR_RETURN(LocalNode node, parse_node(each));
    description.nodes.push_back(std::move(node));
  }
  const auto trees = json.find("trees");
  if (trees != json.end() && !trees->is_array()) return data_loss("its 'trees' are not a list");
  for (const Json& each : trees == json.end() ? Json::array() : *trees) {
    if (!each.is_object()) return data_loss("one of its trees is not an object");
    SLUICE_ASSIGN_OR_RETURN(LocalTree tree, parse_tree(each));
    description.trees.push_back(std::move(tree));
  }
  SLUICE_RETURN_IF_ERROR(check(description));
  return description;
}

std::string LocalTree::path_of(const std::string& node) const {
  constexpr std::string_view kNode = "%n";
  std::string whole = path;
  for (size_t at = whole.find(kNode); at != std::string::npos;
       at = whole.find(kNode, at + node.size())) {
    whole.replace(at, kNode.size(), node);
  }
  return whole;
}

std::string to_json(const LocalDescription& description) {
  Json json = {{"id", description.id},
               {"folder", description.made_in},
               {"cluster", description.url},
               {"driver", description.driver},
               {"replicas", description.replicas},
               {"slots", description.slots},
               {"complete", description.complete}};
  json["nodes"] = Json::array();
  for (const LocalNode& node : description.nodes) {
    json["nodes"].push_back({{"name", node.name},
                             {"weight", node.weight},
                             {"bytes_per_second", node.bytes_per_second},
                             {"rack", node.rack},
                             {"control_address", node.control_address},
                             {"data_address", node.data_address}});
  }
  json["trees"] = Json::array();
  for (const LocalTree& tree : description.trees) {
    json["trees"].push_back({{"name", tree.name}, {"path", tree.path}});
  }
  return json.dump(2) + "\n";
}

}  // namespace sluice
