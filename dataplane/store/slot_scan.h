// Reading records out of a StoreDb: fragmented values, and the scan of a slot.
#ifndef SLUICE_DATAPLANE_STORE_SLOT_SCAN_H_
#define SLUICE_DATAPLANE_STORE_SLOT_SCAN_H_

#include <rocksdb/iterator.h>
#include <rocksdb/options.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "dataplane/store/store.h"
#include "dataplane/store/store_db.h"

namespace sluice {

// Reads the rows of fragment sets. Confined to one thread; must be gone before the StoreDb and
// before the snapshot of its options.
class FragmentReader {
 public:
  FragmentReader(const StoreDb& db, const rocksdb::ReadOptions& options);

  // The value to read next.
  void select(uint32_t slot, std::string_view key, uint64_t set);
  // The stored bytes from `offset` to the end of the row that holds it: a view into RocksDB's
  // memory, valid until the next call. Never empty; DATA_LOSS where there is no such row.
  absl::StatusOr<std::string_view> row_from(uint64_t offset);
  absl::Status read(uint64_t offset, std::span<uint8_t> into);

 private:
  const std::unique_ptr<rocksdb::Iterator> rows_;
  std::string prefix_;
  bool positioned_ = false;
  uint64_t row_begin_ = 0;
};

// Scans of a cut's slots. A scan that ends leaves its iterator to the next one: for ascending slots
// most of what an iterator is made of (its blocks among it) is where the next scan needs it.
// Thread-safe; scans hold on to it, and it holds on to the StoreDb.
class CutScans : public std::enable_shared_from_this<CutScans> {
 public:
  explicit CutScans(std::shared_ptr<const StoreDb> db) : db_(std::move(db)) {}
  std::unique_ptr<SlotScan> scan(uint32_t slot);

  // An iterator over all records of the cut and where it stands.
  struct Rows {
    std::unique_ptr<rocksdb::Iterator> at;
    // Not 0: a scan went to the end of the slot before this one, so `at` is at the first row of
    // this slot or a later one, or behind the last.
    uint32_t next_slot = 0;
  };
  // The one that stands least far before `slot`, another one, or a new one.
  Rows take(uint32_t slot);
  void put(Rows rows);

  const StoreDb& db() const { return *db_; }

 private:
  // Each holds a block of each sorted run.
  static constexpr size_t kKept = 8;
  const std::shared_ptr<const StoreDb> db_;
  Mutex mutex_;
  std::vector<Rows> kept_ SLUICE_GUARDED_BY(mutex_);
};

// From a snapshot of the live store. Holds on to the StoreDb.
std::unique_ptr<SlotScan> make_live_scan(std::shared_ptr<const StoreDb> db, uint32_t slot,
                                         std::string_view first_key);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_SLOT_SCAN_H_
