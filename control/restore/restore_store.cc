#include "control/restore/restore_store.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "base/text.h"
#include "control/proto/sluice.pb.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

using Json = nlohmann::json;

constexpr char kHeadsPrefix[] = "restores/";
constexpr size_t kUnitsPerChunk = 1000;
constexpr size_t kMaxReasonBytesOfUnit = 400;

std::string head_key(std::string_view id) { return fmt::format("{}{}", kHeadsPrefix, id); }
std::string folder_key(std::string_view id) { return fmt::format("restore/{}/", id); }
std::string done_prefix(std::string_view id, uint64_t generation) {
  return fmt::format("restore/{}/done/{}/", id, generation);
}
std::string failed_prefix(std::string_view id, std::string_view generation, std::string_view part) {
  return fmt::format("restore/{}/failed/{}/{}/", id, generation, part);
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
    const auto state = json.at("state").get<std::string>();
    const auto known = restore_state_named(state);
    if (!known.has_value()) return data_loss("{}: there is no state '{}'", key, printable(state));
    head.state = *known;
    head.reason = json.at("reason").get<std::string>();
    head.attempt = json.at("attempt").get<uint64_t>();
    head.driven = json.at("driven").get<bool>();
    head.progress = json.at("progress").get<uint64_t>();
    head.into_empty = json.at("into_empty").get<bool>();
    for (const Json& list : json.at("lists")) {
      head.lists.push_back(
          {list.at("part").get<std::string>(), list.at("generation").get<std::string>()});
    }
    for (const Json& source : json.at("sources")) {
      head.sources.push_back({source.at("part").get<std::string>(),
                              source.at("node").get<std::string>(),
                              source.at("folder").get<std::string>()});
    }
    head.records = json.at("records").get<uint64_t>();
    head.written = json.at("written").get<uint64_t>();
    head.kept_newer = json.at("kept_newer").get<uint64_t>();
    head.failed = json.at("failed").get<uint64_t>();
    head.failed_deletions = json.at("failed_deletions").get<uint64_t>();
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
  Json lists = Json::array();
  for (const RestoreList& list : head.lists) {
    lists.push_back({{"part", list.part}, {"generation", list.generation}});
  }
  return Json({{"id", head.id},
               {"backup", head.backup},
               {"name", head.name},
               {"archive_cluster", head.archive_cluster},
               {"manifest_digest", head.manifest_digest.to_hex()},
               {"source_cluster", head.source_cluster},
               {"prefix_hex", to_hex(head.prefix)},
               {"state", name_of(head.state)},
               {"reason", head.reason},
               {"attempt", head.attempt},
               {"driven", head.driven},
               {"progress", head.progress},
               {"lists", lists},
               {"into_empty", head.into_empty},
               {"sources", sources},
               {"records", head.records},
               {"written", head.written},
               {"kept_newer", head.kept_newer},
               {"failed", head.failed},
               {"failed_deletions", head.failed_deletions},
               {"created_ms", head.created_ms},
               {"changed_ms", head.changed_ms}})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::Status superseded(std::string_view id, uint64_t attempt) {
  return aborted("restore {}: attempt {} was superseded by another one, which drives it now", id,
                 attempt);
}

// A change under an attempt: ABORTED, with the reason, once another one has begun.
absl::Status commit_fenced(ClusterBlock& block, const RestoreFence& fence, ClusterOp change) {
  const absl::Status status =
      block.commit({ClusterOp::check(head_key(fence.id), fence.head), std::move(change)}).status();
  return absl::IsAborted(status) ? superseded(fence.id, fence.attempt) : status;
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

absl::Status store_restore(ClusterBlock& block, StoredRestore& stored,
                           const std::vector<ClusterOp>& checks) {
  const std::string key = head_key(stored.head.id);
  const std::string document = encode_head(stored.head);
  std::vector<ClusterOp> ops = checks;
  ops.push_back(ClusterOp::put(key, document, stored.revision));
  bool uncertain = false;
  const absl::Status status = with_patience([&]() -> absl::Status {
    const auto revision = block.commit(ops);
    if (revision.ok()) {
      stored.revision = *revision;
      return absl::OkStatus();
    }
    if (absl::IsUnavailable(revision.status())) uncertain = true;
    if (!absl::IsAborted(revision.status())) return revision.status();
    SLUICE_ASSIGN_OR_RETURN(const auto now, block.get(key));
    // A swap whose answer was lost may have been made.
    if (uncertain && now.has_value() && now->value == document) {
      stored.revision = now->revision;
      return absl::OkStatus();
    }
    return revision.status();
  });
  if (!absl::IsAborted(status)) return status;
  return superseded(stored.head.id, stored.head.attempt);
}

absl::Status with_patience(const std::function<absl::Status()>& call) {
  constexpr int64_t kPauseNs = 50'000'000;
  const int64_t deadline = system_clock().monotonic_ns() + kBlockPatienceMs * 1'000'000;
  while (true) {
    absl::Status status = call();
    if (!absl::IsUnavailable(status) || system_clock().monotonic_ns() > deadline) return status;
    system_clock().sleep_ns(kPauseNs);
  }
}

RestoreFence fence_of(const StoredRestore& stored) {
  return {stored.head.id, stored.head.attempt, stored.revision, stored.head.progress};
}

std::string restore_head_key(std::string_view id) { return head_key(id); }

absl::StatusOr<RestoreFence> find_fence(ClusterBlock& block, std::string_view id,
                                        uint64_t attempt) {
  StoredRestore stored;
  SLUICE_RETURN_IF_ERROR(with_patience([&]() -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(stored, load_restore(block, id));
    return absl::OkStatus();
  }));
  if (stored.revision == 0) return not_found("no restore {}", id);
  if (stored.head.attempt != attempt || !stored.head.driven) {
    return aborted("restore {}: attempt {} is over, the last one is {}", id, attempt,
                   stored.head.attempt);
  }
  return fence_of(stored);
}

absl::Status erase_unnamed(ClusterBlock& block, const StoredRestore& stored) {
  constexpr size_t kErasuresAtOnce = 64;
  const RestoreHead& head = stored.head;
  std::vector<std::string> named;
  if (head.progress != 0) named.push_back(done_prefix(head.id, head.progress));
  for (const RestoreList& list : head.lists) {
    named.push_back(failed_prefix(head.id, list.generation, list.part));
  }
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(folder_key(head.id)));
  std::vector<ClusterOp> ops;
  for (const ClusterEntry& entry : listing.entries) {
    const auto names = [&](const std::string& prefix) { return entry.key.starts_with(prefix); };
    if (std::any_of(named.begin(), named.end(), names)) continue;
    if (ops.empty()) ops.push_back(ClusterOp::check(head_key(head.id), stored.revision));
    ops.push_back(ClusterOp::erase(entry.key));
    if (ops.size() < kErasuresAtOnce) continue;
    SLUICE_RETURN_IF_ERROR(block.commit(ops).status());
    ops.clear();
  }
  return ops.empty() ? absl::OkStatus() : block.commit(ops).status();
}

