#include "control/membership/documents.h"

#include <cmath>

#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"
#include "control/table/table.h"

namespace sluice {
namespace {

constexpr char kClusterFormat[] = "sluice.cluster.2";
constexpr char kNodeFormat[] = "sluice.node.3";
constexpr char kLiveFormat[] = "sluice.live.3";
constexpr char kStoreFormat[] = "sluice.store.2";
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
  return damaged_document(key, message_of(status));
}

void put(const MeasuredRate& rate, v1::NodeDocument::Rate* to) {
  to->set_bytes_per_second(rate.rate);
  to->set_work_seconds(rate.work_seconds);
}

MeasuredRate rate_of(const v1::NodeDocument::Rate& from) {
  return {from.bytes_per_second(), from.work_seconds()};
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
  v1::ClusterDocument document;
  document.set_uuid(info.uuid);
  document.set_slot_bits(info.slot_bits);
  document.set_replicas(info.replicas);
  document.set_seed(info.seed);
  document.set_max_clock_offset_ms(info.max_clock_offset_ms);
  document.set_created_ms(info.created_ms);
  return encode_document(kClusterFormat, document);
}

absl::StatusOr<ClusterInfo> decode_cluster_info(std::string_view key, std::string_view bytes) {
  v1::ClusterDocument document;
  SLUICE_RETURN_IF_ERROR(decode_document(key, bytes, kClusterFormat, &document));
  ClusterInfo info;
  info.uuid = document.uuid();
  info.slot_bits = document.slot_bits();
  info.replicas = document.replicas();
  info.seed = document.seed();
  info.max_clock_offset_ms = document.max_clock_offset_ms();
  info.created_ms = document.created_ms();
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
  if (info.trees.size() > kMaxTreesOfNode) {
    return invalid_argument("node '{}' has {} trees; at most {}", info.name, info.trees.size(),
                            kMaxTreesOfNode);
  }
  for (const std::string& tree : info.trees) {
    if (tree.size() <= kMaxText) continue;
    return invalid_argument("node '{}' has a tree whose name has {} bytes", info.name, tree.size());
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
  v1::NodeDocument document;
  document.set_name(info.name);
  document.set_number(info.number);
  document.set_weight(info.weight);
  document.set_weight_explicit(info.weight_explicit);
  put(info.rates.disk_write, document.mutable_disk_write());
  put(info.rates.link, document.mutable_link());
  put(info.rates.checksum, document.mutable_checksum());
  put(info.rates.ingest, document.mutable_ingest());
  document.set_limit(info.rates.limit);
  document.set_free_bytes(info.rates.free_bytes);
  document.set_rack(info.rack);
  document.set_control_address(info.control_address);
  document.set_data_address(info.data_address);
  document.set_driver(info.driver);
  document.set_store_id(info.store_id);
  document.set_incarnation(info.incarnation);
  document.set_archive_folder(info.archive_folder);
  for (const std::string& tree : info.trees) document.add_trees(tree);
  return encode_document(kNodeFormat, document);
}

absl::StatusOr<NodeInfo> decode_node_info(std::string_view key, std::string_view bytes) {
  v1::NodeDocument document;
  SLUICE_RETURN_IF_ERROR(decode_document(key, bytes, kNodeFormat, &document));
  NodeInfo info;
  info.name = document.name();
  info.number = document.number();
  info.weight = document.weight();
  info.weight_explicit = document.weight_explicit();
  info.rates.disk_write = rate_of(document.disk_write());
  info.rates.link = rate_of(document.link());
  info.rates.checksum = rate_of(document.checksum());
  info.rates.ingest = rate_of(document.ingest());
  info.rates.limit = document.limit();
  info.rates.free_bytes = document.free_bytes();
  info.rack = document.rack();
  info.control_address = document.control_address();
  info.data_address = document.data_address();
  info.driver = document.driver();
  info.store_id = document.store_id();
  info.incarnation = document.incarnation();
  info.archive_folder = document.archive_folder();
  info.trees.assign(document.trees().begin(), document.trees().end());
  if (info.number == 0) return damaged_document(key, "the node number is 0");
  if (key != node_key(info.name)) return damaged_document(key, "it belongs to another node");
  return checked(key, info);
}

std::string encode(const LiveInfo& info) {
  v1::LiveDocument document;
  document.set_instance(info.instance);
  document.set_store_id(info.store_id);
  document.set_incarnation(info.incarnation);
  document.set_process(info.process);
  document.set_lock(info.lock);
  return encode_document(kLiveFormat, document);
}

absl::StatusOr<LiveInfo> decode_live_info(std::string_view key, std::string_view bytes) {
  v1::LiveDocument document;
  SLUICE_RETURN_IF_ERROR(decode_document(key, bytes, kLiveFormat, &document));
  return LiveInfo{document.instance(), document.store_id(), document.incarnation(),
                  document.process(), document.lock()};
}

std::string encode(const StoreInfo& info) {
  v1::StoreDocument document;
  document.set_store_id(info.store_id);
  document.set_incarnation(info.incarnation);
  document.set_token(info.token);
  document.set_sequence(info.sequence);
  document.set_ceiling(info.ceiling);
  document.set_lock(info.lock);
  document.set_process(info.process);
  document.set_serves_ms(info.serves_ms);
  document.set_left(info.left);
  return encode_document(kStoreFormat, document);
}

absl::StatusOr<StoreInfo> decode_store_info(std::string_view key, std::string_view bytes) {
  v1::StoreDocument document;
  SLUICE_RETURN_IF_ERROR(decode_document(key, bytes, kStoreFormat, &document));
  if (document.serves_ms() > StoreInfo::kMaxServesMs) {
    return data_loss("document at key '{}' is damaged: a process that serves for {} ms", key,
                     document.serves_ms());
  }
  return StoreInfo{document.store_id(), document.incarnation(), document.token(),
                   document.sequence(), document.ceiling(),     document.lock(),
                   document.process(),  document.serves_ms(),   document.left()};
}

}  // namespace sluice
