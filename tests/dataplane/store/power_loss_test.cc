// Power loss: everything that was not synced is gone, or a part of it.
#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

struct FileState {
  uint64_t written = 0;
  uint64_t synced = 0;
  bool after_loss = false;  // the file was never made
};

// Knows what was synced of each file that was written through it. After lose_power() it goes on as
// if nothing had happened, but nothing of it will have happened: what is written counts for
// nothing, and nothing is renamed, linked or deleted any more. (RocksDB asserts on some ways of
// failing.)
class LossyFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  LossyFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "LossyFileSystem"; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override {
    std::unique_ptr<rocksdb::FSWritableFile> base;
    if (auto status = target()->NewWritableFile(path, options, &base, context); !status.ok())
      return status;
    auto state = std::make_shared<FileState>();
    *file = std::make_unique<File>(*this, state, std::move(base));
    std::lock_guard lock(mutex_);
    state->after_loss = lost_;
    files_[path] = std::move(state);
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override {
    std::lock_guard lock(mutex_);
    if (lost_) return rocksdb::IOStatus::OK();
    if (auto status = target()->RenameFile(from, to, options, context); !status.ok()) return status;
    // A folder takes its files along.
    std::unordered_map<std::string, std::shared_ptr<FileState>> moved;
    for (auto& [path, state] : files_) {
      const bool below = path == from || path.starts_with(from + "/");
      moved[below ? to + path.substr(from.size()) : path] = std::move(state);
    }
    files_ = std::move(moved);
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus LinkFile(const std::string& from, const std::string& to,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* context) override {
    std::lock_guard lock(mutex_);
    if (lost_) return rocksdb::IOStatus::OK();
    if (auto status = target()->LinkFile(from, to, options, context); !status.ok()) return status;
    if (const auto known = files_.find(from); known != files_.end()) files_[to] = known->second;
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override {
    std::lock_guard lock(mutex_);
    if (lost_) return rocksdb::IOStatus::OK();
    files_.erase(path);
    return target()->DeleteFile(path, options, context);
  }

  void lose_power() {
    std::lock_guard lock(mutex_);
    lost_ = true;
  }
  // Loses it once so many more bytes were written.
  void lose_power_after(uint64_t bytes) {
    std::lock_guard lock(mutex_);
    bytes_left_ = bytes;
  }
  bool lost() {
    std::lock_guard lock(mutex_);
    return lost_;
  }
  // Cuts every file to what was synced and a random part of what was written after.
  void drop_unsynced(Random& random) {
    std::lock_guard lock(mutex_);
    for (const auto& [path, state] : files_) {
      const uint64_t spare = state->written - state->synced;
      const uint64_t keep = random.chance(0.5) || spare == 0 ? 0 : random.below(spare + 1);
      lost_bytes_ += spare - keep;
      if (::access(path.c_str(), F_OK) != 0) continue;
      if (state->after_loss) {
        EXPECT_EQ(::unlink(path.c_str()), 0) << path;
      } else {
        EXPECT_EQ(::truncate(path.c_str(), static_cast<off_t>(state->synced + keep)), 0) << path;
      }
    }
  }
  uint64_t lost_bytes() const { return lost_bytes_; }

 private:
  class File final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(LossyFileSystem& system, std::shared_ptr<FileState> state,
         std::unique_ptr<rocksdb::FSWritableFile> base)
        : FSWritableFileOwnerWrapper(std::move(base)), system_(system), state_(std::move(state)) {}
    using FSWritableFileOwnerWrapper::Append;
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* context) override {
      std::lock_guard lock(system_.mutex_);
      auto status = target()->Append(data, options, context);
      if (status.ok()) wrote_locked(state_->written + data.size(), data.size());
      return status;
    }
    // As files written past the page cache are.
    using FSWritableFileOwnerWrapper::PositionedAppend;
    rocksdb::IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t offset,
                                       const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* context) override {
      std::lock_guard lock(system_.mutex_);
      auto status = target()->PositionedAppend(data, offset, options, context);
      if (status.ok()) {
        wrote_locked(std::max<uint64_t>(state_->written, offset + data.size()), data.size());
      }
      return status;
    }
    rocksdb::IOStatus PositionedAppend(const rocksdb::Slice& data, uint64_t offset,
                                       const rocksdb::IOOptions& options,
                                       const rocksdb::DataVerificationInfo&,
                                       rocksdb::IODebugContext* context) override {
      return PositionedAppend(data, offset, options, context);
    }
    rocksdb::IOStatus Truncate(uint64_t size, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override {
      std::lock_guard lock(system_.mutex_);
      if (system_.lost_) return rocksdb::IOStatus::OK();
      state_->written = std::min(state_->written, size);
      state_->synced = std::min(state_->synced, size);
      return target()->Truncate(size, options, context);
    }
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             const rocksdb::DataVerificationInfo&,
                             rocksdb::IODebugContext* context) override {
      return Append(data, options, context);
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* context) override {
      return sync([&] { return target()->Sync(options, context); });
    }
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options,
                            rocksdb::IODebugContext* context) override {
      return sync([&] { return target()->Fsync(options, context); });
    }

   private:
    void wrote_locked(uint64_t written, uint64_t bytes) {
      if (!system_.lost_) state_->written = written;
      system_.lost_ = system_.lost_ || bytes > system_.bytes_left_;
      system_.bytes_left_ -= std::min<uint64_t>(bytes, system_.bytes_left_);
    }
    template <typename Call>
    rocksdb::IOStatus sync(Call call) {
      uint64_t covered = 0;
      {
        std::lock_guard lock(system_.mutex_);
        if (system_.lost_) return rocksdb::IOStatus::OK();
        covered = state_->written;
      }
      if (auto status = call(); !status.ok()) return status;
      std::lock_guard lock(system_.mutex_);
      if (system_.lost_) return rocksdb::IOStatus::OK();
      state_->synced = std::max(state_->synced, covered);
      return rocksdb::IOStatus::OK();
    }
    LossyFileSystem& system_;
    const std::shared_ptr<FileState> state_;
  };

  std::mutex mutex_;
  bool lost_ = false;
  uint64_t bytes_left_ = ~uint64_t{0};
  uint64_t lost_bytes_ = 0;
  std::unordered_map<std::string, std::shared_ptr<FileState>> files_;
};

