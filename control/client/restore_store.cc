#include "control/client/restore_store.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

using Json = nlohmann::json;

constexpr char kHeadsPrefix[] = "restores/";
constexpr size_t kUnitsPerChunk = 1000;
constexpr size_t kMaxReasonBytesOfUnit = 200;

std::string head_key(std::string_view id) { return fmt::format("{}{}", kHeadsPrefix, id); }
std::string folder_key(std::string_view id) { return fmt::format("restore/{}/", id); }
std::string done_key(std::string_view id, std::string_view part) {
  return fmt::format("restore/{}/done/{}", id, part);
}
std::string failed_prefix(std::string_view id, std::string_view part) {
  return fmt::format("restore/{}/failed/{}/", id, part);
}

// A prefix is bytes; JSON holds text.
std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

bool from_hex(std::string_view hex, std::string* bytes) {
  if (hex.size() % 2 != 0) return false;
  for (size_t i = 0; i < hex.size(); i += 2) {
    unsigned value = 0;
    for (const char c : hex.substr(i, 2)) {
      const char* digits = "0123456789abcdef";
      const char* at = std::find(digits, digits + 16, c);
      if (at == digits + 16) return false;
      value = value * 16 + static_cast<unsigned>(at - digits);
    }
    bytes->push_back(static_cast<char>(value));
  }
  return true;
}

absl::StatusOr<RestoreHead> decode_head(const std::string& key, const std::string& document) {
  try {
    const Json json = Json::parse(document);
    RestoreHead head;
    head.id = json.at("id").get<std::string>();
    head.backup = json.at("backup").get<std::string>();
    head.name = json.at("name").get<std::string>();
    head.archive_cluster = json.at("archive_cluster").get<std::string>();
    if (!Digest128::from_hex(json.at("manifest_digest").get<std::string>(),
                             &head.manifest_digest)) {
      return data_loss("{}: manifest_digest is not a digest", key);
    }
    head.source_cluster = json.at("source_cluster").get<std::string>();
    if (!from_hex(json.at("prefix_hex").get<std::string>(), &head.prefix)) {
      return data_loss("{}: prefix_hex is not hexadecimal", key);
    }
    head.state = json.at("state").get<std::string>();
    head.reason = json.at("reason").get<std::string>();
    head.attempt = json.at("attempt").get<uint64_t>();
    head.into_empty = json.at("into_empty").get<bool>();
    for (const Json& source : json.at("sources")) {
      head.sources.push_back({source.at("part").get<std::string>(),
                              source.at("node").get<std::string>(),
                              source.at("folder").get<std::string>()});
    }
    head.records = json.at("records").get<uint64_t>();
    head.written = json.at("written").get<uint64_t>();
    head.kept_newer = json.at("kept_newer").get<uint64_t>();
    head.failed = json.at("failed").get<uint64_t>();
    head.created_ms = json.at("created_ms").get<int64_t>();
    head.changed_ms = json.at("changed_ms").get<int64_t>();
    if (head_key(head.id) != key) return data_loss("{}: is of restore {}", key, head.id);
    return head;
  } catch (const Json::exception& error) {
    return data_loss("{}: {}", key, error.what());
  }
}

std::string encode_head(const RestoreHead& head) {
  Json sources = Json::array();
  for (const RestoreSource& source : head.sources) {
    sources.push_back({{"part", source.part}, {"node", source.node}, {"folder", source.folder}});
  }
  return Json({{"id", head.id},
               {"backup", head.backup},
               {"name", head.name},
               {"archive_cluster", head.archive_cluster},
               {"manifest_digest", head.manifest_digest.to_hex()},
               {"source_cluster", head.source_cluster},
               {"prefix_hex", to_hex(head.prefix)},
               {"state", head.state},
               {"reason", head.reason},
               {"attempt", head.attempt},
               {"into_empty", head.into_empty},
               {"sources", sources},
               {"records", head.records},
               {"written", head.written},
               {"kept_newer", head.kept_newer},
               {"failed", head.failed},
               {"created_ms", head.created_ms},
               {"changed_ms", head.changed_ms}})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string restore_lock_key(std::string_view id) { return fmt::format("restore-locks/{}", id); }

absl::StatusOr<StoredRestore> load_restore(ClusterBlock& block, std::string_view id) {
  StoredRestore stored;
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(head_key(id)));
  if (!entry.has_value()) return stored;
  SLUICE_ASSIGN_OR_RETURN(stored.head, decode_head(entry->key, entry->value));
  stored.revision = entry->revision;
  return stored;
}

