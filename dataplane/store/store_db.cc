#include "dataplane/store/store_db.h"

#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/transaction_log.h>
#include <rocksdb/write_buffer_manager.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <utility>

#include "base/status.h"
#include "dataplane/store/error_log.h"
#include "dataplane/store/manifest_end.h"
#include "dataplane/store/slot_blocks.h"

namespace sluice {
namespace {

// Of one family. A cut, which is only read, has no more of them than it needs to be opened.
constexpr size_t kLeastMemtableBytes = size_t{256} << 10;

class SilentLogger final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

// RocksDB would try again by itself once a disk was full, and refuse the store's Resume()
// meanwhile.
class RecoversWhenTold final : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }
};

rocksdb::ColumnFamilyOptions family_options(size_t memtable_bytes,
                                            const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;
  table.block_size = kTableBlockBytes;
  table.flush_block_policy_factory = std::make_shared<SlotBlocks>();
  // With the first key of each block in the index a scan does not read the block behind its slot,
  // nor in any sorted run a block that begins behind it.
  table.index_type = rocksdb::BlockBasedTableOptions::kBinarySearchWithFirstKey;
  table.index_shortening = rocksdb::BlockBasedTableOptions::IndexShorteningMode::kNoShortening;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));

  rocksdb::ColumnFamilyOptions options;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = std::max(memtable_bytes, kLeastMemtableBytes);
  options.max_write_buffer_number = 2;
  // Most keys that are written are new: what is not in a memtable is known without searching it.
  options.memtable_whole_key_filtering = true;
  options.memtable_prefix_bloom_size_ratio = 0.02;
  // One place is remembered for all rows (the first byte of a slot is 0): what a batch brings is in
  // order. Batches that are written at the same time have one each (mutation.cc).
  options.memtable_insert_with_hint_prefix_extractor.reset(rocksdb::NewFixedPrefixTransform(1));
  options.target_file_size_base = uint64_t{128} << 20;
  // Fewer, larger merges: what is written in bulk is rewritten less often. Reads ask the filters.
  options.level0_file_num_compaction_trigger = 8;
  options.level0_slowdown_writes_trigger = 24;
  options.level0_stop_writes_trigger = 40;
  options.level_compaction_dynamic_level_bytes = true;
  return options;
}

std::vector<rocksdb::ColumnFamilyDescriptor> families(
    size_t memtable_bytes, const std::shared_ptr<rocksdb::Cache>& cache) {
  return {{rocksdb::kDefaultColumnFamilyName, family_options(memtable_bytes / 16, cache)},
          {"records", family_options(memtable_bytes / 2, cache)},
          {"fragments", family_options(memtable_bytes / 2, cache)},
          {"meta", family_options(memtable_bytes / 16, cache)}};
}

// Whether somebody has the store in `path` open. RocksDB's own lock is asked: it knows this process
// as well, and nobody else's lock goes with a file that is closed again.
bool is_locked(rocksdb::Env& env, const std::string& path) {
  const std::string file = path + "/LOCK";
  if (access(file.c_str(), W_OK) != 0) return false;
  rocksdb::FileLock* lock = nullptr;
  if (!env.LockFile(file, &lock).ok()) return true;
  env.UnlockFile(lock).PermitUncheckedError();
  return false;
}

}  // namespace

absl::Status rocksdb_status(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  if (status.IsNoSpace()) {
    return resource_exhausted("{}: the disk is full ({})", what, text);
  }
  if (status.IsCorruption()) return data_loss("{}: {}", what, text);
  if (status.IsNotFound()) return not_found("{}: {}", what, text);
  if (status.IsInvalidArgument()) return failed_precondition("{}: {}", what, text);
  return unavailable("{}: {}", what, text);
}

