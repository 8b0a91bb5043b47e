// Sorted table files of one ingestion: one for each column family, written beside the database and
// moved into it in one atomic step. Internal to dataplane/store.
#ifndef SLUICE_DATAPLANE_STORE_TABLE_FILES_H_
#define SLUICE_DATAPLANE_STORE_TABLE_FILES_H_

#include <rocksdb/sst_file_writer.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "dataplane/store/store_db.h"

namespace sluice {

// Confined to one thread.
class TableFiles {
 public:
  // `prefix`: of the files' paths, which nobody else uses, on the database's file system.
  TableFiles(const StoreDb& db, std::string prefix) : db_(db), prefix_(std::move(prefix)) {}
  // Removes what was not ingested.
  ~TableFiles();
  TableFiles(const TableFiles&) = delete;
  TableFiles& operator=(const TableFiles&) = delete;

  // Rows of a column family, in ascending order, each key once.
  absl::Status put(rocksdb::ColumnFamilyHandle* family, std::string_view key,
                   std::string_view value);
  // Completes the files of rows put so far: all are durable after it. More may be begun in other
  // column families.
  absl::Status finish();
  // Makes all rows visible at once, durably: either all of them survive a crash, or none.
  absl::Status ingest();

 private:
  struct File {
    rocksdb::ColumnFamilyHandle* family = nullptr;
    std::string path;
    std::unique_ptr<rocksdb::SstFileWriter> writer;  // null: complete
  };
  absl::Status open(rocksdb::ColumnFamilyHandle* family, File** file);
  absl::Status open(File& file, bool direct);

  static constexpr size_t kFamilies = 3;
  const StoreDb& db_;
  const std::string prefix_;
  std::array<File, kFamilies> files_;
  size_t used_ = 0;
  bool ingested_ = false;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_TABLE_FILES_H_
