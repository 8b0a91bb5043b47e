#include "dataplane/store/store_logs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/file_system.h>

#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dataplane/store/store_db.h"
#include "tests/dataplane/temp_folder.h"

namespace sluice {
namespace {

using rocksdb::IOStatus;

struct Disk {
  bool full = false;
  bool fails_to_write = false;
  bool fails_to_sync = false;
  std::function<void()> in_sync;
  std::vector<std::string> events;  // of logs: "begin N", "write N", "sync N"
};

class LogOnDisk final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  LogOnDisk(std::unique_ptr<rocksdb::FSWritableFile> file, std::string name, Disk* disk)
      : FSWritableFileOwnerWrapper(std::move(file)), name_(std::move(name)), disk_(disk) {}

  using FSWritableFileOwnerWrapper::PositionedAppend;
  IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t offset,
                            const rocksdb::IOOptions& options,
                            rocksdb::IODebugContext* context) override {
    disk_->events.push_back("write " + name_);
    if (disk_->fails_to_write) return IOStatus::IOError("no write");
    if (!disk_->full) return target()->PositionedAppend(data, offset, options, context);
    // Half of it is on the disk.
    EXPECT_TRUE(
        target()->PositionedAppend({data.data(), data.size() / 2}, offset, options, context).ok());
    return IOStatus::NoSpace("full");
  }
  IOStatus Sync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* context) override {
    if (disk_->in_sync) disk_->in_sync();
    if (disk_->fails_to_sync) return IOStatus::IOError("no sync");
    disk_->events.push_back("sync " + name_);
    return target()->Sync(options, context);
  }

 private:
  const std::string name_;
  Disk* const disk_;
};

class DirectoryOfLogs final : public rocksdb::FSDirectoryWrapper {
 public:
  DirectoryOfLogs(std::unique_ptr<rocksdb::FSDirectory> directory, Disk* disk)
      : FSDirectoryWrapper(std::move(directory)), disk_(disk) {}
  IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* context) override {
    disk_->events.push_back("sync names");
    return FSDirectoryWrapper::Fsync(options, context);
  }

 private:
  Disk* const disk_;
};

class DiskOfLogs final : public rocksdb::FileSystemWrapper {
 public:
  explicit DiskOfLogs(Disk* disk)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), disk_(disk) {}
  const char* Name() const override { return "DiskOfLogs"; }

  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           rocksdb::IODebugContext* context) override {
    IOStatus status = target()->NewWritableFile(path, options, file, context);
    if (status.ok() && path.ends_with(".log")) {
      std::string name = std::filesystem::path(path).stem();
      disk_->events.push_back("begin " + name);
      *file = std::make_unique<LogOnDisk>(std::move(*file), std::move(name), disk_);
    }
    return status;
  }
  IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                        std::unique_ptr<rocksdb::FSDirectory>* directory,
                        rocksdb::IODebugContext* context) override {
    IOStatus status = target()->NewDirectory(path, options, directory, context);
    if (status.ok()) {
      *directory = std::make_unique<DirectoryOfLogs>(std::move(*directory), disk_);
    }
    return status;
  }

 private:
  Disk* const disk_;
};

class StoreLogsTest : public testing::Test {
 protected:
  StoreLogsTest() : db_(open(folder_.path() + "/db", logs_.env())) { disk_.events.clear(); }

