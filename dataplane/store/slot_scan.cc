#include "dataplane/store/slot_scan.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/status.h"
#include "dataplane/store/store_format.h"

namespace sluice {

FragmentReader::FragmentReader(const StoreDb& db, const rocksdb::ReadOptions& options)
    : rows_(db->NewIterator(options, db.fragments())) {}

void FragmentReader::select(uint32_t slot, std::string_view key, uint64_t set) {
  prefix_ = fragment_row_prefix(slot, key, set);
  positioned_ = false;
}

absl::StatusOr<std::string_view> FragmentReader::row_from(uint64_t offset) {
  const uint64_t begin = fragment_row_begin(offset);
  if (!positioned_ || begin != row_begin_) {
    const std::string row = fragment_row_key(prefix_, begin);
    if (positioned_ && begin == row_begin_ + kFragmentRowBytes) {
      rows_->Next();
    } else {
      rows_->Seek(row);
    }
    row_begin_ = begin;
    positioned_ = rows_->Valid() && to_view(rows_->key()) == row;
    SLUICE_RETURN_IF_ERROR(rocksdb_status(rows_->status(), "reading a value's fragments"));
  }
  if (!positioned_ || offset - begin >= rows_->value().size()) {
    return data_loss("a value's fragment at offset {} is missing", offset);
  }
  return to_view(rows_->value()).substr(offset - begin);
}

absl::Status FragmentReader::read(uint64_t offset, std::span<uint8_t> into) {
  while (!into.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const std::string_view bytes, row_from(offset));
    const size_t size = std::min(bytes.size(), into.size());
    std::memcpy(into.data(), bytes.data(), size);
    into = into.subspan(size);
    offset += size;
  }
  return absl::OkStatus();
}

namespace {

// A slot's rows, at whichever of them `rows_` stands.
class DbSlotScan : public SlotScan {
 public:
  absl::Status read_value(uint64_t offset, std::span<uint8_t> into) override {
    if (!at_record_) return failed_precondition("the scan is at no record");
    const uint64_t value_bytes = stored_.summary.value_bytes;
    if (offset > value_bytes || into.size() > value_bytes - offset) {
      return out_of_range("bytes {} to {} of a value of {}", offset, offset + into.size(),
                          value_bytes);
    }
    if (into.empty()) return absl::OkStatus();
    if (!stored_.fragmented) {
      std::memcpy(into.data(), stored_.inline_value.data() + offset, into.size());
      return absl::OkStatus();
    }
    if (!fragments_) fragments_.emplace(db_, options_);
    if (!selected_) {
      fragments_->select(slot_, key_, stored_.set);
      selected_ = true;
    }
    return fragments_->read(offset, into);
  }

 protected:
  DbSlotScan(const StoreDb& db, uint32_t slot, const rocksdb::ReadOptions& options)
      : db_(db), slot_(slot), options_(options) {}

  // The record that the iterator is at.
  absl::StatusOr<bool> take_row(const rocksdb::Iterator& rows, Item* item) {
    const std::string_view row_key = to_view(rows.key());
    if (row_key.size() <= sizeof(uint32_t) || !decode_stored(to_view(rows.value()), &stored_)) {
      at_record_ = false;
      return data_loss("a record of slot {} is stored in no known form", slot_);
    }
    key_ = row_key.substr(sizeof(uint32_t));
    at_record_ = true;
    selected_ = false;
    item->key = key_;
    item->summary = stored_.summary;
    item->inline_value = stored_.inline_value;
    return true;
  }
  absl::StatusOr<bool> end(const rocksdb::Iterator& rows) {
    at_record_ = false;
    if (!rows.Valid()) {
      SLUICE_RETURN_IF_ERROR(rocksdb_status(rows.status(), fmt::format("reading slot {}", slot_)));
    }
    return false;
  }
  void end_fragments() { fragments_.reset(); }

  const StoreDb& db_;
  const uint32_t slot_;
  const rocksdb::ReadOptions options_;