absl::StatusOr<std::vector<RestoreHead>> list_restores(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(kHeadsPrefix));
  std::vector<RestoreHead> heads;
  for (const ClusterEntry& entry : listing.entries) {
    SLUICE_ASSIGN_OR_RETURN(RestoreHead head, decode_head(entry.key, entry.value));
    heads.push_back(std::move(head));
  }
  return heads;
}

absl::Status store_restore(ClusterBlock& block, StoredRestore& stored) {
  SLUICE_ASSIGN_OR_RETURN(
      stored.revision,
      block.compare_and_swap(head_key(stored.head.id), encode_head(stored.head), stored.revision));
  return absl::OkStatus();
}

absl::Status erase_restore_progress(ClusterBlock& block, std::string_view id) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(folder_key(id)));
  for (const ClusterEntry& entry : listing.entries) SLUICE_RETURN_IF_ERROR(block.erase(entry.key));
  return absl::OkStatus();
}

absl::Status store_done_slots(ClusterBlock& block, const RestoreFence& fence, std::string_view part,
                              const std::set<uint32_t>& slots) {
  std::string bitmap;
  if (!slots.empty()) bitmap.resize(*slots.rbegin() / 8 + 1);
  for (const uint32_t slot : slots) bitmap[slot / 8] |= static_cast<char>(1 << (slot % 8));
  return block
      .commit({ClusterOp::check(head_key(fence.id), fence.head),
               ClusterOp::put(done_key(fence.id, part), bitmap)})
      .status();
}

absl::StatusOr<std::set<uint32_t>> load_done_slots(ClusterBlock& block, std::string_view id,
                                                   std::string_view part) {
  std::set<uint32_t> slots;
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(done_key(id, part)));
  if (!entry.has_value()) return slots;
  if (entry->value.size() > (size_t{1} << kMaxSlotBits) / 8) {
    return data_loss("{}: {} bytes", entry->key, entry->value.size());
  }
  for (uint32_t i = 0; i < entry->value.size() * 8; ++i) {
    if ((entry->value[i / 8] >> (i % 8) & 1) != 0) slots.insert(i);
  }
  return slots;
}

absl::Status store_failed_units(ClusterBlock& block, const RestoreFence& fence,
                                std::string_view part, const std::vector<RestoreUnit>& units) {
  const std::string prefix = failed_prefix(fence.id, part);
  const ClusterOp check = ClusterOp::check(head_key(fence.id), fence.head);
  uint32_t chunks = 0;
  for (size_t first = 0; first < units.size(); first += kUnitsPerChunk) {
    Json chunk = Json::array();
    for (size_t i = first; i < std::min(units.size(), first + kUnitsPerChunk); ++i) {
      const RestoreUnit& unit = units[i];
      chunk.push_back({unit.slot, unit.first_sequence, unit.blocks, unit.node,
                       unit.reason.substr(0, kMaxReasonBytesOfUnit)});
    }
    SLUICE_RETURN_IF_ERROR(
        block
            .commit(
                {check, ClusterOp::put(fmt::format("{}{:06}", prefix, chunks++),
                                       chunk.dump(-1, ' ', false, Json::error_handler_t::replace))})
            .status());
  }
  // Chunks of a longer list before.
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(prefix));
  for (const ClusterEntry& entry : listing.entries) {
    if (entry.key >= fmt::format("{}{:06}", prefix, chunks)) {
      SLUICE_RETURN_IF_ERROR(block.commit({check, ClusterOp::erase(entry.key)}).status());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RestoreUnit>> load_failed_units(ClusterBlock& block, std::string_view id,
                                                           std::string_view part) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(failed_prefix(id, part)));
  std::vector<RestoreUnit> units;
  for (const ClusterEntry& entry : listing.entries) {
    try {
      for (const Json& json : Json::parse(entry.value)) {
        units.push_back({std::string(part), json.at(0).get<uint32_t>(), json.at(1).get<uint32_t>(),
                         json.at(2).get<uint32_t>(), json.at(3).get<std::string>(),
                         json.at(4).get<std::string>()});
      }
    } catch (const Json::exception& error) {
      return data_loss("{}: {}", entry.key, error.what());
    }
  }
  return units;
}

}  // namespace sluice
