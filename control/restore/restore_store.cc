#include "control/restore/restore_store.h"

#include <algorithm>
#include <utility>

#include "base/deadline.h"
#include "base/defect.h"
#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"
#include "control/proto/sluice.pb.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

constexpr char kHeadsPrefix[] = "restores/";

}  // namespace

std::string restore_head_key(std::string_view id) { return fmt::format("{}{}", kHeadsPrefix, id); }

namespace {

constexpr char kHeadFormat[] = "sluice.restore.3";
constexpr char kHeadFormatBefore[] = "sluice.restore.2";  // lacks fields that have defaults
constexpr char kPositionFormat[] = "sluice.restoring.1";
constexpr char kProgressFormat[] = "sluice.restored.1";
constexpr char kFailedFormat[] = "sluice.retry.1";
constexpr size_t kUnitsPerChunk = 1000;
constexpr int64_t kBlockPauseMs = 50;
constexpr size_t kMaxReasonBytesOfUnit = 400;

std::string folder_key(std::string_view id) { return fmt::format("restore/{}/", id); }
std::string done_prefix(std::string_view id, uint64_t generation) {
  return fmt::format("restore/{}/done/{}/", id, generation);
}
std::string position_key(std::string_view id, uint64_t attempt) {
  return fmt::format("restore/{}/at/{}", id, attempt);
}
std::string failed_prefix(std::string_view id, std::string_view generation, std::string_view part) {
  return fmt::format("restore/{}/failed/{}/{}/", id, generation, part);
}

absl::Status superseded(std::string_view id, uint64_t attempt) {
  return aborted("restore {}: attempt {} was superseded by another one, which drives it now", id,
                 attempt);
}

// A change under an attempt: ABORTED, with the reason, once another one has begun.
absl::Status commit_fenced(ClusterBlock& block, const RestoreFence& fence, ClusterOp change) {
  if (defect(Defect::kRestoreIsNotFenced)) return block.commit({std::move(change)}).status();
  const absl::Status status =
      block.commit({ClusterOp::check(restore_head_key(fence.id), fence.head), std::move(change)})
          .status();
  return absl::IsAborted(status) ? superseded(fence.id, fence.attempt) : status;
}

}  // namespace

absl::StatusOr<RestoreHead> decode_restore_head(const std::string& key, const std::string& bytes) {
  v1::RestoreDocument document;
  const absl::Status decoded = decode_document(key, bytes, kHeadFormat, &document);
  if (!decoded.ok() && !decode_document(key, bytes, kHeadFormatBefore, &document).ok()) {
    return decoded;
  }
  RestoreHead head;
  const auto state = restore_state_named(document.state());
  if (!state.has_value()) {
    return damaged_document(key, fmt::format("unknown state '{}'", printable(document.state())));
  }
  if (!read_digest(document.manifest_digest(), &head.manifest_digest)) {
    return damaged_document(key, "the manifest digest has the wrong length");
  }
  head.id = document.id();
  head.backup = document.backup();
  head.name = document.name();
  head.archive_cluster = document.archive_cluster();
  head.source_cluster = document.source_cluster();
  head.mapping.prefix = document.prefix();
  head.mapping.renames = document.renames();
  head.mapping.renamed = document.renamed();
  head.mapping.restamp = {document.moment(), document.moment_node()};
  head.on_conflict = document.undoes() ? OnConflict::kArchive : OnConflict::kNewest;
  head.delete_extra = document.delete_extra();
  head.state = *state;
  head.reason = document.reason();
  head.attempt = document.attempt();
  head.driven = document.driven();
  head.progress = document.progress();
  for (const auto& list : document.lists()) {
    head.lists.push_back({list.part(), list.generation()});
  }
  head.into_empty = document.into_empty();
  for (const auto& source : document.sources()) {
    head.sources.push_back({source.part(), source.node(), source.directory()});
  }
  head.records = document.records();
  head.written = document.written();
  head.bytes = document.bytes();
  head.kept_newer = document.kept_newer();
  head.kept_deleted = document.kept_deleted();
  head.restored_over = document.restored_over();
  head.deleted_extra = document.deleted_extra();
  head.extra_left = document.extra_left();
  head.extra_reason = document.extra_reason();
  head.failed = document.failed();
  head.failed_deletions = document.failed_deletions();
  head.created_ms = document.created_ms();
  head.changed_ms = document.changed_ms();
  if (restore_head_key(head.id) != key)
    return damaged_document(key, "it belongs to another restore");
  // Whoever drove it would delete what it must not, or restore without effect.
  const bool undoes = head.on_conflict == OnConflict::kArchive;
  if (undoes != head.mapping.restamps() || (head.delete_extra && !undoes)) {
    return damaged_document(key, "its moment and what it undoes do not fit together");
  }
  return head;
}

