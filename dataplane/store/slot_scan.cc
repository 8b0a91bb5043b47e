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

absl::StatusOr<std::string> SlotScan::value(const Item& item) {
  std::string bytes(item.summary.value_bytes, '\0');
  SLUICE_RETURN_IF_ERROR(read_value(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  return bytes;
}

namespace {

class DbSlotScan final : public SlotScan {
 public:
  DbSlotScan(std::shared_ptr<const StoreDb> db, uint32_t slot, std::string_view first_key,
             bool live)
      : db_(std::move(db)),
        slot_(slot),
        first_row_(record_row_key(slot, first_key)),
        bound_(slot_row_prefix(slot + 1)),
        bound_slice_(bound_),
        snapshot_(live ? (*db_)->GetSnapshot() : nullptr) {
    options_.snapshot = snapshot_;
    options_.fill_cache = false;
    rocksdb::ReadOptions bounded = options_;
    bounded.iterate_upper_bound = &bound_slice_;
    rows_.reset((*db_)->NewIterator(bounded, db_->records()));
  }

  ~DbSlotScan() override {
    fragments_.reset();
    rows_.reset();
    if (snapshot_ != nullptr) (*db_)->ReleaseSnapshot(snapshot_);
  }

  absl::StatusOr<bool> next(Item* item) override {
    if (!begun_) {
      rows_->Seek(first_row_);
      begun_ = true;
    } else if (rows_->Valid()) {
      rows_->Next();
    }
    selected_ = false;
    if (!rows_->Valid()) {
      SLUICE_RETURN_IF_ERROR(
          rocksdb_status(rows_->status(), fmt::format("reading slot {}", slot_)));
      return false;
    }
    if (rows_->key().size() <= sizeof(uint32_t) ||
        !decode_stored(to_view(rows_->value()), &stored_)) {
      return data_loss("a record of slot {} is stored in no known form", slot_);
    }
    item->key = to_view(rows_->key()).substr(sizeof(uint32_t));
    item->summary = stored_.summary;
    return true;
  }

  absl::Status read_value(uint64_t offset, std::span<uint8_t> into) override {
    if (!begun_ || !rows_->Valid()) return failed_precondition("the scan is at no record");
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
    if (!fragments_) fragments_.emplace(*db_, options_);
    if (!selected_) {
      fragments_->select(slot_, to_view(rows_->key()).substr(sizeof(uint32_t)), stored_.set);
      selected_ = true;
    }
    return fragments_->read(offset, into);
  }

 private:
  const std::shared_ptr<const StoreDb> db_;
  const uint32_t slot_;
  const std::string first_row_;
  const std::string bound_;
  const rocksdb::Slice bound_slice_;
  const rocksdb::Snapshot* const snapshot_;
  rocksdb::ReadOptions options_;
  std::unique_ptr<rocksdb::Iterator> rows_;
  std::optional<FragmentReader> fragments_;
  StoredRecord stored_;
  bool begun_ = false;
  bool selected_ = false;  // fragments_ is at the current record
};

}  // namespace

std::unique_ptr<SlotScan> make_slot_scan(std::shared_ptr<const StoreDb> db, uint32_t slot,
                                         std::string_view first_key, bool live) {
  return std::make_unique<DbSlotScan>(std::move(db), slot, first_key, live);
}

}  // namespace sluice
