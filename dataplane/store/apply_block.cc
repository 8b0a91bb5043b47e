// Applying the blocks of data writing requests: whole records like any write, values that span
// blocks by staging.
#include <algorithm>
#include <utility>

#include "base/status.h"
#include "dataplane/store/slot_scan.h"
#include "dataplane/store/store_impl.h"

namespace sluice {
namespace {

// Returns the version that the entry came with.
Version restamp_entry(const Version& restamp, BlockEntry* entry) {
  const Version archived = entry->version;
  if (restamp != Version() && !entry->tombstone) entry->version = restamp;
  return archived;
}

rocksdb::ReadOptions uncached() {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  return options;
}

// Whether the fragment rows of `set` hold `bytes` at `offset`.
absl::StatusOr<bool> rows_equal(const StoreDb& db, uint32_t slot, std::string_view key,
                                uint64_t set, uint64_t offset, std::string_view bytes) {
  FragmentReader rows(db, uncached());
  rows.select(slot, key, set);
  while (!bytes.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const std::string_view here, rows.row_from(offset));
    const size_t size = std::min(here.size(), bytes.size());
    if (here.substr(0, size) != bytes.substr(0, size)) return false;
    offset += size;
    bytes.remove_prefix(size);
  }
  return true;
}

absl::Status out_of_order(std::string_view why, const BlockEntry& entry) {
  return failed_precondition(
      "a fragment at offset {} of a value of {} bytes {}: begin its run again",
      entry.fragment_offset, entry.value_bytes, why);
}

}  // namespace

void count_outcome(Mutation::Outcome outcome, const std::optional<StoredHead>& before,
                   const RecordSummary& record, const Version& archived,
                   Store::BlockResult* result) {
  const bool same = before.has_value() && before->summary.same_content(record);
  switch (outcome) {
    case Mutation::Outcome::kChanged:
      ++result->changed;
      result->replaced += before.has_value() && !same && archived < record.version &&
                          archived < before->summary.version;
      return;
    case Mutation::Outcome::kEqualHere:
      ++result->kept_newer;
      ++result->kept_equal;
      return;
    case Mutation::Outcome::kNewerHere:
      ++result->kept_newer;
      result->kept_equal += same;
      result->kept_deleted += before.has_value() && before->summary.tombstone && !record.tombstone;
      return;
  }
}

absl::StatusOr<CheckedBlock> StoreImpl::check_block(std::span<const uint8_t> block,
                                                    const Version& restamp) const {
  SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(block));
  CheckedBlock checked(reader);
  checked.restamp = restamp;
  if (reader.header().slot_bits != options_.slot_bits || checked.slot() >= digests_.size()) {
    return failed_precondition(
        "a block of slot {} with {} slot bits; this cluster has {}: repack it", checked.slot(),
        reader.header().slot_bits, options_.slot_bits);
  }
  checked.value_digests.reserve(std::min<size_t>(reader.header().entries, size_t{1} << 16));
  for (;;) {
    BlockEntry entry;
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) return checked;
    if (entry.key.empty() || entry.key.size() > kMaxKeyBytes ||
        entry.value_bytes > kMaxValueBytes || (entry.tombstone && entry.value_bytes != 0) ||
        (!entry.whole() && entry.fragment.empty())) {
      return data_loss("a block of slot {} holds an entry of impossible sizes", checked.slot());
    }
    restamp_entry(restamp, &entry);
    checked.largest_stamp = std::max(checked.largest_stamp, entry.version.stamp);
    checked.smallest_stamp = std::min(checked.smallest_stamp, entry.version.stamp);
    checked.key_bytes += entry.key.size();
    checked.fragment_bytes += entry.fragment.size();
    checked.value_digests.push_back(entry.whole() ? xxh3_128(entry.fragment) : Digest128());
  }
}

