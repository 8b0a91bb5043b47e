// The RocksDB of a store or of a cut: its options, its column families, and its errors as Status.
#ifndef SLUICE_DATAPLANE_STORE_STORE_DB_H_
#define SLUICE_DATAPLANE_STORE_STORE_DB_H_

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/store/store_logs.h"

namespace sluice {

// "what: RocksDB's message". A full disk becomes RESOURCE_EXHAUSTED, damage DATA_LOSS, a lock held
// by somebody else FAILED_PRECONDITION, any other failure of the disk UNAVAILABLE.
absl::Status rocksdb_status(const rocksdb::Status& status, std::string_view what);

inline rocksdb::Slice to_slice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
inline std::string_view to_view(const rocksdb::Slice& slice) {
  return {slice.data(), slice.size()};
}

// Thread-safe. Everything read from it (iterators, pinned slices) must be gone before it is.
class StoreDb {
 public:
  // Memory: at most about memtable_bytes of memtables, and what `cache` holds (index and filter
  // blocks included). `env` outlives it; null: RocksDB's own.
  static absl::StatusOr<std::unique_ptr<StoreDb>> open(const std::string& path,
                                                       size_t memtable_bytes,
                                                       const std::shared_ptr<rocksdb::Cache>& cache,
                                                       rocksdb::Env* env = nullptr);
  // Writes nothing into the folder.
  static absl::StatusOr<std::unique_ptr<StoreDb>> open_read_only(
      const std::string& path, const std::shared_ptr<rocksdb::Cache>& cache,
      rocksdb::Env* env = nullptr);
  ~StoreDb();
  StoreDb(const StoreDb&) = delete;
  StoreDb& operator=(const StoreDb&) = delete;

  rocksdb::DB* operator->() const { return db_.get(); }
  rocksdb::DB* get() const { return db_.get(); }
  rocksdb::ColumnFamilyHandle* records() const { return families_[1]; }
  rocksdb::ColumnFamilyHandle* fragments() const { return families_[2]; }
  rocksdb::ColumnFamilyHandle* meta() const { return families_[3]; }

  // Writes all memtables to files, durably.
  absl::Status flush();
  // Has it done in the background.
  absl::Status begin_flush();
  // Makes durable what was written before the call.
  absl::Status sync_log();
  // After the disk was full: everything that was written is durable when this succeeds.
  absl::Status resume();
  // StoreLogs::lacks_nothing().
  absl::Status lacks_nothing() const;
  // Of the write-ahead log that is kept: more than what is in memtables alone, because a family
  // that is seldom written keeps it.
  absl::StatusOr<uint64_t> log_bytes() const;
  // False when what was opened may lack table files (manifest_end.h).
  bool list_was_whole() const { return list_was_whole_; }
  // A row of `meta`; false when it is not there.
  absl::StatusOr<bool> get_meta(std::string_view row, std::string* value) const;
  // Calls `visit` with (row key behind the prefix, value) for each row of `meta` that begins with
  // the prefix.
  template <typename Visit>
  absl::Status each_meta(std::string_view prefix, Visit visit) const {
    const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator(rocksdb::ReadOptions(), meta()));
    for (rows->Seek(to_slice(prefix)); rows->Valid() && rows->key().starts_with(to_slice(prefix));
         rows->Next()) {
      if (absl::Status status =
              visit(to_view(rows->key()).substr(prefix.size()), to_view(rows->value()));
          !status.ok()) {
        return status;
      }
    }
    return rocksdb_status(rows->status(), "reading the store's own rows");
  }

 private:
  StoreDb(std::unique_ptr<StoreLogs> logs, rocksdb::DB* db,
          std::vector<rocksdb::ColumnFamilyHandle*> families, bool list_was_whole)
      : logs_(std::move(logs)),
        db_(db),
        families_(std::move(families)),
        list_was_whole_(list_was_whole) {}

  const std::unique_ptr<StoreLogs> logs_;  // null when nothing is written
  std::unique_ptr<rocksdb::DB> db_;
  const std::vector<rocksdb::ColumnFamilyHandle*> families_;
  const bool list_was_whole_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_STORE_DB_H_
