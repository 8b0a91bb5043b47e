#include "dataplane/tree_source/tree_catalogue.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>

#include <utility>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

// Rows: entries by shard and path, files with several names by device and inode, and what the
// catalogue is.
constexpr char kEntryRow = 'e';
constexpr char kFileRow = 'f';
constexpr char kAboutRow[] = "about";
constexpr size_t kShardBytes = 4;
constexpr uint16_t kFormat = 2;
constexpr size_t kMemtableBytes = size_t{8} << 20;
constexpr size_t kCacheBytes = size_t{8} << 20;
constexpr size_t kMaxPathBytes = size_t{1} << 20;

absl::Status status_of(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  if (status.IsNoSpace()) return resource_exhausted("{}: the disk is full ({})", what, text);
  if (status.IsCorruption()) return data_loss("{}: {}", what, text);
  return unavailable("{}: {}", what, text);
}

void put_big_endian(uint64_t value, size_t bytes, std::string* out) {
  for (size_t i = bytes; i > 0; --i) out->push_back(static_cast<char>(value >> (8 * (i - 1))));
}

std::string shard_prefix(uint32_t shard) {
  std::string row(1, kEntryRow);
  put_big_endian(shard, kShardBytes, &row);
  return row;
}

std::string entry_row(uint32_t shard, std::string_view path) {
  return shard_prefix(shard).append(path);
}

std::string file_row(const FileId& file) {
  std::string row(1, kFileRow);
  put_big_endian(file.first, 8, &row);
  put_big_endian(file.second, 8, &row);
  return row;
}

struct StoredEntry {
  uint64_t look = 0;
  CatalogueEntry entry;

  std::string encode() const {
    std::string bytes;
    ByteWriter out(&bytes);
    out.put(look);
    out.put(static_cast<uint8_t>(entry.type));
    out.put(entry.identity.device);
    out.put(entry.identity.inode);
    out.put(entry.identity.links);
    out.put(static_cast<uint64_t>(entry.identity.ctime_ns));
    out.put(entry.size);
    if (entry.digest.has_value()) entry.digest->encode(out);
    return bytes;
  }
  bool decode(std::string_view bytes) {
    ByteReader in(bytes);
    uint8_t type = 0;
    uint64_t ctime = 0;
    if (!in.get(&look) || !in.get(&type) || !in.get(&entry.identity.device) ||
        !in.get(&entry.identity.inode) || !in.get(&entry.identity.links) || !in.get(&ctime) ||
        !in.get(&entry.size) || type > static_cast<uint8_t>(FileType::kSocket)) {
      return false;
    }
    entry.type = static_cast<FileType>(type);
    entry.identity.ctime_ns = static_cast<int64_t>(ctime);
    entry.digest.reset();
    if (in.done()) return true;
    SlotDigest digest;
    if (!SlotDigest::decode(in, &digest) || !in.done()) return false;
    entry.digest = digest;
    return true;
  }
};

// A file with several names.
struct StoredFile {
  uint64_t look = 0;
  std::string first;
  std::string met;   // which of them came first in that look
  std::string last;  // and which came last

  std::string encode() const {
    std::string bytes;
    ByteWriter out(&bytes);
    out.put(look);
    out.put_string(first);
    out.put_string(met);
    out.put_string(last);
    return bytes;
  }
  bool decode(std::string_view bytes) {
    ByteReader in(bytes);
    std::string_view names[3];
    if (!in.get(&look) || !in.get_string(&names[0], kMaxPathBytes) ||
        !in.get_string(&names[1], kMaxPathBytes) || !in.get_string(&names[2], kMaxPathBytes) ||
        !in.done()) {
      return false;
    }
    first = names[0];
    met = names[1];
    last = names[2];
    return true;
  }
};

struct About {
  uint32_t slot_bits = 0;
  uint64_t look = 0;   // the last one that was begun
  uint64_t ended = 0;  // the last one that was ended; 0: none

