#include "control/node/config.h"

#include <cmath>
#include <functional>
#include <map>
#include <string>

#include <toml++/toml.h>

#include "base/file.h"
#include "base/status.h"
#include "control/membership/documents.h"

namespace sluice {

namespace {

constexpr size_t kMaxConfigBytes = size_t{1} << 20;

// Reads one key's value into its member; false for a wrong type.
using Reader = std::function<bool(const toml::node&)>;

Reader text(std::string* into) {
  return [into](const toml::node& node) {
    const auto value = node.value_exact<std::string>();
    if (value.has_value()) *into = *value;
    return value.has_value();
  };
}

Reader whole(uint64_t* into) {
  return [into](const toml::node& node) {
    const auto value = node.value_exact<int64_t>();
    if (!value.has_value() || *value <= 0) return false;
    *into = static_cast<uint64_t>(*value);
    return true;
  };
}

Reader milliseconds(int64_t* into) {
  return [into](const toml::node& node) {
    const auto value = node.value_exact<int64_t>();
    if (!value.has_value() || *value < 0) return false;
    *into = *value;
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

struct Key {
  Reader read;
  std::string_view expected;
};

std::map<std::string, Key, std::less<>> keys_of(NodeConfig& config, uint64_t* lease_ms) {
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
      {"arena_bytes", {whole(&config.arena_bytes), "a whole number above 0"}},
      {"memtable_bytes", {whole(&config.memtable_bytes), "a whole number above 0"}},
      {"block_cache_bytes", {whole(&config.block_cache_bytes), "a whole number above 0"}},
      {"accept_data_loss", {truth(&config.accept_data_loss), "true or false"}},
      {"lease_ms", {whole(lease_ms), "a whole number above 0"}},
      {"rebalance_after_ms",
       {milliseconds(&config.rebalance_after_ms), "a whole number, 0 or more"}},
  };
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
                            config.archive_folder, config.data_folder);
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
    return invalid_argument("{}:{}: {}", source, error.source().begin.line, error.description());
  }
  NodeConfig config;
  uint64_t lease_ms = static_cast<uint64_t>(config.lease_ms);
  const auto keys = keys_of(config, &lease_ms);
  for (const auto& [name, value] : table) {
    const auto line = value.source().begin.line;
    const auto key = keys.find(name.str());
    if (key == keys.end()) {
      return invalid_argument("{}:{}: unknown key '{}'", source, line, name.str());
    }
    if (!key->second.read(value)) {
      return invalid_argument("{}:{}: key '{}' must be {}", source, line, name.str(),
                              key->second.expected);
    }
  }
  config.lease_ms = static_cast<int64_t>(std::min<uint64_t>(lease_ms, INT64_MAX));
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
