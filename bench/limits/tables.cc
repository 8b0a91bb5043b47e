// RocksDB without the project's store on it, with the table options that the store uses: values in
// rows of at most 128 KiB, XXH3 block checksums, no compression.
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <memory>

#include "base/checksum.h"
#include "bench/limits/limits.h"

namespace sluice::limits {
namespace {

constexpr size_t kRowBytes = size_t{128} << 10;
constexpr size_t kTableBytes = size_t{128} << 20;
constexpr size_t kMemtableBytes = size_t{64} << 20;
constexpr size_t kBatchBytes = size_t{1} << 20;
constexpr size_t kReplicas = 3;
constexpr size_t kWritersOfReplica = 2;
// Small values are slow: fewer bytes of them take as long.
constexpr uint64_t kBytes = uint64_t{512} << 20;
constexpr uint64_t kSmallBytes = uint64_t{192} << 20;
constexpr size_t kSmallValue = 1024;
// Of the bytes above, so that as much is written as the imports write that are measured beside it,
// and tables are merged as often.
constexpr double kScatteredShare = 2.3;
constexpr double kSmallScatteredShare = 1;

void check(const rocksdb::Status& status, const char* what) {
  if (!status.ok()) die(std::string(what) + ": " + status.ToString());
}

rocksdb::Options table_options() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;
  table.block_size = size_t{64} << 10;
  table.cache_index_and_filter_blocks = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  rocksdb::Options options;
  options.create_if_missing = true;
  options.compression = rocksdb::kNoCompression;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.write_buffer_size = kMemtableBytes / 4;
  options.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(kMemtableBytes);
  options.max_total_wal_size = 2 * kMemtableBytes;
  options.target_file_size_base = kTableBytes;
  options.level_compaction_dynamic_level_bytes = true;
  options.level0_file_num_compaction_trigger = 8;
  options.level0_slowdown_writes_trigger = 24;
  options.level0_stop_writes_trigger = 40;
  options.bytes_per_sync = 1 << 20;
  return options;
}

// A database in a directory of its own, which goes with it.
class Database {
 public:
  explicit Database(std::string path) : path_(std::move(path)) {
    rocksdb::DB* made = nullptr;
    check(rocksdb::DB::Open(table_options(), path_, &made), "opening a database");
    db_.reset(made);
  }
  ~Database() {
    db_.reset();
    std::filesystem::remove_all(path_);
  }
  rocksdb::DB* operator->() const { return db_.get(); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  std::unique_ptr<rocksdb::DB> db_;
};

using Key = std::array<uint8_t, 20>;  // compares as RocksDB compares

// The order in which rows are written.
enum class Order : uint8_t {
  kOfKeys,     // nothing is ever merged
  kScattered,  // as clients' keys arrive: each batch, sorted, goes all over the database
};

// As the store's rows: slot, key, and the offset of a large value's row.
Key key_of(uint64_t number, uint64_t offset) {
  Key key;
  number = __builtin_bswap64(number);
  offset = __builtin_bswap64(offset);
  std::memcpy(key.data(), "slot", 4);
  std::memcpy(key.data() + 4, &number, sizeof number);
  std::memcpy(key.data() + 12, &offset, sizeof offset);
  return key;
}
const Key kBehindAll = key_of(~uint64_t{0}, ~uint64_t{0});

rocksdb::Slice to_slice(const Key& key) {
  return {reinterpret_cast<const char*>(key.data()), key.size()};
}

// Records whose values come from cold memory.
class Rows {
 public:
  Rows(const ColdMemory& memory, size_t value_bytes, double scale, Order order)
      : memory_(memory),
        order_(order),
        value_bytes_(value_bytes),
        rows_of_value_((value_bytes + kRowBytes - 1) / kRowBytes) {
    const uint64_t bytes = value_bytes < kSmallValue ? kSmallBytes : kBytes;
    values_ =
        std::max<size_t>(static_cast<size_t>(static_cast<double>(bytes) * scale) / value_bytes, 64);
  }
  size_t rows() const { return values_ * rows_of_value_; }
  uint64_t bytes() const { return uint64_t{values_} * value_bytes_; }

