// What was acknowledged survives: processes killed at random moments, full disks, large values in
// little memory.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "dataplane/store/store.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

constexpr const char* kFolderVariable = "SLUICE_TEST_STORE_FOLDER";
constexpr const char* kPipeVariable = "SLUICE_TEST_STORE_PIPE";
constexpr const char* kRoundVariable = "SLUICE_TEST_STORE_ROUND";
constexpr int kChildThreads = 3;

// What the child tells about each thing that was acknowledged, in one atomic write to the pipe.
struct Acknowledged {
  enum Kind : uint32_t { kWrite = 1, kArmed = 2 };
  uint32_t kind = 0;
  uint32_t after_cut = 0;
  uint64_t stamp = 0;
  char key[40] = {};
};

Store::Options child_options(const std::string& folder) {
  Store::Options options;
  options.folder = folder;
  options.cluster = "c";
  options.node = "n";
  options.slot_bits = 3;
  options.memtable_bytes = size_t{4} << 20;
  options.block_cache_bytes = size_t{4} << 20;
  return options;
}

std::string backup_of_round(int round) {
  return fmt::format("00000000-0000-4000-8000-{:012}", round);
}

// The value is a function of key and stamp, so that the parent can check it.
std::string value_of(std::string_view key, uint64_t stamp) {
  Random random(xxh3_64(key) ^ stamp);
  return random_bytes(random, random.chance(0.05) ? random.below(400'000) : random.below(3'000));
}

void report(int pipe, const Acknowledged& what) {
  if (::write(pipe, &what, sizeof(what)) != sizeof(what)) std::abort();
}

void child_writes(Store& store, int pipe, int round, int thread) {
  Random random(entropy());
  for (int i = 0;; ++i) {
    // Half are keys of their own, half are fought for.
    const std::string key = random.chance(0.5) ? fmt::format("{}-{}-{}", round, thread, i)
                                               : fmt::format("hot-{}", random.below(40));
    const uint64_t stamp = *store.clock().stamp();
    const Record record = make_record(key, value_of(key, stamp), stamp);
    const RecordView view = record.view();
    const auto results = store.apply({&view, 1});
    if (!results.ok()) std::abort();
    Acknowledged done{Acknowledged::kWrite, results->at(0).after_cut, stamp, {}};
    key.copy(done.key, sizeof(done.key) - 1);
    report(pipe, done);
    if (thread == 0 && i == 30) {
      const uint64_t cut = store.clock().now() + Version::make_stamp(15, 0);
      if (!store.arm_cut({backup_of_round(round), cut, 1, false}).ok()) std::abort();
      report(pipe, {Acknowledged::kArmed, 0, cut, {}});
    }
  }
}

// Run only as the child of the test below: applies records until it is killed.
TEST(StoreKillChild, DISABLED_Run) {
  const char* folder = std::getenv(kFolderVariable);
  if (folder == nullptr) GTEST_SKIP() << "this is the child of StoreKill, not a test of its own";
  const int pipe = std::atoi(std::getenv(kPipeVariable)),
            round = std::atoi(std::getenv(kRoundVariable));
  auto store = Store::open(child_options(folder));
  ASSERT_TRUE(store.ok()) << store.status();
  std::vector<std::thread> threads;
  for (int t = 0; t < kChildThreads; ++t) {
    threads.emplace_back([&, t] { child_writes(**store, pipe, round, t); });
  }
  for (std::thread& thread : threads) thread.join();
}