  static std::unique_ptr<rocksdb::DB> open(const std::string& path, rocksdb::Env* env) {
    rocksdb::Options options;
    options.env = env;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(options, path, &db);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return std::unique_ptr<rocksdb::DB>(db);
  }
  void put(const std::string& key) {
    const rocksdb::Status status = db_->Put(rocksdb::WriteOptions(), key, std::string(1000, 'v'));
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  rocksdb::Status begin_memtable() { return db_->Flush(rocksdb::FlushOptions()); }
  // What would be there if the process were killed now.
  std::string keys_on_disk() {
    const std::string copy = folder_.path() + "/copy";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(folder_.path() + "/db", copy);
    const std::unique_ptr<rocksdb::DB> db = open(copy, rocksdb::Env::Default());
    std::string keys;
    const std::unique_ptr<rocksdb::Iterator> row(db->NewIterator(rocksdb::ReadOptions()));
    for (row->SeekToFirst(); row->Valid(); row->Next()) keys += row->key().ToString();
    EXPECT_TRUE(row->status().ok());
    return keys;
  }

  TempFolder folder_;
  Disk disk_;
  const std::unique_ptr<rocksdb::Env> base_ =
      rocksdb::NewCompositeEnv(std::make_shared<DiskOfLogs>(&disk_));
  StoreLogs logs_{base_.get(), folder_.path() + "/db"};
  std::unique_ptr<rocksdb::DB> db_;
};

TEST_F(StoreLogsTest, ALogBeginsBehindADurableOne) {
  put("a");
  ASSERT_TRUE(begin_memtable().ok());
  ASSERT_GE(disk_.events.size(), 4u);
  const std::string log = disk_.events[0].substr(std::string("write ").size());
  EXPECT_EQ(disk_.events[0], "write " + log);
  EXPECT_EQ(disk_.events[1], "sync " + log);
  EXPECT_EQ(disk_.events[2], "sync names");
  EXPECT_THAT(disk_.events[3], testing::StartsWith("begin "));
}

// A checkpoint copies logs through the same file system, and syncs the copies itself.
TEST_F(StoreLogsTest, ACopyOfALogIsNoLog) {
  put("a");
  ASSERT_TRUE(logs_.sync().ok());
  disk_.events.clear();
  std::filesystem::create_directory(folder_.path() + "/checkpoint");
  std::unique_ptr<rocksdb::FSWritableFile> copy;
  ASSERT_TRUE(logs_.env()
                  ->GetFileSystem()
                  ->NewWritableFile(folder_.path() + "/checkpoint/000004.log", {}, &copy, nullptr)
                  .ok());
  ASSERT_TRUE(copy->Append("a", {}, nullptr).ok());
  ASSERT_TRUE(logs_.sync().ok());
  EXPECT_THAT(disk_.events, testing::Not(testing::Contains(testing::StartsWith("sync"))));
}

TEST_F(StoreLogsTest, ADurableLogIsNotSyncedAgain) {
  put("a");
  ASSERT_TRUE(logs_.sync().ok());
  disk_.events.clear();
  ASSERT_TRUE(begin_memtable().ok());
  EXPECT_THAT(disk_.events, testing::ElementsAre(testing::StartsWith("begin ")));
}

// RocksDB's own answer to a sync behind a failed write is to end the process.
TEST_F(StoreLogsTest, NoSyncSucceedsBehindAWriteThatFailed) {
  put("a");
  ASSERT_TRUE(logs_.sync().ok());
  EXPECT_TRUE(logs_.lacks_nothing().ok());
  disk_.fails_to_write = true;
  put("b");
  disk_.fails_to_write = false;
  put("c");
  EXPECT_FALSE(logs_.sync().ok());
  EXPECT_FALSE(logs_.lacks_nothing().ok());
  EXPECT_FALSE(logs_.complete().ok());
  EXPECT_FALSE(logs_.sync().ok());
  EXPECT_EQ(keys_on_disk(), "a");
}

// The second one begins while the first one is under way, which is where RocksDB ends the process.
TEST_F(StoreLogsTest, SyncsFailTogether) {
  put("a");
  disk_.fails_to_sync = true;
  std::promise<void> second;
  disk_.in_sync = [&, first = std::this_thread::get_id()] {
    if (std::this_thread::get_id() == first) second.get_future().wait();
  };
  std::thread other([&] {
    second.set_value();
    EXPECT_FALSE(logs_.sync().ok());
  });
  EXPECT_FALSE(logs_.sync().ok());
  other.join();
  EXPECT_TRUE(db_->SyncWAL().ok());  // RocksDB is told by the next table, or log
  EXPECT_TRUE(db_->SyncWAL().ok());
  EXPECT_FALSE(begin_memtable().ok());
  EXPECT_FALSE(logs_.lacks_nothing().ok());
}

// A log whose name is not durable is not there after a loss of power.
TEST_F(StoreLogsTest, TheFirstSyncOfALogMakesItsNameDurable) {
  put("a");
  disk_.events.clear();
  ASSERT_TRUE(logs_.sync().ok());
  EXPECT_THAT(disk_.events, testing::ElementsAre(testing::StartsWith("sync 0"), "sync names"));
  put("b");
  disk_.events.clear();
  ASSERT_TRUE(logs_.sync().ok());
  EXPECT_THAT(disk_.events, testing::ElementsAre(testing::StartsWith("sync 0")));
}

// Writes go on beside a sync, and one that has returned covers what was written before it alone.
TEST_F(StoreLogsTest, ASyncCoversWhatWasWrittenBefore) {
  put("a");
  disk_.in_sync = [&] { put("b"); };
  ASSERT_TRUE(logs_.sync().ok());
  disk_.in_sync = nullptr;
  disk_.events.clear();
  ASSERT_TRUE(logs_.sync().ok());
  EXPECT_THAT(disk_.events, testing::ElementsAre(testing::StartsWith("sync ")));
  disk_.events.clear();
  ASSERT_TRUE(logs_.sync().ok());
  EXPECT_THAT(disk_.events, testing::IsEmpty());
}

TEST_F(StoreLogsTest, NoTableBeginsBehindALogThatLacksSomething) {
  put("a");
  disk_.full = true;
  put("b");
  disk_.full = false;
  EXPECT_FALSE(begin_memtable().ok());
  EXPECT_EQ(keys_on_disk(), "a");
  ASSERT_TRUE(logs_.complete().ok()) << logs_.complete();
  EXPECT_EQ(keys_on_disk(), "ab");
}

TEST_F(StoreLogsTest, NoLogBeginsBehindOneThatCannotBeSynced) {
  put("a");
  disk_.events.clear();
  disk_.fails_to_sync = true;
  EXPECT_FALSE(begin_memtable().ok());
  EXPECT_THAT(disk_.events, testing::Not(testing::Contains(testing::StartsWith("begin "))));
  // What the kernel has dropped does not come back.
  disk_.fails_to_sync = false;
  EXPECT_FALSE(logs_.lacks_nothing().ok());
  EXPECT_FALSE(logs_.complete().ok());
}

TEST_F(StoreLogsTest, AFullDiskIsNoticedByWhoeverAsks) {
  put("a");
  EXPECT_TRUE(logs_.lacks_nothing().ok());
  disk_.full = true;
  put("b");
  EXPECT_TRUE(absl::IsResourceExhausted(logs_.lacks_nothing())) << logs_.lacks_nothing();
  EXPECT_TRUE(absl::IsResourceExhausted(logs_.complete()));
  EXPECT_TRUE(absl::IsResourceExhausted(logs_.lacks_nothing()));
  EXPECT_EQ(keys_on_disk(), "a");
}

TEST_F(StoreLogsTest, ALogIsCompletedOnceThereIsRoom) {
  put("a");
  disk_.full = true;
  put("b");
  put("c");
  disk_.full = false;
  put("d");  // behind what is lacking, not before it
  EXPECT_EQ(keys_on_disk(), "a");
  ASSERT_TRUE(logs_.complete().ok()) << logs_.complete();
  EXPECT_TRUE(logs_.lacks_nothing().ok());
  EXPECT_EQ(disk_.events.back().substr(0, 4), "sync");
  EXPECT_EQ(keys_on_disk(), "abcd");
  put("e");
  EXPECT_EQ(keys_on_disk(), "abcde");
  ASSERT_TRUE(begin_memtable().ok());
  EXPECT_EQ(keys_on_disk(), "abcde");
}

// RocksDB closes a log that it takes for durable: what it lacked is in memtables alone.
TEST_F(StoreLogsTest, ALogThatWasClosedIncompleteLacksItUntilItIsInTables) {
  put("a");
  disk_.full = true;
  put("b");
  db_.reset();
  EXPECT_TRUE(logs_.closed_incomplete());
  disk_.full = false;
  EXPECT_TRUE(logs_.complete().ok());
  EXPECT_FALSE(logs_.lacks_nothing().ok());
  logs_.are_in_tables();
  EXPECT_FALSE(logs_.closed_incomplete());
  EXPECT_TRUE(logs_.lacks_nothing().ok());
}

// RocksDB notices when it cannot begin a log either.
TEST_F(StoreLogsTest, AStoreTakesWritesAgainOnceThereIsRoom) {
  const std::string path = folder_.path() + "/store";
  auto opened = StoreDb::open(path, size_t{1} << 20, rocksdb::NewLRUCache(1 << 20), base_.get());
  ASSERT_TRUE(opened.ok()) << opened.status();
  StoreDb& store = **opened;
  const auto put_row = [&](const std::string& key) {
    return store->Put(rocksdb::WriteOptions(), store.records(), key, key);
  };
  ASSERT_TRUE(put_row("a").ok());
  disk_.full = true;
  ASSERT_TRUE(put_row("b").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store.sync_log()));
  EXPECT_FALSE(store.flush().ok());
  EXPECT_FALSE(store.resume().ok());
  disk_.full = false;
  ASSERT_TRUE(store.resume().ok()) << store.resume();
  ASSERT_TRUE(put_row("c").ok());
  ASSERT_TRUE(store.sync_log().ok()) << store.sync_log();

  std::filesystem::copy(path, folder_.path() + "/killed", std::filesystem::copy_options::recursive);
  auto found =
      StoreDb::open(folder_.path() + "/killed", size_t{1} << 20, rocksdb::NewLRUCache(1 << 20));
  ASSERT_TRUE(found.ok()) << found.status();
  for (const std::string key : {"a", "b", "c"}) {
    std::string value;
    EXPECT_TRUE((**found)->Get(rocksdb::ReadOptions(), (*found)->records(), key, &value).ok())
        << key;
  }
}

}  // namespace
}  // namespace sluice
