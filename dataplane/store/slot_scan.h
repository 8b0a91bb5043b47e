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

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

// From a snapshot of the live store (`live`) or from a cut. Holds on to the StoreDb.
std::unique_ptr<SlotScan> make_slot_scan(std::shared_ptr<const StoreDb> db, uint32_t slot,
                                         std::string_view first_key, bool live);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_SLOT_SCAN_H_