class StoreKillTest : public ::testing::Test {
 protected:
  // Runs a child until it has acknowledged `limit` things and kills it. Returns all that it
  // acknowledged.
  std::vector<Acknowledged> run_child_and_kill_it(int round, size_t limit) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    const UniqueFd from(ends[0]);
    UniqueFd into(ends[1]);
    ::setenv(kFolderVariable, folder_.path().c_str(), 1);
    ::setenv(kPipeVariable, std::to_string(into.get()).c_str(), 1);
    ::setenv(kRoundVariable, std::to_string(round).c_str(), 1);
    const pid_t child = ::fork();
    if (child == 0) {
      ::execl("/proc/self/exe", "child", "--gtest_filter=StoreKillChild.DISABLED_Run",
              "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
      ::_exit(127);
    }
    into.reset();
    std::vector<Acknowledged> all;
    Acknowledged one;
    while (::read(from.get(), &one, sizeof(one)) == sizeof(one)) {
      all.push_back(one);
      if (all.size() == limit) ::kill(child, SIGKILL);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the child ended by itself: " << status;
    return all;
  }

  static std::map<std::string, Record> read_store(Store& store) {
    std::map<std::string, Record> records;
    for (uint32_t slot = 0; slot < 8; ++slot) {
      const std::vector<Record> of_slot = read_all(*store.scan(slot));
      EXPECT_EQ(digest_of(of_slot), store.digest(slot)) << "slot " << slot;
      for (const Record& record : of_slot) records[record.key] = record;
    }
    return records;
  }

  // A cut holds what was acknowledged as before it, and nothing stamped after it.
  static void check_cut(Store& store, int round, uint64_t cut,
                        const std::vector<Acknowledged>& acknowledged) {
    const auto reader = store.open_cut(backup_of_round(round));
    ASSERT_TRUE(reader.ok()) << reader.status();
    std::map<std::string, Record> records;
    for (uint32_t slot = 0; slot < 8; ++slot) {
      const std::vector<Record> of_slot = read_all(*(*reader)->scan(slot));
      EXPECT_EQ(digest_of(of_slot), (*reader)->digests()[slot]) << "slot " << slot;
      for (const Record& record : of_slot) {
        EXPECT_LE(record.version.stamp, cut);
        records[record.key] = record;
      }
    }
    for (const Acknowledged& done : acknowledged) {
      if (done.kind != Acknowledged::kWrite || done.stamp > cut || done.after_cut != 0) continue;
      ASSERT_EQ(records.count(done.key), 1u) << done.key;
      EXPECT_GE(records.at(done.key).version.stamp, done.stamp) << done.key;
    }
  }

  TempFolder folder_;
};

TEST_F(StoreKillTest, EveryAcknowledgedWriteAndCutSurvives) {
  const uint64_t seed = entropy();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  Random random(seed);
  std::map<std::string, uint64_t> newest;
  uint64_t last_stamp = 0;
  for (int round = 0; round < 8; ++round) {
    const auto acknowledged = run_child_and_kill_it(round, 1 + random.below(700));
    uint64_t armed = 0, first_stamp = ~uint64_t{0}, largest = 0;
    for (const Acknowledged& done : acknowledged) {
      if (done.kind == Acknowledged::kArmed) {
        armed = done.stamp;
        continue;
      }
      uint64_t& known = newest[done.key];
      known = std::max(known, done.stamp);
      first_stamp = std::min(first_stamp, done.stamp);
      largest = std::max(largest, done.stamp);
    }
    EXPECT_GT(first_stamp, last_stamp) << "the clock went back over a restart";
    last_stamp = std::max(last_stamp, largest);

    auto store = Store::open(child_options(folder_.path()));
    ASSERT_TRUE(store.ok()) << store.status();
    const auto records = read_store(**store);
    for (const auto& [key, record] : records) {
      ASSERT_TRUE(record.value == value_of(key, record.version.stamp)) << key;
    }
    for (const auto& [key, stamp] : newest) {
      ASSERT_EQ(records.count(key), 1u) << key;
      ASSERT_GE(records.at(key).version.stamp, stamp) << key;
    }
    if (armed != 0) {
      check_cut(**store, round, armed, acknowledged);
    }
    for (const CutInfo& cut : (*store)->cuts()) ASSERT_TRUE((*store)->drop_cut(cut.backup).ok());
  }
}

// A small file system of its own, where the test may mount one.
class SmallDisk {
 public:
  explicit SmallDisk(std::string path) : path_(std::move(path)) {
    mounted_ = ::geteuid() == 0 && ::mount("tmpfs", path_.c_str(), "tmpfs", 0, "size=40m") == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  bool grow() { return ::mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT, "size=200m") == 0; }