absl::StatusOr<Store::BlockResult> StoreImpl::apply_block(std::span<const uint8_t> block,
                                                          const Version& restamp) {
  SLUICE_ASSIGN_OR_RETURN(const CheckedBlock checked, check_block(block, restamp));
  BlockResult result;
  if (checked.value_digests.empty()) return result;
  SLUICE_RETURN_IF_ERROR(check_writable());
  SLUICE_RETURN_IF_ERROR(clock_->observe_archived(checked.largest_stamp));
  uint64_t ticket = 0;
  {
    SLUICE_ASSIGN_OR_RETURN(const std::shared_lock<WriteGate> gate, enter(checked.largest_stamp));
    const std::lock_guard slot_gate(slot_gates_.of(checked.slot()));
    ticket = sync_.last();
    result.after_cut = checked.smallest_stamp <= last_cut_;
    Runs& runs = runs_[SlotGates::stripe_of(checked.slot())];
    const absl::Status status = apply_entries(checked, runs, &result, &ticket);
    // What the list says of a run that failed is not what was committed: it has to begin again. Its
    // rows go at the next start.
    if (!status.ok()) runs.remove_if([](const StagedRun& run) { return run.uncommitted; });
    for (StagedRun& run : runs) run.uncommitted = false;
    SLUICE_RETURN_IF_ERROR(status);
  }
  if (absl::Status status = sync_.wait(ticket); !status.ok()) return fail(status);
  return result;
}

absl::Status StoreImpl::apply_entries(const CheckedBlock& block, Runs& runs, BlockResult* result,
                                      uint64_t* ticket) {
  Mutation mutation(*db_, *sets_, digests_, /*repeats=*/false);
  BlockReader reader = block.reader;
  for (const Digest128& value_digest : block.value_digests) {
    BlockEntry entry;
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more)
      return internal_error("a block of slot {} changed while it was applied", block.slot());
    const Version archived = restamp_entry(block.restamp, &entry);
    if (entry.whole()) {
      const RecordSummary summary{entry.version, entry.tombstone, entry.value_bytes, value_digest};
      SLUICE_ASSIGN_OR_RETURN(const Mutation::Outcome outcome,
                              mutation.put(block.slot(), entry.key, summary, entry.fragment));
      count_outcome(outcome, mutation.before(), summary, archived, result);
    } else {
      SLUICE_RETURN_IF_ERROR(apply_fragment(block.slot(), entry, archived, mutation, runs, result));
    }
    if (mutation.bytes() >= kBatchBytes) SLUICE_RETURN_IF_ERROR(commit(mutation, ticket));
  }
  return commit(mutation, ticket);
}

absl::Status StoreImpl::apply_fragment(uint32_t slot, const BlockEntry& entry,
                                       const Version& archived, Mutation& mutation, Runs& runs,
                                       BlockResult* result) {
  const auto run = std::find_if(runs.begin(), runs.end(), [&](const StagedRun& r) {
    return r.slot == slot && r.version == entry.version && r.value_bytes == entry.value_bytes &&
           r.key == entry.key;
  });
  if (run != runs.end()) runs.splice(runs.begin(), runs, run);  // the list is in order of last use
  if (entry.fragment_offset == 0) {
    if (run != runs.end()) {
      SLUICE_RETURN_IF_ERROR(give_up_run(*run, mutation));
      runs.erase(run);
    }
    return begin_run(slot, entry, mutation, runs);
  }
  if (run == runs.end()) return match_stored(slot, entry, mutation, result);
  if (entry.fragment_offset == run->staged_bytes) {
    if (entry.last()) return finish_run(entry, archived, mutation, runs, result);
    SLUICE_RETURN_IF_ERROR(
        mutation.put_fragments(slot, entry.key, run->set, entry.fragment_offset, entry.fragment));
    run->staged_bytes += entry.fragment.size();
    run->uncommitted = true;
    return absl::OkStatus();
  }
  if (entry.fragment_offset + entry.fragment.size() <= run->staged_bytes) {
    SLUICE_ASSIGN_OR_RETURN(const bool same, rows_equal(*db_, slot, entry.key, run->set,
                                                        entry.fragment_offset, entry.fragment));
    if (same) return absl::OkStatus();  // a repeat of a block whose answer was lost
  }
  return out_of_order("does not follow what came before it", entry);
}

