#include "control/membership/documents.h"

#include <cmath>

#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/json_document.h"
#include "control/table/table.h"

namespace sluice {
namespace {

constexpr char kClusterFormat[] = "sluice.cluster.1";
constexpr char kNodeFormat[] = "sluice.node.2";
constexpr char kLiveFormat[] = "sluice.live.2";
constexpr char kStoreFormat[] = "sluice.store.1";
constexpr size_t kMaxText = 1024;

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool is_name(std::string_view name) {
  if (name.empty() || name.size() > 63 || !is_name_start(name[0])) return false;
  for (const char c : name) {
    if (!is_name_start(c) && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

bool is_amount(double value) { return std::isfinite(value) && value >= 0; }

// A document that decodes but breaks its rules is as damaged as one that does not.
template <typename Info>
absl::StatusOr<Info> checked(std::string_view key, const Info& info) {
  const absl::Status status = check(info);
  if (status.ok()) return info;
  return data_loss("document at key '{}' is damaged: {}", printable(key), message_of(status));
}

}  // namespace

absl::Status check_node_name(std::string_view name) {
  if (is_name(name)) return absl::OkStatus();
  return invalid_argument(
      "node name '{}': a name has 1 to 63 of the characters a-z 0-9 . _ - and begins with a letter "
      "or digit",
      printable(name));
}

absl::Status check(const ClusterInfo& info) {
  if (info.uuid.empty() || info.uuid.size() > 64) {
    return invalid_argument("cluster UUID '{}' is none", printable(info.uuid));
  }
  if (info.slot_bits < 1 || info.slot_bits > kMaxTableSlotBits) {
    return invalid_argument("slot_bits {}; 1 to {} are possible", info.slot_bits,
                            kMaxTableSlotBits);
  }
  if (info.replicas < 1 || info.replicas > kMaxReplicas) {
    return invalid_argument("{} replicas; 1 to {} are possible", info.replicas, kMaxReplicas);
  }
  if (info.max_clock_offset_ms < 1 || info.max_clock_offset_ms > 3'600'000) {
    return invalid_argument("max_clock_offset_ms {}; 1 to 3600000 are possible",
                            info.max_clock_offset_ms);
  }
  return absl::OkStatus();
}

std::string encode(const ClusterInfo& info) {
  return dump_json({{"format", kClusterFormat},
                    {"uuid", info.uuid},
                    {"slot_bits", info.slot_bits},
                    {"replicas", info.replicas},
                    {"seed", info.seed},
                    {"max_clock_offset_ms", info.max_clock_offset_ms},
                    {"created_ms", info.created_ms}});
}

absl::StatusOr<ClusterInfo> decode_cluster_info(std::string_view key, std::string_view document) {
  JsonDocument json(key, document, kClusterFormat);
  ClusterInfo info;
  json.get("uuid", &info.uuid);
  json.get("slot_bits", &info.slot_bits);
  json.get("replicas", &info.replicas);
  json.get("seed", &info.seed);
  json.get("max_clock_offset_ms", &info.max_clock_offset_ms);
  json.get("created_ms", &info.created_ms);
  SLUICE_RETURN_IF_ERROR(json.status());
  return checked(key, info);
}

absl::Status check(const NodeInfo& info) {
  SLUICE_RETURN_IF_ERROR(check_node_name(info.name));
  if (!std::isfinite(info.weight) || info.weight <= 0) {
    return invalid_argument("node '{}' has weight {}; it must be a number above 0", info.name,
                            info.weight);
  }
  for (const auto& [name, member] : kNamedRates) {
    const MeasuredRate& each = info.rates.*member;
    if (is_amount(each.rate) && is_amount(each.work_seconds)) continue;
    return invalid_argument("node '{}' has the rate {} {} over {} s", info.name, name, each.rate,
                            each.work_seconds);
  }
  if (!is_amount(info.rates.limit)) {
    return invalid_argument("node '{}' has the limit {}", info.name, info.rates.limit);
  }
  if (info.rack.size() > 63) {
    return invalid_argument("node '{}' has a rack label of {} bytes; at most 63", info.name,
                            info.rack.size());
  }
  for (const std::string* text : {&info.control_address, &info.data_address, &info.driver,
                                  &info.store_id, &info.archive_folder}) {
    if (text->size() > kMaxText) {
      return invalid_argument("node '{}' has a field of {} bytes; at most {}", info.name,
                              text->size(), kMaxText);
    }
  }
  return absl::OkStatus();
}

Bottleneck weight_of(const NodeInfo& info) {
  Bottleneck found = bottleneck_of(info.rates);
  found.weight = info.weight;
  if (info.weight_explicit) {
    found.what = "operator";
    found.from = WeightFrom::kOperator;
  }
  return found;
}

std::string encode(const NodeInfo& info) {
  nlohmann::json json = {{"format", kNodeFormat},
                         {"name", info.name},
                         {"number", info.number},
                         {"weight", info.weight},
                         {"weight_explicit", info.weight_explicit},
                         {"limit", info.rates.limit},
                         {"free_bytes", info.rates.free_bytes},
                         {"rack", info.rack},
                         {"control_address", info.control_address},
                         {"data_address", info.data_address},
                         {"driver", info.driver},
                         {"store_id", info.store_id},
                         {"incarnation", info.incarnation},
                         {"archive_folder", info.archive_folder}};
  for (const auto& [name, member] : kNamedRates) {
    json[name] = {(info.rates.*member).rate, (info.rates.*member).work_seconds};
  }
  return dump_json(json);
}

absl::StatusOr<NodeInfo> decode_node_info(std::string_view key, std::string_view document) {
  JsonDocument json(key, document, kNodeFormat);
  NodeInfo info;
  json.get("name", &info.name);
  json.get("number", &info.number);
  json.get("weight", &info.weight);
  json.get("weight_explicit", &info.weight_explicit);
  json.get("limit", &info.rates.limit);
  json.get("free_bytes", &info.rates.free_bytes);
  for (const auto& [name, member] : kNamedRates) {
    std::vector<double> pair;
    json.get(name, &pair);
    if (pair.size() == 2) {
      info.rates.*member = {pair[0], pair[1]};
    } else {
      json.fail_field(name, "is not a rate and its seconds");
    }
  }
  json.get("rack", &info.rack);
  json.get("control_address", &info.control_address);
  json.get("data_address", &info.data_address);
  json.get("driver", &info.driver);
  json.get("store_id", &info.store_id);
  json.get("incarnation", &info.incarnation);
  json.get("archive_folder", &info.archive_folder);
  if (json.status().ok() && info.number == 0) json.fail_field("number", "is 0");
  if (json.status().ok() && key != node_key(info.name)) json.fail("it is that of another node");
  SLUICE_RETURN_IF_ERROR(json.status());
  return checked(key, info);
}

std::string encode(const LiveInfo& info) {
  return dump_json({{"format", kLiveFormat},
                    {"instance", info.instance},
                    {"store_id", info.store_id},
                    {"incarnation", info.incarnation},
                    {"process", info.process},
                    {"lock", info.lock}});
}

absl::StatusOr<LiveInfo> decode_live_info(std::string_view key, std::string_view document) {
  JsonDocument json(key, document, kLiveFormat);
  LiveInfo info;
  json.get("instance", &info.instance);
  json.get("store_id", &info.store_id);
  json.get("incarnation", &info.incarnation);
  json.get("process", &info.process);
  json.get("lock", &info.lock);
  SLUICE_RETURN_IF_ERROR(json.status());
  return info;
}

std::string encode(const StoreInfo& info) {
  return dump_json({{"format", kStoreFormat},
                    {"store_id", info.store_id},
                    {"incarnation", info.incarnation},
                    {"token", info.token},
                    {"sequence", info.sequence},
                    {"ceiling", info.ceiling}});
}

absl::StatusOr<StoreInfo> decode_store_info(std::string_view key, std::string_view document) {
  JsonDocument json(key, document, kStoreFormat);
  StoreInfo info;
  json.get("store_id", &info.store_id);
  json.get("incarnation", &info.incarnation);
  json.get("token", &info.token);
  json.get("sequence", &info.sequence);
  json.get("ceiling", &info.ceiling);
  SLUICE_RETURN_IF_ERROR(json.status());
  return info;
}

}  // namespace sluice