 private:
  const std::string path_;
  bool mounted_ = false;
};

TEST(StoreFullDisk, StopsWritesClearlyAndLosesNothing) {
  const TempFolder folder;
  SmallDisk disk(folder.path());
  if (!disk.mounted()) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  Random random(17);
  std::map<std::string, Record> acknowledged;
  {
    auto store = Store::open(child_options(folder.path() + "/node"));
    ASSERT_TRUE(store.ok()) << store.status();
    absl::Status status;
    for (int i = 0; i < 2000 && status.ok(); ++i) {
      const Record record = make_record(fmt::format("k{}", i), random_bytes(random, 60'000),
                                        *(*store)->clock().stamp());
      const RecordView view = record.view();
      status = (*store)->apply({&view, 1}).status();
      if (status.ok()) acknowledged[record.key] = record;
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    const Record small = make_record("small", "", acknowledged.begin()->second.version.stamp);
    const RecordView view = small.view();
    EXPECT_EQ((*store)->apply({&view, 1}).status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ((*(*store)->get("k0"))->value, acknowledged.at("k0").value);
  }
  ASSERT_GT(acknowledged.size(), 100u);
  ASSERT_TRUE(disk.grow());
  auto store = Store::open(child_options(folder.path() + "/node"));
  ASSERT_TRUE(store.ok()) << store.status();
  for (const auto& [key, record] : acknowledged) {
    const auto stored = (*store)->get(key);
    ASSERT_TRUE(stored.ok() && stored->has_value()) << key;
    ASSERT_TRUE((*stored)->value == record.value) << key;
  }
  for (uint32_t slot = 0; slot < 8; ++slot) {
    EXPECT_EQ(digest_of(read_all(*(*store)->scan(slot))), (*store)->digest(slot));
  }
  const Record more = make_record("more", "room", *(*store)->clock().stamp());
  const RecordView view = more.view();
  EXPECT_TRUE((*store)->apply({&view, 1}).ok());
}

// RocksDB asserts that nothing is appended to a file behind a write that failed. A log of its own,
// on the disk that it reports as full, would be such a file and stop the process.
TEST(StoreFullDisk, HasNoLogThatRocksDbWritesItself) {
  const TempFolder folder;
  const auto store = Store::open(child_options(folder.path() + "/node"));
  ASSERT_TRUE(store.ok()) << store.status();
  std::ifstream file(folder.path() + "/node/records/LOG");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  EXPECT_NE(text.find("opened"), std::string::npos);
  EXPECT_EQ(text.find("RocksDB version"), std::string::npos) << text;
}

size_t resident_bytes() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

TEST(StoreMemory, StaysBoundedUnderLargeValues) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep freed memory";
#endif
  const TempFolder folder;
  auto store = Store::open(child_options(folder.path()));
  ASSERT_TRUE(store.ok()) << store.status();
  Random random(23);
  Record record = make_record("", random_bytes(random, size_t{32} << 20), 0);
  const size_t before = resident_bytes();
  size_t most = 0;
  for (int i = 0; i < 12; ++i) {
    record.key = fmt::format("k{}", i);
    record.version.stamp = *(*store)->clock().stamp();
    const RecordView view = record.view();
    ASSERT_TRUE((*store)->apply({&view, 1}).ok());
    most = std::max(most, resident_bytes());
  }
  // 384 MiB go through. A batch and two memtables of one value each are the unavoidable part.
  EXPECT_LT(most - std::min(most, before), size_t{256} << 20);
  std::vector<uint8_t> into(size_t{1} << 20);
  for (uint32_t slot = 0; slot < 8; ++slot) {
    const auto scan = (*store)->scan(slot);
    SlotScan::Item item;
    for (;;) {
      const auto next = scan->next(&item);
      ASSERT_TRUE(next.ok());
      if (!*next) break;
      for (uint64_t offset = 0; offset < item.summary.value_bytes; offset += into.size()) {
        ASSERT_TRUE(scan->read_value(offset, into).ok());
        ASSERT_EQ(std::memcmp(into.data(), record.value.data() + offset, into.size()), 0);
      }
    }
  }
  EXPECT_LT(resident_bytes() - std::min(resident_bytes(), before), size_t{256} << 20);
}

}  // namespace
}  // namespace sluice