void DurableSlots::add(const RestoredSlot& slot) {
  Slot& mine = slots_[slot.slot];
  mine = {slot.epoch, slot.kept_newer, {}};
  for (const WriteReply::Holder& holder : slot.holders) {
    const auto [at, added] = indexes_.try_emplace(holder, static_cast<uint32_t>(stores_.size()));
    if (added) stores_.push_back(holder);
    mine.holders.push_back(at->second);
  }
}

std::string encode_progress(const DurableSlots& progress, uint32_t chunk) {
  v1::RestoredSlots document;
  std::map<uint32_t, uint32_t> indexes;
  auto at = progress.slots().lower_bound(chunk * kSlotsPerChunk);
  for (; at != progress.slots().end() && progress_chunk(at->first) == chunk; ++at) {
    auto* slot = document.add_slots();
    slot->set_slot(at->first);
    slot->set_epoch(at->second.epoch);
    slot->set_kept_newer(at->second.kept_newer);
    for (const uint32_t holder : at->second.holders) {
      const auto [index, added] =
          indexes.try_emplace(holder, static_cast<uint32_t>(document.stores_size()));
      if (added) {
        auto* store = document.add_stores();
        store->set_node(progress.store(holder).node);
        store->set_store(progress.store(holder).store);
      }
      slot->add_holders(index->second);
    }
  }
  return document.SerializeAsString();
}

absl::Status store_progress(ClusterBlock& block, const RestoreFence& fence, std::string_view part,
                            uint32_t chunk, std::string document) {
  std::string key = fmt::format("{}{}/{:06}", done_prefix(fence.id, fence.progress), part, chunk);
  return commit_fenced(block, fence, ClusterOp::put(std::move(key), std::move(document)));
}

