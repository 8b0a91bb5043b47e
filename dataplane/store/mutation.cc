#include "dataplane/store/mutation.h"

#include <algorithm>
#include <array>

#include "base/defect.h"
#include "base/status.h"
#include "dataplane/store/store_format.h"

namespace sluice {

absl::StatusOr<std::optional<StoredHead>> Mutation::head(uint32_t slot, std::string_view key) {
  const std::string row = record_row_key(slot, key);
  if (repeats_) {
    if (const auto changed = changed_heads_.find(row); changed != changed_heads_.end())
      return changed->second;
  }
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), db_.records(), row, &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return rocksdb_status(status, "reading a record");
  StoredRecord stored;
  if (!decode_stored(to_view(value), &stored))
    return data_loss("a record of slot {} is stored in no known form", slot);
  return StoredHead{stored.summary, stored.fragmented, stored.set};
}

absl::StatusOr<std::optional<Mutation::Outcome>> Mutation::compare(uint32_t slot,
                                                                   std::string_view key,
                                                                   const RecordSummary& summary) {
  SLUICE_ASSIGN_OR_RETURN(old_, head(slot, key));
  if (!old_.has_value() || summary > old_->summary) return std::nullopt;
  return summary == old_->summary ? Outcome::kEqualHere : Outcome::kNewerHere;
}

void Mutation::replace(uint32_t slot, std::string_view key, const StoredHead& head) {
  SlotDigest& digest = changed_digests_.try_emplace(slot, digests_[slot]).first->second;
  if (old_.has_value()) digest.remove(key, old_->summary);
  digest.add(key, head.summary);
  if (repeats_) changed_heads_[record_row_key(slot, key)] = head;
}

absl::StatusOr<Mutation::Outcome> Mutation::put(uint32_t slot, std::string_view key,
                                                const RecordSummary& summary,
                                                std::string_view value) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<Outcome> kept, compare(slot, key, summary));
  if (kept.has_value()) return *kept;
  StoredHead head{summary, value.size() > kInlineBytes, 0};
  if (old_.has_value() && old_->fragmented)
    SLUICE_RETURN_IF_ERROR(delete_fragments(slot, key, old_->set, old_->summary.value_bytes));
  if (head.fragmented) {
    head.set = sets_.take();
    SLUICE_RETURN_IF_ERROR(put_fragments(slot, key, head.set, 0, value));
  }
  const std::string row = record_row_key(slot, key);
  const std::string stored = encode_stored_head(summary, head.fragmented, head.set);
  const rocksdb::Slice row_part(row);
  const std::array<rocksdb::Slice, 2> value_parts = {
      rocksdb::Slice(stored), to_slice(head.fragmented ? std::string_view() : value)};
  SLUICE_RETURN_IF_ERROR(
      rocksdb_status(batch_.Put(db_.records(), rocksdb::SliceParts(&row_part, 1),
                                rocksdb::SliceParts(value_parts.data(), value_parts.size())),
                     "adding a record to a batch"));
  replace(slot, key, head);
  return Outcome::kChanged;
}

absl::StatusOr<Mutation::Outcome> Mutation::put_staged(uint32_t slot, std::string_view key,
                                                       const RecordSummary& summary, uint64_t set) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<Outcome> kept, compare(slot, key, summary));
  if (kept.has_value()) {
    SLUICE_RETURN_IF_ERROR(delete_fragments(slot, key, set, summary.value_bytes));
    return *kept;
  }
  if (old_.has_value() && old_->fragmented)
    SLUICE_RETURN_IF_ERROR(delete_fragments(slot, key, old_->set, old_->summary.value_bytes));
  const StoredHead head{summary, true, set};
  SLUICE_RETURN_IF_ERROR(rocksdb_status(
      batch_.Put(db_.records(), record_row_key(slot, key), encode_stored_head(summary, true, set)),
      "adding a record to a batch"));
  replace(slot, key, head);
  return Outcome::kChanged;
}

absl::Status Mutation::put_fragments(uint32_t slot, std::string_view key, uint64_t set,
                                     uint64_t offset, std::string_view bytes) {
  const std::string prefix = fragment_row_prefix(slot, key, set);
  while (!bytes.empty()) {
    const uint64_t begin = fragment_row_begin(offset);
    const std::string row = fragment_row_key(prefix, begin);
    // A row that the fragment before filled in part is written again, whole.
    rocksdb::PinnableSlice stored;
    if (offset > begin) {
      SLUICE_RETURN_IF_ERROR(
          rocksdb_status(db_->Get(rocksdb::ReadOptions(), db_.fragments(), row, &stored),
                         "reading the fragment before"));
      if (stored.size() != offset - begin)
        return data_loss("the fragment before offset {} has another end", offset);
    }
    const std::string_view part = bytes.substr(0, begin + kFragmentRowBytes - offset);
    const rocksdb::Slice row_part(row);
    const std::array<rocksdb::Slice, 2> parts = {stored, to_slice(part)};
    SLUICE_RETURN_IF_ERROR(
        rocksdb_status(batch_.Put(db_.fragments(), rocksdb::SliceParts(&row_part, 1),
                                  rocksdb::SliceParts(parts.data(), parts.size())),
                       "adding a fragment to a batch"));
    offset += part.size();
    bytes.remove_prefix(part.size());
  }
  return absl::OkStatus();
}

// Row by row: range deletions would be one entry, but slow reads, and were repaired in many
// releases.
absl::Status Mutation::delete_fragments(uint32_t slot, std::string_view key, uint64_t set,
                                        uint64_t bytes) {
  const std::string prefix = fragment_row_prefix(slot, key, set);
  for (uint64_t begin = 0; begin < bytes; begin += kFragmentRowBytes) {
    SLUICE_RETURN_IF_ERROR(
        rocksdb_status(batch_.Delete(db_.fragments(), fragment_row_key(prefix, begin)),
                       "adding a deletion to a batch"));
  }
  return absl::OkStatus();
}

absl::Status Mutation::commit() {
  if (empty()) return absl::OkStatus();
  if (defect(Defect::kDigestCommittedApart)) {
    SLUICE_RETURN_IF_ERROR(rocksdb_status(db_->Write({}, &batch_), "writing records"));
    batch_.Clear();
  }
  for (const auto& [slot, digest] : changed_digests_) {
    SLUICE_RETURN_IF_ERROR(
        rocksdb_status(batch_.Put(db_.meta(), digest_row_key(slot), encode_digest(digest)),
                       "adding a slot digest to a batch"));
  }
  rocksdb::WriteOptions options;
  // Callers bring records in the order of their rows: each one's place is near the last one's.
  options.memtable_insert_hint_per_batch = true;
  SLUICE_RETURN_IF_ERROR(rocksdb_status(db_->Write(options, &batch_), "writing records"));
  for (const auto& [slot, digest] : changed_digests_) digests_[slot] = digest;
  batch_.Clear();
  changed_digests_.clear();
  changed_heads_.clear();
  return absl::OkStatus();
}

}  // namespace sluice
