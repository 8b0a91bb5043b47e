// Making gathered slots durable: by table files where nothing is in the way, record by record
// elsewhere.
#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/defect.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/status.h"
#include "dataplane/store/ingest_rows.h"
#include "dataplane/store/store_impl.h"
#include "dataplane/store/table_files.h"

namespace sluice {
namespace {

using Way = SlotWork::Way;

constexpr int kTries = 3;

absl::StatusOr<bool> holds_any_between(const StoreDb& db, std::string_view first,
                                       std::string_view last) {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> rows(db->NewIterator(options, db.records()));
  rows->Seek(to_slice(first));
  SLUICE_RETURN_IF_ERROR(rocksdb_status(rows->status(), "reading a slot's keys"));
  return rows->Valid() && to_view(rows->key()) <= last;
}

absl::StatusOr<Way> way_of(const StoreDb& db, const SlotRows& rows, const SlotDigest& here) {
  if (rows.has_rivals()) return Way::kCompare;
  if (here.empty()) return Way::kTable;
  if (here == rows.digest()) return Way::kHere;
  SLUICE_ASSIGN_OR_RETURN(
      const bool in_the_way,
      holds_any_between(db, rows.rows().front().row_key(), rows.rows().back().row_key()));
  return in_the_way ? Way::kCompare : Way::kTable;
}

// A value's pieces as rows of kFragmentRowBytes.
absl::Status put_fragments(const StoreDb& db, std::span<const IngestRow> pieces,
                           std::string_view prefix, TableFiles& files) {
  std::string row;
  uint64_t begin = 0;
  for (const IngestRow& piece : pieces) {
    std::string_view bytes = piece.value();
    while (!bytes.empty()) {
      const std::string_view part = bytes.substr(0, kFragmentRowBytes - row.size());
      bytes.remove_prefix(part.size());
      if (row.empty() && part.size() == kFragmentRowBytes) {  // the usual case: no copy
        SLUICE_RETURN_IF_ERROR(files.put(db.fragments(), fragment_row_key(prefix, begin), part));
        begin += part.size();
        continue;
      }
      row += part;
      if (row.size() < kFragmentRowBytes) continue;
      SLUICE_RETURN_IF_ERROR(files.put(db.fragments(), fragment_row_key(prefix, begin), row));
      begin += row.size();
      row.clear();
    }
  }
  if (row.empty()) return absl::OkStatus();
  return files.put(db.fragments(), fragment_row_key(prefix, begin), row);
}

absl::Status put_slot(const StoreDb& db, FragmentSets& sets, const SlotRows& slot,
                      TableFiles& files) {
  const std::vector<IngestRow>& rows = slot.rows();
  for (size_t i = 0; i < rows.size(); i += rows[i].pieces) {
    const IngestRow& row = rows[i];
    if (row.pieces == 1 && row.value_bytes <= kInlineBytes) {
      SLUICE_RETURN_IF_ERROR(files.put(db.records(), row.row_key(), row.stored()));
      continue;
    }
    const uint64_t set = sets.take();
    SLUICE_RETURN_IF_ERROR(files.put(db.records(), row.row_key(),
                                     encode_stored_head(row.summary(), /*fragmented=*/true, set)));
    const std::string prefix =
        fragment_row_prefix(get_big_endian32(row.row_key().data()), row.key(), set);
    SLUICE_RETURN_IF_ERROR(
        put_fragments(db, std::span(rows).subspan(i, row.pieces), prefix, files));
  }
  return absl::OkStatus();
}

SlotDigest sum_of(SlotDigest a, const SlotDigest& b) {
  a.sum += b.sum;
  a.records += b.records;
  a.tombstones += b.tombstones;
  a.bytes += b.bytes;
  return a;
}

absl::Status put_record(Mutation& mutation, uint32_t slot, std::span<const IngestRow> pieces,
                        Store::BlockResult* result) {
  const IngestRow& row = pieces.front();
  std::string joined;
  std::string_view value = row.value();
  if (pieces.size() > 1) {
    for (const IngestRow& piece : pieces) joined += piece.value();
    value = joined;
  }
  SLUICE_ASSIGN_OR_RETURN(const Mutation::Outcome outcome,
                          mutation.put(slot, row.key(), row.summary(), value));
  count_outcome(outcome, mutation.before(), row.summary(), row.summary().version, result);
  return absl::OkStatus();
}

}  // namespace

class SlotIngestImpl final : public SlotIngest {
 public:
  explicit SlotIngestImpl(StoreImpl& store) : store_(store) {}