  std::string encode() const {
    std::string bytes;
    ByteWriter out(&bytes);
    out.put(kFormat);
    out.put(slot_bits);
    out.put(look);
    out.put(ended);
    return bytes;
  }
  bool decode(std::string_view bytes) {
    ByteReader in(bytes);
    uint16_t format = 0;
    return in.get(&format) && format == kFormat && in.get(&slot_bits) && in.get(&look) &&
           in.get(&ended) && in.done();
  }
};

absl::Status damaged(std::string_view row) {
  return data_loss("a row of {} bytes of the tree's catalogue is damaged", row.size());
}

rocksdb::Options options_of() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;
  table.block_cache = rocksdb::NewLRUCache(kCacheBytes);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  rocksdb::Options options;
  options.create_if_missing = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.compression = rocksdb::kLZ4Compression;
  options.write_buffer_size = kMemtableBytes;
  options.max_background_jobs = 1;
  options.max_open_files = 64;
  options.info_log_level = rocksdb::ERROR_LEVEL;
  options.keep_log_file_num = 1;
  return options;
}

class RocksCursor final : public TreeCatalogue::Cursor {
 public:
  RocksCursor(rocksdb::DB& db, uint32_t shard)
      : prefix_(shard_prefix(shard)), rows_(db.NewIterator(rocksdb::ReadOptions())) {
    rows_->Seek(prefix_);
  }
  absl::StatusOr<bool> next(std::string* path, CatalogueEntry* entry) override {
    if (!rows_->Valid() || !rows_->key().starts_with(prefix_)) {
      SLUICE_RETURN_IF_ERROR(status_of(rows_->status(), "reading the tree's catalogue"));
      return false;
    }
    StoredEntry stored;
    if (!stored.decode(rows_->value().ToStringView())) return damaged(rows_->key().ToStringView());
    path->assign(rows_->key().ToStringView().substr(prefix_.size()));
    *entry = stored.entry;
    rows_->Next();
    return true;
  }

 private:
  const std::string prefix_;
  const std::unique_ptr<rocksdb::Iterator> rows_;
};

class RocksCatalogue final : public TreeCatalogue {
 public:
  explicit RocksCatalogue(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {
    // What is lost in a crash is read again.
    write_.disableWAL = true;
  }

  absl::Status load(uint32_t slot_bits);
  absl::Status begin_look(bool rescan) override;
  absl::Status note(std::string_view path, const CatalogueEntry& entry) override;
  absl::StatusOr<TreeShards> end_look() override;
  absl::StatusOr<TreeShards> shards() override;
  std::unique_ptr<Cursor> entries(uint32_t shard) override {
    return std::make_unique<RocksCursor>(*db_, shard);
  }
  absl::StatusOr<std::optional<FileNames>> names_of(const FileId& file) override;
  absl::Status keep(std::string_view path, const CatalogueEntry& noted,
                    const CatalogueEntry& read) override;
  absl::Status flush() override;

 private:
  // Nothing where there is none.
  template <typename Row>
  absl::StatusOr<std::optional<Row>> get(const std::string& row);
  absl::Status put(const std::string& row, const std::string& value);
  absl::Status erase(const rocksdb::Slice& row);
  absl::Status note_name(std::string_view path, const FileId& file) SLUICE_REQUIRES(mutex_);
  absl::Status sweep_entries() SLUICE_REQUIRES(mutex_);
  absl::Status sweep_files() SLUICE_REQUIRES(mutex_);

  const std::unique_ptr<rocksdb::DB> db_;
  rocksdb::WriteOptions write_;
  uint32_t slot_bits_ = 0;
  Mutex mutex_;  // of whoever changes it
  About about_ SLUICE_GUARDED_BY(mutex_);
  bool rescan_ SLUICE_GUARDED_BY(mutex_) = false;
};

template <typename Row>
absl::StatusOr<std::optional<Row>> RocksCatalogue::get(const std::string& row) {
  std::string value;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), row, &value);
  if (status.IsNotFound()) return std::optional<Row>();
  SLUICE_RETURN_IF_ERROR(status_of(status, "reading the tree's catalogue"));
  Row stored;
  if (!stored.decode(value)) return damaged(row);
  return std::optional<Row>(std::move(stored));
}