absl::Status StoreImpl::begin_run(uint32_t slot, const BlockEntry& entry, Mutation& mutation,
                                  Runs& runs) {
  if (runs.size() >= kRunsOfStripe) {
    SLUICE_RETURN_IF_ERROR(give_up_run(runs.back(), mutation));
    runs.pop_back();
  }
  StagedRun run{slot,          std::string(entry.key), entry.version,       entry.value_bytes,
                sets_->take(), entry.fragment.size(),  /*uncommitted=*/true};
  SLUICE_RETURN_IF_ERROR(mutation.put_fragments(run.slot, run.key, run.set, 0, entry.fragment));
  const std::string row = encode_u64(run.value_bytes) + run.key;
  SLUICE_RETURN_IF_ERROR(
      rocksdb_status(mutation.batch().Put(db_->meta(), staging_row_key(run.slot, run.set), row),
                     "adding a staging row"));
  runs.push_front(std::move(run));
  return absl::OkStatus();
}

absl::Status StoreImpl::finish_run(const BlockEntry& entry, const Version& archived,
                                   Mutation& mutation, Runs& runs, BlockResult* result) {
  const StagedRun& run = runs.front();
  // The digest is of what is stored, read back, not of what was received.
  StreamingXxh3 hash;
  FragmentReader rows(*db_, uncached());
  rows.select(run.slot, run.key, run.set);
  for (uint64_t offset = 0; offset < run.staged_bytes;) {
    SLUICE_ASSIGN_OR_RETURN(const std::string_view bytes, rows.row_from(offset));
    hash.update(bytes);
    offset += bytes.size();
  }
  hash.update(entry.fragment);
  const RecordSummary summary{entry.version, entry.tombstone, entry.value_bytes, hash.digest128()};
  SLUICE_RETURN_IF_ERROR(
      mutation.put_fragments(run.slot, run.key, run.set, entry.fragment_offset, entry.fragment));
  SLUICE_RETURN_IF_ERROR(
      rocksdb_status(mutation.batch().Delete(db_->meta(), staging_row_key(run.slot, run.set)),
                     "removing a staging row"));
  SLUICE_ASSIGN_OR_RETURN(const Mutation::Outcome outcome,
                          mutation.put_staged(run.slot, run.key, summary, run.set));
  count_outcome(outcome, mutation.before(), summary, archived, result);
  runs.pop_front();
  return absl::OkStatus();
}

// A fragment of no open run: right only if it repeats what has been committed, or is older than
// that.
absl::Status StoreImpl::match_stored(uint32_t slot, const BlockEntry& entry, Mutation& mutation,
                                     BlockResult* result) {
  SLUICE_ASSIGN_OR_RETURN(const std::optional<StoredHead> stored, mutation.head(slot, entry.key));
  if (!stored.has_value() || stored->summary.version < entry.version) {
    return out_of_order("whose beginning is not here", entry);
  }
  const bool older = entry.version < stored->summary.version;
  if (!older) {
    bool same = false;
    if (stored->summary.value_bytes == entry.value_bytes && stored->fragmented) {
      SLUICE_ASSIGN_OR_RETURN(same, rows_equal(*db_, slot, entry.key, stored->set,
                                               entry.fragment_offset, entry.fragment));
    }
    if (!same) return out_of_order("that is not the one stored", entry);
  }
  if (entry.last()) {
    // Of a fragment it is not known what the whole value is.
    const RecordSummary record{entry.version, false, entry.value_bytes, Digest128()};
    count_outcome(older ? Mutation::Outcome::kNewerHere : Mutation::Outcome::kEqualHere, stored,
                  record, entry.version, result);
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::give_up_run(const StagedRun& run, Mutation& mutation) {
  SLUICE_RETURN_IF_ERROR(mutation.delete_fragments(run.slot, run.key, run.set, run.staged_bytes));
  return rocksdb_status(mutation.batch().Delete(db_->meta(), staging_row_key(run.slot, run.set)),
                        "removing a staging row");
}

}  // namespace sluice