  absl::StatusOr<uint64_t> add(std::span<const uint8_t> block) override {
    SLUICE_ASSIGN_OR_RETURN(const CheckedBlock checked, store_.check_block(block));
    if (checked.value_digests.empty()) return 0;
    SLUICE_ASSIGN_OR_RETURN(BlockRows rows, BlockRows::from(checked, store_.row_memory()));
    const MutexLock lock(mutex_);
    const uint64_t bytes = rows.bytes;
    bytes_ += bytes;
    slots_[checked.slot()].add(std::move(rows));
    return bytes;
  }

  uint64_t bytes() const override {
    const MutexLock lock(mutex_);
    return bytes_;
  }

  // Nobody adds to it meanwhile, so nobody waits for what this takes its time for.
  absl::StatusOr<Result> commit() override {
    const MutexLock lock(mutex_);
    return store_.ingest(slots_);
  }

 private:
  StoreImpl& store_;
  mutable Mutex mutex_;
  std::map<uint32_t, SlotRows> slots_ SLUICE_GUARDED_BY(mutex_);
  uint64_t bytes_ SLUICE_GUARDED_BY(mutex_) = 0;
};

std::unique_ptr<SlotIngest> StoreImpl::begin_ingest() {
  return std::make_unique<SlotIngestImpl>(*this);
}

// What a crash left beside the database was never confirmed.
absl::Status StoreImpl::remove_table_files() {
  const std::string folder = options_.folder + "/ingest";
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error) return errno_status(error.value(), fmt::format("removing {}", folder));
  return make_folders(folder);
}

absl::StatusOr<SlotIngest::Result> StoreImpl::ingest(std::map<uint32_t, SlotRows>& slots) {
  SlotIngest::Result result;
  std::vector<SlotWork> work;
  StampRange stamps;
  for (auto& [slot, rows] : slots) {
    rows.finish();
    if (rows.rows().empty()) continue;
    for (const IngestRow& row : rows.rows()) stamps.add(row.summary().version.stamp);
    work.push_back({slot, &rows, Way::kTable, {}});
  }
  if (work.empty()) return result;
  SLUICE_RETURN_IF_ERROR(check_writable());
  SLUICE_RETURN_IF_ERROR(clock_->observe_archived(stamps.largest));
  // A slot that is written to meanwhile is taken out of the tables, so each try has fewer.
  for (int tries = 0;; ++tries) {
    SLUICE_RETURN_IF_ERROR(choose_ways(work, /*tables=*/tries < kTries));
    SLUICE_ASSIGN_OR_RETURN(const bool done, ingest_tables(work, stamps, &result.all));
    if (done) break;
  }
  for (SlotWork& each : work) {
    if (each.way != Way::kCompare) continue;
    const KeptRecords before = result.all.kept();
    SLUICE_RETURN_IF_ERROR(compare_slot(each.slot, *each.rows, stamps, &result.all));
    const KeptRecords after = result.all.kept();
    const KeptRecords kept{after.newer - before.newer, after.deleted - before.deleted, 0};
    if (kept.any()) result.kept_different[each.slot] = kept;
  }
  // Makes durable what others wrote and this call relies on, and moves the log's sequence, by which
  // an earlier state of the folder is told.
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(
      rocksdb_status(batch.Put(db_->meta(), to_slice(kIngestedRow),
                               encode_u64(ingestions_.load(std::memory_order_relaxed))),
                     "making a batch"));
  if (!defect(Defect::kComparedIsNotSynced)) SLUICE_RETURN_IF_ERROR(write_durably(batch));
  return result;
}

