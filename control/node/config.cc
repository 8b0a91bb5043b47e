#include "control/node/config.h"

#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include <toml++/toml.h>

#include "base/file.h"
#include "base/status.h"
#include "base/text.h"
#include "control/membership/documents.h"
#include "tree/path_patterns.h"

namespace sluice {

namespace {

constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr std::string_view kLimitsTable = "limits";
constexpr std::string_view kTrees = "tree";

// Reads one key's value into its member; false for a wrong type.
using Reader = std::function<bool(const toml::node&)>;

Reader text(std::string* into) {
  return [into](const toml::node& node) {
    const auto value = node.value_exact<std::string>();
    if (value.has_value()) *into = *value;
    return value.has_value();
  };
}

template <typename Whole>
Reader at_least(int64_t least, Whole* into) {
  return [least, into](const toml::node& node) {
    const auto value = node.value_exact<int64_t>();
    if (!value.has_value() || *value < least) return false;
    *into = static_cast<Whole>(*value);
    return true;
  };
}

Reader truth(bool* into) {
  return [into](const toml::node& node) {
    const auto value = node.value_exact<bool>();
    if (value.has_value()) *into = *value;
    return value.has_value();
  };
}

Reader weight(std::optional<double>* into) {
  return [into](const toml::node& node) {
    const auto value = node.value<double>();
    if (!value.has_value() || !std::isfinite(*value) || *value <= 0) return false;
    *into = *value;
    return true;
  };
}

Reader texts(std::vector<std::string>* into) {
  return [into](const toml::node& node) {
    const toml::array* array = node.as_array();
    if (array == nullptr) return false;
    for (const toml::node& element : *array) {
      const auto value = element.value_exact<std::string>();
      if (!value.has_value()) return false;
      into->push_back(*value);
    }
    return true;
  };
}

struct Key {
  Reader read;
  std::string_view expected;
};

// By name; one of a table with the table's name before it.
using Keys = std::map<std::string, Key, std::less<>>;

Keys keys_of(NodeConfig& config) {
  return {
      {"name", {text(&config.name), "a text"}},
      {"cluster", {text(&config.cluster), "a text"}},
      {"data_folder", {text(&config.data_folder), "a text"}},
      {"archive_folder", {text(&config.archive_folder), "a text"}},
      {"control_listen", {text(&config.control_listen), "a text"}},
      {"data_listen", {text(&config.data_listen), "a text"}},
      {"driver", {text(&config.driver), "a text"}},
      {"weight", {weight(&config.weight), "a number above 0"}},
      {"rack", {text(&config.rack), "a text"}},
      {"arena_bytes", {at_least(1, &config.arena_bytes), "a whole number above 0"}},
      {"memtable_bytes", {at_least(1, &config.memtable_bytes), "a whole number above 0"}},
      {"block_cache_bytes", {at_least(1, &config.block_cache_bytes), "a whole number above 0"}},
      {"accept_data_loss", {truth(&config.accept_data_loss), "true or false"}},
      {"rebalance_after_ms",
       {at_least(0, &config.rebalance_after_ms), "a whole number, 0 or more"}},
      {"lease_ms", {at_least(1, &config.lease_ms), "a whole number above 0"}},
      {"limits.bytes_per_second",
       {at_least(kLeastBytesPerSecond, &config.bytes_per_second),
        "a whole number of at least 1048576 (1 MiB/s); leave it out for no limit"}},
  };
}

// The value as the file has it, where it is one that can be said in few words.
std::string value_text(const toml::node& node) {
  std::ostringstream text;
  if (node.is_number() || node.is_boolean()) {
    node.visit([&](const auto& value) { text << " (it is " << value << ")"; });
  }
  return text.str();
}

Keys keys_of(TreeSettings& tree) {
  return {
      {"tree.name", {text(&tree.name), "a text"}},
      {"tree.path", {text(&tree.path), "a text"}},
      {"tree.exclude", {texts(&tree.exclude), "a list of texts"}},
      {"tree.one_file_system", {truth(&tree.one_file_system), "true or false"}},
  };
}

absl::Status read_keys(const toml::table& table, const std::string& prefix, const Keys& keys,
                       std::string_view source) {
  for (const auto& [key_name, value] : table) {
    const std::string name = prefix + std::string(key_name.str());
    const auto line = value.source().begin.line;
    if (name == kLimitsTable && value.is_table()) {
      SLUICE_RETURN_IF_ERROR(read_keys(*value.as_table(), name + ".", keys, source));
      continue;
    }
    if (name == kTrees && value.is_array_of_tables()) continue;  // read_trees()
    const auto key = keys.find(name);
    if (key == keys.end())
      return invalid_argument("{}:{}: unknown key '{}'", source, line, printable(name));
    if (!key->second.read(value)) {
      return invalid_argument("{}:{}: key '{}' must be {}{}", source, line, name,
                              key->second.expected, value_text(value));
    }
  }
  return absl::OkStatus();
}

absl::Status read_trees(const toml::table& table, std::string_view source,
                        std::vector<TreeSettings>* trees) {
  const toml::array* array = table[kTrees].as_array();
  if (array == nullptr) return absl::OkStatus();
  for (const toml::node& element : *array) {
    TreeSettings& tree = trees->emplace_back();
    SLUICE_RETURN_IF_ERROR(read_keys(*element.as_table(), "tree.", keys_of(tree), source));
    const std::string where = fmt::format("{}:{}", source, element.source().begin.line);
    SLUICE_RETURN_IF_ERROR(with_context(check_tree_name(tree.name), where + ": tree.name"));
    while (tree.path.size() > 1 && tree.path.ends_with('/')) tree.path.pop_back();
    if (!tree.path.starts_with('/')) {
      return invalid_argument("{}: tree.path '{}' must be a whole path, from /", where,
                              printable(tree.path));
    }
    PathPatterns patterns;
    for (const std::string& pattern : tree.exclude) {
      SLUICE_RETURN_IF_ERROR(with_context(patterns.add(pattern), where + ": tree.exclude"));
    }
  }
  return absl::OkStatus();
}

bool is_within(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder + "/");
}

absl::Status check_config(const NodeConfig& config, std::string_view source) {
  for (const auto& [key, value] :
       {std::pair<std::string_view, const std::string&>{"name", config.name},
        {"cluster", config.cluster},
        {"data_folder", config.data_folder}}) {
    if (value.empty()) return invalid_argument("{}: key '{}' is missing", source, key);
  }
  SLUICE_RETURN_IF_ERROR(
      with_context(check_node_name(config.name), fmt::format("{}: name", source)));
  if (is_within(config.archive_folder, config.data_folder) ||
      is_within(config.data_folder, config.archive_folder)) {
    return invalid_argument("{}: archive_folder {} and data_folder {} must be apart", source,
                            printable(config.archive_folder), printable(config.data_folder));
  }
  std::set<std::string_view> names;
  for (const TreeSettings& tree : config.trees) {
    if (!names.insert(tree.name).second) {
      return invalid_argument("{}: two trees have the name {}", source, tree.name);
    }
    // What a backup writes there would be in the next one.
    for (const std::string& own : {config.data_folder, config.archive_folder}) {
      if (!is_within(own, tree.path) && !is_within(tree.path, own)) continue;
      return invalid_argument("{}: tree {} in {} and the node's own directory {} must be apart",
                              source, tree.name, printable(tree.path), printable(own));
    }
  }
  if (config.arena_bytes < (uint64_t{48} << 20)) {
    return invalid_argument("{}: arena_bytes {}: at least {}", source, config.arena_bytes,
                            48 << 20);
  }
  if (config.lease_ms < 200 || config.lease_ms > 600'000) {
    return invalid_argument("{}: lease_ms {}: 200 to 600000", source, config.lease_ms);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NodeConfig> parse_node_config(std::string_view document, std::string_view source) {
  toml::table table;
  try {
    table = toml::parse(document, source);
  } catch (const toml::parse_error& error) {
    return invalid_argument("{}:{}: {}", source, error.source().begin.line,
                            printable(error.description()));
  }
  NodeConfig config;
  SLUICE_RETURN_IF_ERROR(read_keys(table, "", keys_of(config), source));
  SLUICE_RETURN_IF_ERROR(read_trees(table, source, &config.trees));
  while (config.data_folder.size() > 1 && config.data_folder.ends_with('/')) {
    config.data_folder.pop_back();
  }
  if (config.archive_folder.empty()) config.archive_folder = config.data_folder + "-archives";
  while (config.archive_folder.size() > 1 && config.archive_folder.ends_with('/')) {
    config.archive_folder.pop_back();
  }
  SLUICE_RETURN_IF_ERROR(check_config(config, source));
  return config;
}

absl::StatusOr<NodeConfig> load_node_config(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const std::string document, read_file(path, kMaxConfigBytes));
  return parse_node_config(document, path);
}

}  // namespace sluice