absl::Status RocksCatalogue::put(const std::string& row, const std::string& value) {
  return status_of(db_->Put(write_, row, value), "writing the tree's catalogue");
}

absl::Status RocksCatalogue::erase(const rocksdb::Slice& row) {
  return status_of(db_->Delete(write_, row), "writing the tree's catalogue");
}

absl::Status RocksCatalogue::flush() {
  return status_of(db_->Flush(rocksdb::FlushOptions()), "flushing the tree's catalogue");
}

absl::Status RocksCatalogue::load(uint32_t slot_bits) {
  slot_bits_ = slot_bits;
  const MutexLock lock(mutex_);
  SLUICE_ASSIGN_OR_RETURN(const auto about, get<About>(kAboutRow));
  if (about.has_value()) about_ = *about;
  if (about.has_value() && about_.slot_bits != slot_bits) {
    return data_loss("the tree's catalogue has {} slot bits", about_.slot_bits);
  }
  about_.slot_bits = slot_bits;
  return absl::OkStatus();
}

absl::Status RocksCatalogue::begin_look(bool rescan) {
  const MutexLock lock(mutex_);
  rescan_ = rescan;
  ++about_.look;
  return put(kAboutRow, about_.encode());
}

absl::Status RocksCatalogue::note(std::string_view path, const CatalogueEntry& entry) {
  const std::string row = entry_row(tree_shard_of(path, slot_bits_), path);
  const MutexLock lock(mutex_);
  SLUICE_ASSIGN_OR_RETURN(const auto before, get<StoredEntry>(row));
  StoredEntry now{about_.look, entry};
  now.entry.digest.reset();
  if (!rescan_ && before.has_value() && before->entry.same_state(entry)) {
    now.entry.digest = before->entry.digest;
  }
  SLUICE_RETURN_IF_ERROR(put(row, now.encode()));
  if (entry.type == FileType::kDirectory || entry.identity.links < 2) return absl::OkStatus();
  return note_name(path, id_of(entry.identity));
}

absl::Status RocksCatalogue::note_name(std::string_view path, const FileId& file) {
  const std::string row = file_row(file);
  SLUICE_ASSIGN_OR_RETURN(auto stored, get<StoredFile>(row));
  if (!stored.has_value()) stored = StoredFile{0, std::string(path), "", ""};
  if (stored->look != about_.look) stored->met = path;
  stored->look = about_.look;
  stored->last = path;
  return put(row, stored->encode());
}

absl::StatusOr<TreeShards> RocksCatalogue::end_look() {
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(sweep_entries());
    SLUICE_RETURN_IF_ERROR(sweep_files());
    about_.ended = about_.look;
    SLUICE_RETURN_IF_ERROR(put(kAboutRow, about_.encode()));
  }
  SLUICE_RETURN_IF_ERROR(flush());
  return shards();
}

absl::Status RocksCatalogue::sweep_entries() {
  const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator(rocksdb::ReadOptions()));
  for (rows->Seek({&kEntryRow, 1}); rows->Valid() && rows->key()[0] == kEntryRow; rows->Next()) {
    StoredEntry stored;
    if (!stored.decode(rows->value().ToStringView())) return damaged(rows->key().ToStringView());
    if (stored.look != about_.look) SLUICE_RETURN_IF_ERROR(erase(rows->key()));
  }
  return status_of(rows->status(), "reading the tree's catalogue");
}

// Where the first name is not one of the file's any more, the one that was met takes its place.
absl::Status RocksCatalogue::sweep_files() {
  const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator(rocksdb::ReadOptions()));
  for (rows->Seek({&kFileRow, 1}); rows->Valid() && rows->key()[0] == kFileRow; rows->Next()) {
    StoredFile stored;
    if (!stored.decode(rows->value().ToStringView())) return damaged(rows->key().ToStringView());
    if (stored.look != about_.look) {
      SLUICE_RETURN_IF_ERROR(erase(rows->key()));
      continue;
    }
    SLUICE_ASSIGN_OR_RETURN(
        const auto first,
        get<StoredEntry>(entry_row(tree_shard_of(stored.first, slot_bits_), stored.first)));
    if (first.has_value() && first->look == about_.look &&
        rows->key() == file_row(id_of(first->entry.identity))) {
      continue;
    }
    stored.first = stored.met;
    SLUICE_RETURN_IF_ERROR(put(rows->key().ToString(), stored.encode()));
  }
  return status_of(rows->status(), "reading the tree's catalogue");
}