absl::Status StoreImpl::choose_ways(std::vector<SlotWork>& work, bool tables) {
  for (SlotWork& each : work) {
    if (each.way == Way::kCompare) continue;
    each.before = digest(each.slot);
    SLUICE_ASSIGN_OR_RETURN(each.way, way_of(*db_, *each.rows, each.before));
    if (!tables) each.way = Way::kCompare;
  }
  return absl::OkStatus();
}

// False, with nothing changed, when a slot was written to while the tables were made: it goes
// record by record then.
absl::StatusOr<bool> StoreImpl::ingest_tables(std::vector<SlotWork>& work, const StampRange& stamps,
                                              BlockResult* result) {
  const uint64_t number = ingestions_.fetch_add(1, std::memory_order_relaxed);
  TableFiles files(*db_, fmt::format("{}/ingest/{}", options_.folder, number));
  std::vector<uint32_t> gates;
  for (const SlotWork& each : work) {
    if (each.way == Way::kCompare) continue;
    gates.push_back(each.slot);
    if (each.way != Way::kTable) continue;
    if (absl::Status status = put_slot(*db_, *sets_, *each.rows, files); !status.ok()) {
      return fail(status);
    }
  }
  if (gates.empty()) return true;
  if (absl::Status status = files.finish(); !status.ok()) return fail(status);

  SLUICE_ASSIGN_OR_RETURN(const std::shared_lock<WriteGate> gate, enter(stamps.largest));
  const SlotGates::Hold hold(slot_gates_, gates);
  bool undisturbed = true;
  for (SlotWork& each : work) {
    if (each.way == Way::kCompare || digests_[each.slot] == each.before) continue;
    if (defect(Defect::kIngestsOverWrites)) continue;
    each.way = Way::kCompare;
    undisturbed = false;
  }
  if (!undisturbed) return false;
  for (const SlotWork& each : work) {
    if (each.way != Way::kTable) continue;
    const SlotDigest after = sum_of(each.before, each.rows->digest());
    if (absl::Status status =
            files.put(db_->meta(), digest_row_key(each.slot), encode_digest(after));
        !status.ok()) {
      return fail(status);
    }
  }
  if (absl::Status status = files.ingest(); !status.ok()) return fail(status);
  result->after_cut = stamps.smallest <= last_cut_;
  for (const SlotWork& each : work) {
    const SlotDigest& added = each.rows->digest();
    const uint64_t count = added.records + added.tombstones;
    if (each.way == Way::kTable) {
      digests_[each.slot] = sum_of(each.before, added);
      result->changed += count;
    } else if (each.way == Way::kHere) {
      result->kept_newer += count;
      result->kept_equal += count;
    }
  }
  return true;
}

absl::Status StoreImpl::compare_slot(uint32_t slot, const SlotRows& slot_rows,
                                     const StampRange& stamps, BlockResult* result) {
  SLUICE_ASSIGN_OR_RETURN(const std::shared_lock<WriteGate> gate, enter(stamps.largest));
  const std::lock_guard slot_gate(slot_gates_.of(slot));
  result->after_cut = result->after_cut || stamps.smallest <= last_cut_;
  Mutation mutation(*db_, *sets_, digests_, /*repeats=*/slot_rows.has_rivals());
  const std::vector<IngestRow>& rows = slot_rows.rows();
  uint64_t ticket = 0;
  for (size_t i = 0; i < rows.size(); i += rows[i].pieces) {
    SLUICE_RETURN_IF_ERROR(
        put_record(mutation, slot, std::span(rows).subspan(i, rows[i].pieces), result));
    if (mutation.bytes() >= kBatchBytes) SLUICE_RETURN_IF_ERROR(commit(mutation, &ticket));
  }
  return commit(mutation, &ticket);
}

}  // namespace sluice