absl::StatusOr<DurableSlots> load_progress(ClusterBlock& block, const RestoreFence& fence,
                                           std::string_view part) {
  DurableSlots progress;
  SLUICE_ASSIGN_OR_RETURN(
      const ClusterListing listing,
      block.list(fmt::format("{}{}/", done_prefix(fence.id, fence.progress), part)));
  for (const ClusterEntry& entry : listing.entries) {
    v1::RestoredSlots document;
    if (!document.ParseFromString(entry.value)) {
      return data_loss("{}: is not a chunk of a restore's progress", entry.key);
    }
    for (const auto& slot : document.slots()) {
      if (slot.slot() >> kMaxSlotBits != 0) {
        return data_loss("{}: there is no slot {}", entry.key, slot.slot());
      }
      RestoredSlot restored{slot.slot(), slot.epoch(), slot.kept_newer(), {}};
      for (const uint32_t holder : slot.holders()) {
        if (holder >= static_cast<uint32_t>(document.stores_size())) {
          return data_loss("{}: slot {} names a store that is not there", entry.key, slot.slot());
        }
        const auto& store = document.stores(static_cast<int>(holder));
        restored.holders.push_back({store.node(), store.store()});
      }
      progress.add(restored);
    }
  }
  return progress;
}

absl::Status store_failed_units(ClusterBlock& block, const RestoreFence& fence,
                                std::string_view part, std::string_view generation,
                                const std::vector<RestoreUnit>& units) {
  const std::string prefix = failed_prefix(fence.id, generation, part);
  for (size_t first = 0; first < units.size(); first += kUnitsPerChunk) {
    v1::FailedUnits chunk;
    for (size_t i = first; i < std::min(units.size(), first + kUnitsPerChunk); ++i) {
      auto* unit = chunk.add_units();
      unit->set_slot(units[i].slot);
      unit->set_first_sequence(units[i].first_sequence);
      unit->set_blocks(units[i].blocks);
      unit->set_node(units[i].node);
      unit->set_reason(units[i].reason.substr(0, kMaxReasonBytesOfUnit));
      unit->set_damaged(units[i].damaged);
      unit->set_records(units[i].records);
      unit->set_deletions(units[i].deletions);
    }
    chunk.set_last(units.size() - first <= kUnitsPerChunk);
    SLUICE_RETURN_IF_ERROR(with_patience([&] {
      return commit_fenced(block, fence,
                           ClusterOp::put(fmt::format("{}{:06}", prefix, first / kUnitsPerChunk),
                                          chunk.SerializeAsString()));
    }));
  }
  return absl::OkStatus();
}

absl::Status visit_failed_units(
    ClusterBlock& block, const RestoreHead& head, std::string_view part,
    const std::function<absl::Status(std::vector<RestoreUnit> units)>& visit) {
  for (const RestoreList& list : head.lists) {
    if (list.part != part) continue;
    const std::string prefix = failed_prefix(head.id, list.generation, part);
    for (size_t number = 0;; ++number) {
      SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(fmt::format("{}{:06}", prefix, number)));
      if (!entry.has_value()) {
        return data_loss(
            "restore {}: chunk {} of the retry list of part {} is not there: run the restore again",
            head.id, number, part);
      }
      v1::FailedUnits chunk;
      if (!chunk.ParseFromString(entry->value)) {
        return data_loss("{}: is not a chunk of a retry list", entry->key);
      }
      std::vector<RestoreUnit> units;
      for (const auto& unit : chunk.units()) {
        units.push_back({std::string(part), unit.slot(), unit.first_sequence(), unit.blocks(),
                         unit.node(), unit.reason(), unit.damaged(), unit.records(),
                         unit.deletions()});
      }
      SLUICE_RETURN_IF_ERROR(visit(std::move(units)));
      if (chunk.last()) break;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RestoreUnit>> load_failed_units(ClusterBlock& block,
                                                           const RestoreHead& head,
                                                           std::string_view part) {
  std::vector<RestoreUnit> all;
  SLUICE_RETURN_IF_ERROR(visit_failed_units(block, head, part, [&](std::vector<RestoreUnit> units) {
    std::move(units.begin(), units.end(), std::back_inserter(all));
    return absl::OkStatus();
  }));
  return all;
}

}  // namespace sluice