  Order order() const { return order_; }

  Key key(size_t row) const {
    if (order_ == Order::kScattered) {
      return key_of(uint64_t{row} * 0x9e3779b97f4a7c15, 0);  // odd: no two rows share a key
    }
    return key_of(row / rows_of_value_, row % rows_of_value_ * kRowBytes);
  }
  rocksdb::Slice value(size_t row) const {
    const size_t in_value = row % rows_of_value_ * kRowBytes;
    const size_t size = std::min(kRowBytes, value_bytes_ - in_value);
    const size_t at = (row / rows_of_value_ * value_bytes_ + in_value) % (memory_.size() - size);
    return {reinterpret_cast<const char*>(memory_.data() + at), size};
  }

 private:
  const ColdMemory& memory_;
  const Order order_;
  const size_t value_bytes_;
  const size_t rows_of_value_;
  size_t values_ = 0;
};

struct Range {
  size_t begin = 0;
  size_t end = 0;
};
Range part(size_t all, size_t i, size_t parts) { return {all * i / parts, all * (i + 1) / parts}; }

// The rows of a range as sorted tables; their paths.
std::vector<std::string> build_tables(const Rows& rows, Range range, const std::string& prefix) {
  std::vector<std::string> paths;
  const rocksdb::Options options = table_options();
  std::unique_ptr<rocksdb::SstFileWriter> writer;
  const auto finish = [&] {
    if (writer != nullptr) check(writer->Finish(), "finishing a table");
    writer.reset();
  };
  for (size_t row = range.begin; row < range.end; ++row) {
    if (writer == nullptr) {
      // The tables are scanned next, as a store's newest ones are: from the page cache.
      writer = std::make_unique<rocksdb::SstFileWriter>(rocksdb::EnvOptions(options), options,
                                                        nullptr, /*invalidate_page_cache=*/false);
      paths.push_back(prefix + std::to_string(paths.size()));
      check(writer->Open(paths.back()), "opening a table");
    }
    check(writer->Put(to_slice(rows.key(row)), rows.value(row)), "adding to a table");
    if (writer->FileSize() >= kTableBytes) finish();
  }
  finish();
  return paths;
}

Sample ingest(const Settings& settings, const Rows& rows, const Database& db, size_t value_bytes) {
  std::vector<std::vector<std::string>> built(settings.threads);
  const Meter meter;
  on_threads(settings.threads, [&](size_t i) {
    built[i] = build_tables(rows, part(rows.rows(), i, settings.threads),
                            settings.directory + "/table-" + std::to_string(i) + "-");
  });
  std::vector<std::string> all;
  for (const auto& paths : built) all.insert(all.end(), paths.begin(), paths.end());
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  check(db->IngestExternalFile(all, options), "ingesting tables");
  return meter.stop("sst_ingest", value_bytes, rows.bytes());
}

// The first key that the `i`th of several threads scans.
Key first_key(const Settings& settings, const Rows& rows, size_t i) {
  if (i == settings.threads) return kBehindAll;
  if (rows.order() == Order::kScattered) return key_of(~uint64_t{0} / settings.threads * i, 0);
  return rows.key(part(rows.rows(), i, settings.threads).begin);
}

Sample scan(const Settings& settings, const Rows& rows, const Database& db, size_t value_bytes,
            std::string_view name) {
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> sum{0};
  const Meter meter;
  on_threads(settings.threads, [&](size_t i) {
    const Key begin = first_key(settings, rows, i);
    const Key end = first_key(settings, rows, i + 1);
    const rocksdb::Slice bound = to_slice(end);
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    options.iterate_upper_bound = &bound;
    const std::unique_ptr<rocksdb::Iterator> at(db->NewIterator(options));
    uint64_t found = 0;
    uint64_t seen = 0;
    for (at->Seek(to_slice(begin)); at->Valid(); at->Next()) {
      found += xxh3_64(at->value().data(), at->value().size());
      seen += at->value().size();
    }
    check(at->status(), "scanning");
    bytes += seen;
    sum += found;
  });
  const Sample sample = meter.stop(name, value_bytes, bytes);
  if (bytes != rows.bytes()) die("a scan did not find every row");
  return sample;
}

// One that finds the tables open.
Sample second_scan(const Settings& settings, const Rows& rows, const Database& db,
                   size_t value_bytes, std::string_view name) {
  scan(settings, rows, db, value_bytes, name);
  return scan(settings, rows, db, value_bytes, name);
}

void write_batch(const Database& db, const Rows& rows, Range range) {
  std::vector<std::pair<Key, size_t>> keys;
  for (size_t row = range.begin; row < range.end; ++row) keys.emplace_back(rows.key(row), row);
  std::sort(keys.begin(), keys.end());
  rocksdb::WriteBatch batch;
  for (const auto& [key, row] : keys) {
    check(batch.Put(to_slice(key), rows.value(row)), "adding to a batch");
  }
  rocksdb::WriteOptions options;
  options.sync = true;
  check(db->Write(options, &batch), "writing a batch");
}

using Replicas = std::vector<std::unique_ptr<Database>>;

Sample write_batches(const Rows& rows, const Replicas& replicas, size_t value_bytes,
                     std::string_view name) {
  const size_t batch_rows = std::max<size_t>(kBatchBytes / std::min(value_bytes, kRowBytes), 1);
  std::atomic<size_t> next[kReplicas] = {};
  const Meter meter;
  on_threads(kReplicas * kWritersOfReplica, [&](size_t i) {
    const size_t replica = i % kReplicas;
    for (;;) {
      const size_t begin = next[replica].fetch_add(batch_rows);
      if (begin >= rows.rows()) return;
      const Range range{begin, std::min(begin + batch_rows, rows.rows())};
      write_batch(*replicas[replica], rows, range);
    }
  });
  return meter.stop(name, value_bytes, rows.bytes());
}

Replicas new_replicas(const Settings& settings) {
  Replicas replicas;
  for (size_t i = 0; i < kReplicas; ++i) {
    const std::string path = settings.directory + "/replica-" + std::to_string(i);
    replicas.push_back(std::make_unique<Database>(path));
  }
  return replicas;
}

}  // namespace

std::vector<Sample> measure_tables(const Settings& settings, size_t value_bytes) {
  const ColdMemory memory;
  const Rows rows(memory, value_bytes, settings.scale, Order::kOfKeys);
  const Database db(settings.directory + "/db");
  std::vector<Sample> samples = {ingest(settings, rows, db, value_bytes)};
  samples.push_back(second_scan(settings, rows, db, value_bytes, "scan"));
  return samples;
}

std::vector<Sample> measure_write_batches(const Settings& settings, size_t value_bytes) {
  const ColdMemory memory;
  std::vector<Sample> samples;
  {
    const Rows rows(memory, value_bytes, settings.scale / 2, Order::kOfKeys);
    const Replicas replicas = new_replicas(settings);
    samples.push_back(write_batches(rows, replicas, value_bytes, "write_batch_x3"));
  }
  const Rows rows(
      memory, value_bytes,
      settings.scale * (value_bytes < kSmallValue ? kSmallScatteredShare : kScatteredShare),
      Order::kScattered);
  const Replicas replicas = new_replicas(settings);
  samples.push_back(write_batches(rows, replicas, value_bytes, "write_batch_x3_scattered"));
  for (const auto& replica : replicas) check((*replica)->Flush({}), "writing memtables to disk");
  samples.push_back(second_scan(settings, rows, *replicas.front(), value_bytes, "scan_scattered"));
  return samples;
}

}  // namespace sluice::limits