std::string encode(const RestoreHead& head) {
  v1::RestoreDocument document;
  document.set_id(head.id);
  document.set_backup(head.backup);
  document.set_name(head.name);
  document.set_archive_cluster(head.archive_cluster);
  document.set_manifest_digest(digest_bytes(head.manifest_digest));
  document.set_source_cluster(head.source_cluster);
  document.set_prefix(head.mapping.prefix);
  document.set_renames(head.mapping.renames);
  document.set_renamed(head.mapping.renamed);
  document.set_moment(head.mapping.restamp.stamp);
  document.set_moment_node(head.mapping.restamp.node);
  document.set_undoes(head.on_conflict == OnConflict::kArchive);
  document.set_delete_extra(head.delete_extra);
  document.set_state(std::string(name_of(head.state)));
  document.set_reason(head.reason);
  document.set_attempt(head.attempt);
  document.set_driven(head.driven);
  document.set_progress(head.progress);
  for (const RestoreList& list : head.lists) {
    auto* stored = document.add_lists();
    stored->set_part(list.part);
    stored->set_generation(list.generation);
  }
  document.set_into_empty(head.into_empty);
  for (const RestoreSource& source : head.sources) {
    auto* stored = document.add_sources();
    stored->set_part(source.part);
    stored->set_node(source.node);
    stored->set_directory(source.folder);
  }
  document.set_records(head.records);
  document.set_written(head.written);
  document.set_bytes(head.bytes);
  document.set_kept_newer(head.kept_newer);
  document.set_kept_deleted(head.kept_deleted);
  document.set_restored_over(head.restored_over);
  document.set_deleted_extra(head.deleted_extra);
  document.set_extra_left(head.extra_left);
  document.set_extra_reason(head.extra_reason);
  document.set_failed(head.failed);
  document.set_failed_deletions(head.failed_deletions);
  document.set_created_ms(head.created_ms);
  document.set_changed_ms(head.changed_ms);
  return encode_document(kHeadFormat, document);
}

std::string restore_lock_key(std::string_view id) { return fmt::format("restore-locks/{}", id); }

absl::StatusOr<StoredRestore> load_restore(ClusterBlock& block, std::string_view id) {
  StoredRestore stored;
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(restore_head_key(id)));
  if (!entry.has_value()) return stored;
  SLUICE_ASSIGN_OR_RETURN(stored.head, decode_restore_head(entry->key, entry->value));
  stored.revision = entry->revision;
  return stored;
}

absl::StatusOr<std::vector<RestoreHead>> list_restores(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(kHeadsPrefix));
  std::vector<RestoreHead> heads;
  for (const ClusterEntry& entry : listing.entries) {
    SLUICE_ASSIGN_OR_RETURN(RestoreHead head, decode_restore_head(entry.key, entry.value));
    heads.push_back(std::move(head));
  }
  return heads;
}

absl::Status with_patience(Clock& clock, const std::function<absl::Status()>& call) {
  Deadline deadline(clock, kBlockPatienceMs);
  absl::Status status;
  do {
    status = call();
  } while (absl::IsUnavailable(status) && deadline.pause(kBlockPauseMs));
  return status;
}

RestoreFence fence_of(const StoredRestore& stored) {
  return {stored.head.id, stored.head.attempt, stored.revision, stored.head.progress};
}