absl::StatusOr<std::unique_ptr<StoreDb>> StoreDb::open(const std::string& path,
                                                       size_t memtable_bytes,
                                                       const std::shared_ptr<rocksdb::Cache>& cache,
                                                       rocksdb::Env* env) {
  SLUICE_ASSIGN_OR_RETURN(const bool list_is_whole, manifest_ends_whole(path));
  auto logs = std::make_unique<StoreLogs>(env != nullptr ? env : rocksdb::Env::Default(), path);
  rocksdb::DBOptions options;
  options.env = logs->env();
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(memtable_bytes);
  // A family that is seldom written keeps old WAL files alive until it is flushed.
  options.max_total_wal_size = std::max<uint64_t>(memtable_bytes * 2, uint64_t{16} << 20);
  options.max_background_jobs = 2;
  options.max_open_files = 512;
  options.bytes_per_sync = 1 << 20;
  options.listeners.push_back(std::make_shared<RecoversWhenTold>());
  options.info_log = std::make_shared<ErrorLog>(path);
  // Compaction waits for whoever answers: leases, calls and blocks.
  options.env->LowerThreadPoolCPUPriority(rocksdb::Env::Priority::LOW, rocksdb::CpuPriority::kLow)
      .PermitUncheckedError();
  rocksdb::DB* db = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  const rocksdb::Status status =
      rocksdb::DB::Open(options, path, families(memtable_bytes, cache), &handles, &db);
  if (status.IsIOError() && is_locked(*options.env, path)) {
    return failed_precondition("the record store {} is open already, here or in another process",
                               path);
  }
  if (!status.ok()) return rocksdb_status(status, fmt::format("opening the record store {}", path));
  return std::unique_ptr<StoreDb>(
      new StoreDb(std::move(logs), db, std::move(handles), list_is_whole));
}

absl::StatusOr<std::unique_ptr<StoreDb>> StoreDb::open_read_only(
    const std::string& path, const std::shared_ptr<rocksdb::Cache>& cache, rocksdb::Env* env) {
  rocksdb::DBOptions options;
  if (env != nullptr) options.env = env;
  options.info_log = std::make_shared<SilentLogger>();
  options.max_open_files = 512;
  rocksdb::DB* db = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(
      options, path, families(kLeastMemtableBytes, cache), &handles, &db);
  if (!status.ok()) return rocksdb_status(status, fmt::format("opening the cut {}", path));
  return std::unique_ptr<StoreDb>(new StoreDb(nullptr, db, std::move(handles), true));
}

StoreDb::~StoreDb() {
  for (rocksdb::ColumnFamilyHandle* family : families_) db_->DestroyColumnFamilyHandle(family);
  // The return value says that a file could not be closed; what counts was synced before it was
  // acknowledged.
  (void)db_->Close();
}

absl::Status StoreDb::flush() {
  return rocksdb_status(db_->Flush(rocksdb::FlushOptions(), families_),
                        "writing memtables to disk");
}

absl::Status StoreDb::begin_flush() {
  rocksdb::FlushOptions options;
  options.wait = false;
  options.allow_write_stall = true;  // or it would wait here
  return rocksdb_status(db_->Flush(options, families_), "writing memtables to disk");
}

absl::Status StoreDb::sync_log() { return logs_->sync(); }

absl::Status StoreDb::resume() {
  SLUICE_RETURN_IF_ERROR(logs_->complete());
  SLUICE_RETURN_IF_ERROR(rocksdb_status(db_->Resume(), "resuming after the disk was full"));
  if (!logs_->closed_incomplete()) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(flush());
  logs_->are_in_tables();
  return logs_->lacks_nothing();
}

absl::Status StoreDb::lacks_nothing() const { return logs_->lacks_nothing(); }

absl::StatusOr<uint64_t> StoreDb::log_bytes() const {
  rocksdb::VectorLogPtr logs;
  SLUICE_RETURN_IF_ERROR(
      rocksdb_status(db_->GetSortedWalFiles(logs), "measuring the write-ahead log"));
  uint64_t bytes = 0;
  for (const auto& log : logs) bytes += log->SizeFileBytes();
  return bytes;
}

absl::StatusOr<bool> StoreDb::get_meta(std::string_view row, std::string* value) const {
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), meta(), to_slice(row), value);
  if (status.IsNotFound()) return false;
  if (!status.ok()) return rocksdb_status(status, fmt::format("reading row {}", row));
  return true;
}

}  // namespace sluice
