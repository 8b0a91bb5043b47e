// What arming and taking a cut costs the disk: exact counts, which do not depend on the machine.
#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <filesystem>

#include "dataplane/store/checkpoint.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

struct Counts {
  std::atomic<int> syncs{0};
  std::atomic<int> tables{0};
};

class CountingFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  CountingFile(Counts& counts, std::unique_ptr<rocksdb::FSWritableFile> base)
      : FSWritableFileOwnerWrapper(std::move(base)), counts_(counts) {}
  rocksdb::IOStatus Sync(const rocksdb::IOOptions& options,
                         rocksdb::IODebugContext* context) override {
    ++counts_.syncs;
    return target()->Sync(options, context);
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options,
                          rocksdb::IODebugContext* context) override {
    ++counts_.syncs;
    return target()->Fsync(options, context);
  }

 private:
  Counts& counts_;
};

class CountingDirectory final : public rocksdb::FSDirectoryWrapper {
 public:
  CountingDirectory(Counts& counts, std::unique_ptr<rocksdb::FSDirectory> base)
      : FSDirectoryWrapper(std::move(base)), counts_(counts) {}
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options,
                          rocksdb::IODebugContext* context) override {
    ++counts_.syncs;
    return FSDirectoryWrapper::Fsync(options, context);
  }

 private:
  Counts& counts_;
};

class CountingFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit CountingFileSystem(Counts& counts)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), counts_(counts) {}
  const char* Name() const override { return "counting"; }
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override {
    if (path.ends_with(".sst")) ++counts_.tables;
    auto status = target()->NewWritableFile(path, options, file, context);
    if (status.ok()) *file = std::make_unique<CountingFile>(counts_, std::move(*file));
    return status;
  }
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* context) override {
    auto status = target()->NewDirectory(path, options, directory, context);
    if (status.ok())
      *directory = std::make_unique<CountingDirectory>(counts_, std::move(*directory));
    return status;
  }

 private:
  Counts& counts_;
};

uint64_t log_bytes(const std::string& folder) {
  uint64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::error_code gone;
    const uint64_t size = file.path().extension() == ".log" ? file.file_size(gone) : 0;
    if (!gone) bytes += size;
  }
  return bytes;
}

class CutCostTest : public StoreTest {
 protected:
  void SetUp() override {
    Store::Options counted = options();
    counted.env = env_.get();
    auto store = Store::open(counted);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  // Before the file system under it goes.
  void TearDown() override { store_.reset(); }
  struct Spent {
    int syncs = 0;
    int tables = 0;
  };
  Spent arm(int64_t at_ms) {
    const Spent before = now();
    // As the first call of a backup does.
    EXPECT_TRUE(store_->raise_attempt(kBackup, 1, Store::Sync::kWithNext).ok());
    EXPECT_TRUE(store_->arm_cut({std::string(kBackup), stamp_at(at_ms), 1, false}).ok());
    return since(before);
  }
  Spent pass_and_take(int64_t at_ms) {
    const Spent before = now();
    EXPECT_TRUE(store_->clock().observe(stamp_at(at_ms) + 1).ok());
    EXPECT_TRUE(*store_->take_due_cut());
    EXPECT_TRUE(store_->cut_digests(kBackup).ok());
    return since(before);
  }

  Counts counts_;
  const std::unique_ptr<rocksdb::Env> env_ =
      rocksdb::NewCompositeEnv(std::make_shared<CountingFileSystem>(counts_));

 private:
  Spent now() const { return {counts_.syncs, counts_.tables}; }
  Spent since(const Spent& before) const {
    return {counts_.syncs - before.syncs, counts_.tables - before.tables};
  }
};

TEST_F(CutCostTest, OfAnAlmostEmptyStoreIsAFewSyncsAndNoTable) {
  apply(make_record("k", "v", stamp_at(1)));
  // The attempt, the armed row and the clock's ceiling: one sync of the log.
  EXPECT_EQ(arm(100).syncs, 1);
  const Spent taken = pass_and_take(100);
  EXPECT_EQ(taken.tables, 0);
  // In one round: what the checkpoint copies (CURRENT, MANIFEST, the log), two directories; the
  // log itself is durable already. Then the row.
  EXPECT_EQ(taken.syncs, 6);
  const auto records = read_cut(kBackup);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records.at("k").value, "v");
  EXPECT_EQ(*store_->cut_digests(kBackup), (*store_->open_cut(kBackup))->digests());
}

TEST_F(CutCostTest, DoesNotGrowWithCutsThatWentBefore) {
  for (int i = 0; i < 5; ++i) {
    apply(make_record(fmt::format("k{}", i), "v", stamp_at(i * 1000 + 1)));
    EXPECT_EQ(arm(i * 1000 + 100).syncs, 1);
    EXPECT_EQ(pass_and_take(i * 1000 + 100).syncs, 6);
    EXPECT_EQ(read_cut(kBackup).size(), size_t(i) + 1);
    ASSERT_TRUE(store_->drop_cut(kBackup).ok());
  }
}

TEST_F(CutCostTest, AnIdleStoreHasWrittenItsTablesBefore) {
  const auto pass_ms = [this](int64_t ms) { wall_.advance_ns(ms * 1'000'000); };
  store_.reset();
  Store::Options larger = options();
  larger.memtable_bytes = size_t{64} << 20;
  larger.env = env_.get();
  auto store = Store::open(larger);
  ASSERT_TRUE(store.ok()) << store.status();
  store_ = *std::move(store);
  counts_.tables = 0;
  const std::string value(300'000, 'v');
  const size_t enough = larger.memtable_bytes / 8 / value.size() + 1;
  apply(make_record("little", value, stamp_at(1)));
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(store_->flush_if_idle().ok());
    pass_ms(Store::kIdleMs);
  }
  EXPECT_EQ(counts_.tables, 0);
  for (size_t i = 0; i < enough; ++i) {
    // Never idle for long enough.
    apply(make_record(fmt::format("k{}", i), value, stamp_at(static_cast<int64_t>(i) + 2)));
    EXPECT_TRUE(store_->flush_if_idle().ok());
    pass_ms(Store::kIdleMs - 1);
    EXPECT_TRUE(store_->flush_if_idle().ok());
  }
  EXPECT_EQ(counts_.tables, 0);
  pass_ms(1);
  EXPECT_TRUE(store_->flush_if_idle().ok());
  for (int i = 0; i < 1'000 && log_bytes(options().folder + "/records") >= kCopiedLogBytes; ++i) {
    system_clock().sleep_ns(10'000'000);
  }
  const int tables = counts_.tables;
  EXPECT_GT(tables, 0);
  for (int i = 0; i < 10; ++i) {
    pass_ms(Store::kIdleMs);
    EXPECT_TRUE(store_->flush_if_idle().ok());
  }
  // Neither again, nor by the cut.
  arm(100'000);
  EXPECT_EQ(pass_and_take(100'000).tables, 0);
  EXPECT_EQ(counts_.tables, tables);
  EXPECT_EQ(read_cut(kBackup).size(), enough + 1);
}

TEST_F(CutCostTest, ALongLogIsWrittenToTablesInstead) {
  const std::string value(300'000, 'v');
  for (int i = 0; i < 8; ++i) apply(make_record(fmt::format("k{}", i), value, stamp_at(i + 1)));
  arm(100);
  EXPECT_GT(pass_and_take(100).tables, 0);
  EXPECT_EQ(read_cut(kBackup).size(), 8u);
  EXPECT_LT(log_bytes(options().folder + "/cuts/" + std::string(kBackup)), kCopiedLogBytes);
}

}  // namespace
}  // namespace sluice
