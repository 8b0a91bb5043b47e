// RocksDB's own BackupEngine, as a reference for bench/run peers: one database that holds each
// record once, backed up and restored on one machine, durably, by two threads.
//
//   rocksdb_backup load DB FILE VALUE_BYTES    makes DB of the file's bytes, cut into values
//   rocksdb_backup backup DB DIR
//   rocksdb_backup restore DIR DB
//
// The engine checks files by CRC32C, which is slow where the build of RocksDB does not use the
// processor's instructions for it.
#include <rocksdb/db.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/backup_engine.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

namespace {

constexpr int kThreads = 2;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "rocksdb_backup: %s\n", what.c_str());
  std::exit(1);
}

void check(const rocksdb::Status& status, const char* what) {
  if (!status.ok()) die(std::string(what) + ": " + status.ToString());
}

std::unique_ptr<rocksdb::DB> open(const std::string& path, bool create) {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.block_size = size_t{64} << 10;
  rocksdb::Options options;
  options.create_if_missing = create;
  options.error_if_exists = create;
  options.compression = rocksdb::kNoCompression;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  rocksdb::DB* db = nullptr;
  check(rocksdb::DB::Open(options, path, &db), "opening the database");
  return std::unique_ptr<rocksdb::DB>(db);
}

void load(const std::string& path, const std::string& file, size_t value_bytes) {
  const auto db = open(path, true);
  std::ifstream in(file, std::ios::binary);
  std::string value(value_bytes, '\0');
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  char key[32];
  for (unsigned long long i = 0; in.read(value.data(), static_cast<std::streamsize>(value_bytes));
       ++i) {
    std::snprintf(key, sizeof key, "key-%012llu", i);
    check(db->Put(options, key, value), "writing");
  }
  if (!in.eof() || in.gcount() != 0) die(file + " is not readable in whole values");
  check(db->Flush({}), "flushing");
  check(db->CompactRange({}, nullptr, nullptr), "compacting");
}

rocksdb::BackupEngineOptions engine_options(const std::string& directory) {
  rocksdb::BackupEngineOptions options(directory);
  options.max_background_operations = kThreads;
  return options;
}

void backup(const std::string& path, const std::string& directory) {
  const auto db = open(path, false);
  rocksdb::BackupEngine* made = nullptr;
  check(rocksdb::BackupEngine::Open(rocksdb::Env::Default(), engine_options(directory), &made),
        "opening the backups");
  const std::unique_ptr<rocksdb::BackupEngine> engine(made);
  check(engine->CreateNewBackup(db.get()), "backing up");
}

void restore(const std::string& directory, const std::string& path) {
  rocksdb::BackupEngineReadOnly* made = nullptr;
  check(rocksdb::BackupEngineReadOnly::Open(rocksdb::Env::Default(), engine_options(directory),
                                            &made),
        "opening the backups");
  const std::unique_ptr<rocksdb::BackupEngineReadOnly> engine(made);
  check(engine->RestoreDBFromLatestBackup(path, path), "restoring");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "load" && argc == 5) {
    load(argv[2], argv[3], std::strtoull(argv[4], nullptr, 10));
  } else if (command == "backup" && argc == 4) {
    backup(argv[2], argv[3]);
  } else if (command == "restore" && argc == 4) {
    restore(argv[2], argv[3]);
  } else {
    die("load DB FILE VALUE_BYTES, backup DB DIR, or restore DIR DB");
  }
}