absl::StatusOr<TreeShards> RocksCatalogue::shards() {
  {
    const MutexLock lock(mutex_);
    if (about_.ended == 0) return not_found("the tree was not looked at yet");
  }
  TreeShards shards;
  const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator(rocksdb::ReadOptions()));
  for (rows->Seek({&kEntryRow, 1}); rows->Valid() && rows->key()[0] == kEntryRow; rows->Next()) {
    StoredEntry stored;
    const std::string_view row = rows->key().ToStringView();
    if (row.size() < 1 + kShardBytes || !stored.decode(rows->value().ToStringView())) {
      return damaged(row);
    }
    TreeShard& shard = shards[tree_shard_of(row.substr(1 + kShardBytes), slot_bits_)];
    const CatalogueEntry& entry = stored.entry;
    const uint64_t bytes = entry.type == FileType::kFile ? entry.size : 0;
    ++shard.entries;
    shard.bytes += bytes;
    if (entry.digest.has_value()) {
      shard.digest += *entry.digest;
    } else {
      shard.known = false;
      shard.unread_bytes += bytes;
    }
  }
  SLUICE_RETURN_IF_ERROR(status_of(rows->status(), "reading the tree's catalogue"));
  return shards;
}

absl::StatusOr<std::optional<FileNames>> RocksCatalogue::names_of(const FileId& file) {
  SLUICE_ASSIGN_OR_RETURN(auto stored, get<StoredFile>(file_row(file)));
  if (!stored.has_value()) return std::optional<FileNames>();
  const std::string& other = stored->last != stored->first ? stored->last : stored->met;
  return std::optional(FileNames{stored->first, other});
}

absl::Status RocksCatalogue::keep(std::string_view path, const CatalogueEntry& noted,
                                  const CatalogueEntry& read) {
  const std::string row = entry_row(tree_shard_of(path, slot_bits_), path);
  const MutexLock lock(mutex_);
  SLUICE_ASSIGN_OR_RETURN(auto stored, get<StoredEntry>(row));
  if (!stored.has_value() || !stored->entry.same_state(noted)) return absl::OkStatus();
  stored->entry = read;
  return put(row, stored->encode());
}

absl::StatusOr<std::unique_ptr<RocksCatalogue>> open_rocks(const std::string& directory,
                                                           uint32_t slot_bits) {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options_of(), directory, &db);
  SLUICE_RETURN_IF_ERROR(status_of(status, "opening the tree's catalogue"));
  auto catalogue = std::make_unique<RocksCatalogue>(std::unique_ptr<rocksdb::DB>(db));
  SLUICE_RETURN_IF_ERROR(catalogue->load(slot_bits));
  return catalogue;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TreeCatalogue>> TreeCatalogue::open(const std::string& directory,
                                                                   uint32_t slot_bits) {
  if (slot_bits < 1 || slot_bits > kMaxSlotBits) {
    return invalid_argument("a tree's catalogue of {} slot bits", slot_bits);
  }
  SLUICE_RETURN_IF_ERROR(make_folders(directory));
  auto catalogue = open_rocks(directory, slot_bits);
  if (absl::IsDataLoss(catalogue.status())) {
    SLUICE_RETURN_IF_ERROR(
        status_of(rocksdb::DestroyDB(directory, options_of()), "removing the tree's catalogue"));
    catalogue = open_rocks(directory, slot_bits);
  }
  SLUICE_RETURN_IF_ERROR(catalogue.status());
  return std::unique_ptr<TreeCatalogue>(*std::move(catalogue));
}

}  // namespace sluice