class PowerLossTest : public StoreTest {
 protected:
  struct Written {
    Record record;
    bool after_cut;
  };

  Store::Options small_options(rocksdb::Env* env) {
    Store::Options small = options();
    small.memtable_bytes = size_t{2} << 20;  // so that families are flushed at different times
    small.env = env;
    return small;
  }

  // Writes from several threads and cuts until `limit` writes were acknowledged, then loses the
  // power.
  std::vector<Written> write_until_power_is_lost(int round, size_t limit, uint64_t* cut,
                                                 Random& seeds) {
    const auto system = std::make_shared<LossyFileSystem>();
    const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(system);
    auto opened = Store::open(small_options(env.get()));
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) return {};
    Store& store = **opened;
    *cut = store.clock().now() + Version::make_stamp(20, 0);
    EXPECT_TRUE(store.arm_cut({std::string(kBackup), *cut, 1, false}).ok());
    std::mutex mutex;
    std::vector<Written> all;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t, seed = seeds.next()] {
        Random random(seed);
        for (int i = 0;; ++i) {
          wall_.advance_ns(50'000);
          const auto stamp = store.clock().stamp();
          if (!stamp.ok()) return;
          const std::string key = random.chance(0.3) ? fmt::format("hot-{}", random.below(30))
                                                     : fmt::format("{}-{}-{}", round, t, i);
          const size_t size = random.chance(0.05) ? random.below(300'000) : random.below(2'000);
          Record record = make_record(key, random_bytes(random, size), *stamp);
          const RecordView view = record.view();
          const auto results = store.apply({&view, 1});
          if (!results.ok() || system->lost()) return;
          std::lock_guard lock(mutex);
          all.push_back({std::move(record), results->at(0).after_cut});
          if (all.size() == limit) system->lose_power();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    opened->reset();
    system->drop_unsynced(seeds);
    lost_bytes_ += system->lost_bytes();
    return all;
  }
  static void expect_holds(const std::map<std::string, Record>& records, const Record& written) {
    const auto found = records.find(written.key);
    ASSERT_NE(found, records.end()) << written.key;
    ASSERT_GE(found->second.version.stamp, written.version.stamp) << written.key;
    if (found->second.version.stamp == written.version.stamp) {
      ASSERT_TRUE(found->second.value == written.value);
    }
  }

  uint64_t lost_bytes_ = 0;
};

TEST_F(PowerLossTest, LosesNothingAcknowledgedAndKeepsDigestsAndCutsTrue) {
  const uint64_t seed = entropy();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  Random random(seed);
  std::vector<Written> all;
  store_.reset();
  for (int round = 0; round < 8; ++round) {
    uint64_t cut = 0;
    const auto written = write_until_power_is_lost(round, 200 + random.below(1200), &cut, random);
    ASSERT_FALSE(written.empty());
    all.insert(all.end(), written.begin(), written.end());

    open();
    ASSERT_TRUE(store_ != nullptr);
    expect_digests_match_scans();
    std::map<std::string, Record> records;
    for (uint32_t slot = 0; slot < 16; ++slot) {
      for (Record& record : read_all(*store_->scan(slot))) records[record.key] = std::move(record);
    }
    for (const Written& one : all) expect_holds(records, one.record);

    ASSERT_EQ(store_->cuts().size(), 1u);
    ASSERT_TRUE(store_->cuts()[0].taken);
    const auto in_cut = read_cut(kBackup);
    for (const auto& [key, record] : in_cut) EXPECT_LE(record.version.stamp, cut);
    for (const Written& one : all) {
      if (one.record.version.stamp <= cut && !one.after_cut) expect_holds(in_cut, one.record);
    }
    ASSERT_TRUE(store_->drop_cut(kBackup).ok());
    store_.reset();
  }
  // Otherwise this test would have tested nothing.
  EXPECT_GT(lost_bytes_, 0u);
}

TEST_F(PowerLossTest, AnIngestionIsWholeOrAbsent) {
  const uint64_t seed = entropy();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  Random random(seed);
  std::map<uint32_t, std::vector<Record>> slots;
  for (uint32_t slot = 0; slot < 16; ++slot) {
    for (const std::string& key : keys(60, slot)) {
      const size_t size = random.chance(0.03) ? random.below(300'000) : random.below(3'000);
      slots[slot].push_back(make_record(key, random_bytes(random, size), stamp_at(5)));
    }
  }
  store_.reset();
  size_t whole = 0;
  size_t absent = 0;
  for (int round = 0; round < 24; ++round) {
    std::filesystem::remove_all(options().folder);
    const auto system = std::make_shared<LossyFileSystem>();
    const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(system);
    auto opened = Store::open(small_options(env.get()));
    ASSERT_TRUE(opened.ok()) << opened.status();
    system->lose_power_after(random.below(6'000'000));
    std::vector<uint32_t> confirmed;
    for (uint32_t first = 0; first < 16 && !system->lost(); first += 4) {
      const std::unique_ptr<SlotIngest> ingest = (*opened)->begin_ingest();
      for (uint32_t slot = first; slot < first + 4; ++slot) {
        for (const Block& block : pack(slots[slot])) ASSERT_TRUE(ingest->add(block).ok());
      }
      if (!ingest->commit().ok() || system->lost()) break;
      for (uint32_t slot = first; slot < first + 4; ++slot) confirmed.push_back(slot);
    }
    opened->reset();
    system->drop_unsynced(random);

    open();
    ASSERT_TRUE(store_ != nullptr);
    expect_digests_match_scans();
    for (uint32_t slot = 0; slot < 16; ++slot) {
      const bool is_here = store_->digest(slot) == digest_of(slots[slot]);
      ASSERT_TRUE(is_here || store_->digest(slot).empty()) << "slot " << slot << " is here in part";
      ++(is_here ? whole : absent);
    }
    for (const uint32_t slot : confirmed) ASSERT_FALSE(store_->digest(slot).empty()) << slot;
    store_.reset();
  }
  // Otherwise this test would have tested nothing.
  EXPECT_GT(whole, 0u);
  EXPECT_GT(absent, 0u);
}

}  // namespace
}  // namespace sluice