absl::StatusOr<RestoreFence> find_fence(ClusterBlock& block, Clock& clock, std::string_view id,
                                        uint64_t attempt) {
  StoredRestore stored;
  SLUICE_RETURN_IF_ERROR(with_patience(clock, [&]() -> absl::Status {
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

absl::Status store_position(ClusterBlock& block, const RestoreFence& fence,
                            const RestorePosition& position) {
  v1::RestoreProgressDocument document;
  document.set_stage(position.stage);
  document.set_bytes_done(position.bytes_done);
  document.set_bytes_total(position.bytes_total);
  document.set_bytes_per_second(position.bytes_per_second);
  document.set_changed_ms(position.changed_ms);
  return commit_fenced(block, fence,
                       ClusterOp::put(position_key(fence.id, fence.attempt),
                                      encode_document(kPositionFormat, document)));
}

absl::StatusOr<std::optional<RestorePosition>> load_position(ClusterBlock& block,
                                                             const RestoreHead& head) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(position_key(head.id, head.attempt)));
  if (!entry.has_value()) return std::nullopt;
  v1::RestoreProgressDocument document;
  SLUICE_RETURN_IF_ERROR(decode_document(entry->key, entry->value, kPositionFormat, &document));
  return RestorePosition{document.stage(), document.bytes_done(), document.bytes_total(),
                         document.bytes_per_second(), document.changed_ms()};
}

absl::Status erase_unnamed(ClusterBlock& block, const StoredRestore& stored) {
  constexpr size_t kErasuresAtOnce = 64;
  const RestoreHead& head = stored.head;
  std::vector<std::string> named = {position_key(head.id, head.attempt)};
  if (head.progress != 0) named.push_back(done_prefix(head.id, head.progress));
  for (const RestoreList& list : head.lists) {
    named.push_back(failed_prefix(head.id, list.generation, list.part));
  }
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(folder_key(head.id)));
  std::vector<ClusterOp> ops;
  for (const ClusterEntry& entry : listing.entries) {
    const auto names = [&](const std::string& prefix) { return entry.key.starts_with(prefix); };
    if (std::any_of(named.begin(), named.end(), names)) continue;
    if (ops.empty()) ops.push_back(ClusterOp::check(restore_head_key(head.id), stored.revision));
    ops.push_back(ClusterOp::erase(entry.key));
    if (ops.size() < kErasuresAtOnce) continue;
    SLUICE_RETURN_IF_ERROR(block.commit(ops).status());
    ops.clear();
  }
  return ops.empty() ? absl::OkStatus() : block.commit(ops).status();
}

void DurableSlots::add(const RestoredSlot& slot) {
  Slot& mine = slots_[slot.slot];
  mine = {slot.epoch, slot.kept, {}};
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
    slot->set_kept_newer(at->second.kept.newer);
    slot->set_kept_deleted(at->second.kept.deleted);
    slot->set_replaced(at->second.kept.replaced);
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
  return encode_document(kProgressFormat, document);
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
    SLUICE_RETURN_IF_ERROR(decode_document(entry.key, entry.value, kProgressFormat, &document));
    for (const auto& slot : document.slots()) {
      if (slot.slot() >> kMaxSlotBits != 0) {
        return damaged_document(entry.key, fmt::format("slot {} is out of range", slot.slot()));
      }
      RestoredSlot restored{
          slot.slot(), slot.epoch(), {slot.kept_newer(), slot.kept_deleted(), slot.replaced()}, {}};
      for (const uint32_t holder : slot.holders()) {
        if (holder >= static_cast<uint32_t>(document.stores_size())) {
          return damaged_document(
              entry.key, fmt::format("slot {} names a store that is not listed", slot.slot()));
        }
        const auto& store = document.stores(static_cast<int>(holder));
        restored.holders.push_back({store.node(), store.store()});
      }
      progress.add(restored);
    }
  }
  return progress;
}

absl::Status store_failed_units(ClusterBlock& block, Clock& clock, const RestoreFence& fence,
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
    SLUICE_RETURN_IF_ERROR(with_patience(clock, [&] {
      return commit_fenced(block, fence,
                           ClusterOp::put(fmt::format("{}{:06}", prefix, first / kUnitsPerChunk),
                                          encode_document(kFailedFormat, chunk)));
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
      SLUICE_RETURN_IF_ERROR(decode_document(entry->key, entry->value, kFailedFormat, &chunk));
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