 private:
  std::optional<FragmentReader> fragments_;
  StoredRecord stored_;
  std::string_view key_;
  bool at_record_ = false;
  bool selected_ = false;  // fragments_ is at the current record
};

rocksdb::ReadOptions scan_options(const rocksdb::Snapshot* snapshot) {
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  options.fill_cache = false;
  return options;
}

class LiveScan final : public DbSlotScan {
 public:
  LiveScan(std::shared_ptr<const StoreDb> db, uint32_t slot, std::string_view first_key)
      : DbSlotScan(*db, slot, scan_options((*db)->GetSnapshot())),
        owner_(std::move(db)),
        first_row_(record_row_key(slot, first_key)),
        bound_(slot_row_prefix(slot + 1)),
        bound_slice_(bound_) {
    rocksdb::ReadOptions bounded = options_;
    bounded.iterate_upper_bound = &bound_slice_;
    rows_.reset(db_->NewIterator(bounded, db_.records()));
  }
  ~LiveScan() override {
    end_fragments();
    rows_.reset();
    db_->ReleaseSnapshot(options_.snapshot);
  }

  absl::StatusOr<bool> next(Item* item) override {
    if (!begun_) {
      rows_->Seek(first_row_);
      begun_ = true;
    } else if (rows_->Valid()) {
      rows_->Next();
    }
    return rows_->Valid() ? take_row(*rows_, item) : end(*rows_);
  }

 private:
  const std::shared_ptr<const StoreDb> owner_;
  const std::string first_row_;
  const std::string bound_;
  const rocksdb::Slice bound_slice_;
  std::unique_ptr<rocksdb::Iterator> rows_;
  bool begun_ = false;
};

class CutScan final : public DbSlotScan {
 public:
  CutScan(std::shared_ptr<CutScans> scans, uint32_t slot)
      : DbSlotScan(scans->db(), slot, scan_options(nullptr)),
        scans_(std::move(scans)),
        rows_(scans_->take(slot)) {}
  ~CutScan() override {
    end_fragments();
    scans_->put(std::move(rows_));
  }

  // There is no bound: it would have to be compared with each key, and to be another one for each
  // slot.
  absl::StatusOr<bool> next(Item* item) override {
    rocksdb::Iterator& at = *rows_.at;
    switch (place_) {
      case Place::kBefore:
        if (rows_.next_slot == 0 || rows_.next_slot > slot_ || slot_here() < slot_) {
          at.Seek(slot_row_prefix(slot_));
        }
        rows_.next_slot = 0;
        place_ = Place::kWithin;
        break;
      case Place::kWithin:
        at.Next();
        break;
      case Place::kBehind:
        return false;
    }
    if (at.Valid() && slot_here() == slot_) return take_row(at, item);
    if (at.Valid()) rows_.next_slot = slot_ + 1;
    place_ = Place::kBehind;
    return end(at);
  }

 private:
  enum class Place : uint8_t { kBefore, kWithin, kBehind };
  // Of the row that the iterator is at; no slot's number when it is at none.
  uint32_t slot_here() const {
    if (!rows_.at->Valid()) return 0;
    const rocksdb::Slice key = rows_.at->key();
    return key.size() < sizeof(uint32_t) ? ~uint32_t{0} : get_big_endian32(key.data());
  }

  const std::shared_ptr<CutScans> scans_;
  CutScans::Rows rows_;
  Place place_ = Place::kBefore;
};

}  // namespace

std::unique_ptr<SlotScan> CutScans::scan(uint32_t slot) {
  return std::make_unique<CutScan>(shared_from_this(), slot);
}

CutScans::Rows CutScans::take(uint32_t slot) {
  {
    const MutexLock lock(mutex_);
    auto best = kept_.begin();
    const auto rank = [slot](const Rows& rows) {
      return rows.next_slot <= slot ? rows.next_slot : 0;
    };
    for (auto rows = kept_.begin(); rows != kept_.end(); ++rows) {
      if (rank(*rows) > rank(*best)) best = rows;
    }
    if (best != kept_.end()) {
      Rows taken = std::move(*best);
      kept_.erase(best);
      return taken;
    }
  }
  return {std::unique_ptr<rocksdb::Iterator>(
      (*db_)->NewIterator(scan_options(nullptr), db_->records()))};
}

void CutScans::put(Rows rows) {
  if (!rows.at->Valid()) rows.next_slot = 0;
  if (!rows.at->status().ok()) return;
  const MutexLock lock(mutex_);
  if (kept_.size() < kKept) kept_.push_back(std::move(rows));
}

std::unique_ptr<SlotScan> make_live_scan(std::shared_ptr<const StoreDb> db, uint32_t slot,
                                         std::string_view first_key) {
  return std::make_unique<LiveScan>(std::move(db), slot, first_key);
}

}  // namespace sluice
