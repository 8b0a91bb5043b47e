#include "control/cluster_block/sqlite_cluster_block.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <thread>

#include "base/status.h"
#include "control/cluster_block/lease_keeper.h"
#include "tests/control/cluster_block/harness.h"

namespace sluice {
namespace {

using Kind = WatchEvent::Kind;

class SqliteClusterBlockTest : public ::testing::Test {
 protected:
  std::unique_ptr<ClusterBlock> open(bool create = true) {
    OpenClusterOptions options;
    options.create = create;
    auto block = open_cluster_block(url(), options);
    EXPECT_TRUE(block.ok()) << block.status();
    return block.ok() ? *std::move(block) : nullptr;
  }
  absl::Status open_error(bool create) {
    OpenClusterOptions options;
    options.create = create;
    return open_cluster_block(url(), options).status();
  }
  // Polls too seldom for any test to pass by it: what it waits for has to be announced.
  absl::StatusOr<std::unique_ptr<ClusterBlock>> open_without_polling() const {
    SqliteClusterBlockOptions options;
    options.path = path();
    options.poll_ms = 3'600'000;
    options.busy_timeout_ms = 2 * options.poll_ms;
    return open_sqlite_cluster_block(options);
  }
  std::string path() const { return folder_.file("cluster.db"); }
  std::string url() const { return "sqlite:" + path(); }

  TestFolder folder_;
};

// Runs `body` in a process of its own, which opens its own connections; its result is the exit
// code.
pid_t in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  return child;
}

int exit_code_of(pid_t child) {
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST_F(SqliteClusterBlockTest, IsMadeOnlyWhereAllowed) {
  const absl::Status missing = open_error(false);
  EXPECT_TRUE(absl::IsNotFound(missing)) << missing;
  EXPECT_NE(message_of(missing).find("no cluster at sqlite:" + path()), std::string_view::npos);
  { std::ofstream empty(path()); }
  EXPECT_TRUE(absl::IsNotFound(open_error(false)));
  { const auto block = open(); }
  EXPECT_TRUE(open_error(false).ok());
}

TEST_F(SqliteClusterBlockTest, KeepsItsContent) {
  Revision revision = 0;
  {
    const auto block = open();
    ASSERT_TRUE(block->put("a", "1").ok());
    revision = *block->put("b", "2");
  }
  const auto block = open(false);
  EXPECT_EQ(block->get("a").value()->value, "1");
  EXPECT_EQ(block->list("")->revision, revision);
  EXPECT_GT(*block->put("c", "3"), revision);
}

TEST_F(SqliteClusterBlockTest, RefusesWhatIsNoClusterBlock) {
  {
    std::ofstream file(path());
    for (int i = 0; i < 1000; ++i) file << "not a database, but long enough to be one\n";
  }
  const absl::Status garbage = open_error(true);
  EXPECT_TRUE(absl::IsDataLoss(garbage)) << garbage;
  EXPECT_NE(message_of(garbage).find(path()), std::string_view::npos);
  std::filesystem::remove(path());

  sqlite3* foreign = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &foreign), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(foreign, "CREATE TABLE t(x)", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(foreign);
  EXPECT_TRUE(absl::IsFailedPrecondition(open_error(true)));
  std::filesystem::remove(path());

  std::filesystem::create_directory(path());
  EXPECT_TRUE(absl::IsFailedPrecondition(open_error(true)));
}

TEST_F(SqliteClusterBlockTest, RefusesAnotherFormat) {
  { const auto block = open(); }
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &raw), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(raw, "PRAGMA user_version = 99", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(raw);
  const absl::Status status = open_error(false);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_NE(message_of(status).find("99"), std::string_view::npos);
}

TEST_F(SqliteClusterBlockTest, DamageIsAnErrorNotACrash) {
  {
    const auto block = open();
    for (int i = 0; i < 200; ++i)
      ASSERT_TRUE(block->put("k" + std::to_string(i), std::string(900, 'v')).ok());
  }
  const auto size = std::filesystem::file_size(path());
  {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    const std::string noise(size - 4096, '\x5a');
    file.write(noise.data(), static_cast<std::streamsize>(noise.size()));
  }
  absl::Status status = open_error(false);
  if (status.ok()) status = open(false)->list("").status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

TEST_F(SqliteClusterBlockTest, ManyProcessesMakeItAtOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    children.push_back(in_child([&] {
      auto block = open_cluster_block(url(), {true, nullptr});
      return block.ok() && (*block)->put("k" + std::to_string(i), "v").ok() ? 0 : 1;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(exit_code_of(child), 0);
  EXPECT_EQ(open(false)->list("k")->entries.size(), 6u);
}

TEST_F(SqliteClusterBlockTest, ProcessesThatRaceLoseNoUpdate) {
  constexpr int kProcesses = 3;
  constexpr int kAdds = 60;
  { const auto block = open(); }
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    children.push_back(in_child([&] {
      auto block = open_without_polling();
      if (!block.ok()) return 1;
      for (int done = 0; done < kAdds;) {
        const auto entry = (*block)->get("sum");
        if (!entry.ok()) return 2;
        const int value = *entry ? std::stoi((*entry)->value) : 0;
        const auto swapped = (*block)->compare_and_swap("sum", std::to_string(value + 1),
                                                        *entry ? (*entry)->revision : 0);
        if (swapped.ok()) ++done;
        if (!swapped.ok() && !absl::IsAborted(swapped.status())) return 3;
      }
      return 0;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(exit_code_of(child), 0);
  EXPECT_EQ(open(false)->get("sum").value()->value, std::to_string(kProcesses * kAdds));
}

TEST_F(SqliteClusterBlockTest, AWatchSeesItsOwnProcess) {
  { const auto block = open(); }
  const auto watching = open_without_polling();
  ASSERT_TRUE(watching.ok()) << watching.status();
  EventLog log;
  const auto watch = (*watching)->watch("a", 0, log.callback());
  ASSERT_TRUE(watch.ok());
  for (int i = 0; i < 100; ++i) {
    const std::string value = std::to_string(i);
    ASSERT_TRUE((*watching)->put("a", value).ok());
    ASSERT_TRUE(log.wait_for("a", Kind::kPut, value)) << value;
  }
  // Where the table that carries the announcements is replaced, who waits on the old one finds out
  // by its next poll; who comes after that meets the others there.
  ASSERT_EQ(::unlink((path() + "-leases").c_str()), 0);
  const auto other = open_without_polling();
  ASSERT_TRUE(other.ok()) << other.status();
  ASSERT_TRUE((*watching)->put("a", "last").ok());
  EventLog later;
  const auto second = (*other)->watch("a", 0, later.callback());
  ASSERT_TRUE(later.wait_for("a", Kind::kPut, "last"));
  ASSERT_TRUE((*watching)->put("a", "over").ok());
  EXPECT_TRUE(later.wait_for("a", Kind::kPut, "over"));
}

TEST_F(SqliteClusterBlockTest, AWatchSeesOtherProcesses) {
  { const auto block = open(); }
  // The watch's thread must not be there when the process forks.
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = in_child([&] {
    char go = 0;
    if (::read(ready[0], &go, 1) != 1) return 1;
    auto block = open_cluster_block(url());
    if (!block.ok()) return 2;
    for (int i = 0; i < 20; ++i) {
      if (!(*block)->put("a/" + std::to_string(i), "v").ok()) return 3;
    }
    return (*block)->erase("a/0").ok() ? 0 : 4;
  });
  const auto opened = open_without_polling();
  ASSERT_TRUE(opened.ok()) << opened.status();
  ClusterBlock* const block = opened->get();
  EventLog log;
  const auto watch = block->watch("a/", 0, log.callback());
  ASSERT_TRUE(watch.ok());
  ASSERT_EQ(::write(ready[1], "g", 1), 1);
  EXPECT_TRUE(log.wait_for("a/19", Kind::kPut, "v"));
  EXPECT_TRUE(log.wait_for("a/0", Kind::kErase));
  EXPECT_EQ(exit_code_of(child), 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(SqliteClusterBlockTest, AKilledProcessLosesItsLease) {
  { const auto block = open(); }
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = in_child([&] {
    auto block = open_cluster_block(url());
    if (!block.ok()) return 1;
    const auto lease = (*block)->grant(300);
    if (!lease.ok() || !(*block)->put("live/n1", "x", *lease).ok()) return 2;
    if (::write(ready[1], "r", 1) != 1) return 3;
    for (;;) {
      if (!(*block)->keep_alive(*lease).ok()) return 4;
      system_clock().sleep_ns(20'000'000);
    }
  });
  char done = 0;
  ASSERT_EQ(::read(ready[0], &done, 1), 1);
  const auto block = open(false);
  EventLog log;
  const auto watch = block->watch("live/", 0, log.callback());
  ASSERT_TRUE(log.wait_for("live/n1", Kind::kPut, "x"));
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  EXPECT_EQ(exit_code_of(child), -SIGKILL);
  EXPECT_TRUE(log.wait_for("live/n1", Kind::kErase));
  EXPECT_FALSE(block->get("live/n1")->has_value());
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(SqliteClusterBlockTest, WritersKilledAnywhereLeaveWholeTransactions) {
  { const auto block = open(); }
  for (int round = 0; round < 10; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = in_child([&] {
      auto block = open_without_polling();
      if (!block.ok()) return 1;
      for (int i = 0;; ++i) {
        const std::string value = std::to_string(round) + "." + std::to_string(i);
        if (!(*block)->commit({ClusterOp::put("x", value), ClusterOp::put("y", value)}).ok())
          return 2;
        if (i == round && ::write(ready[1], "r", 1) != 1) return 3;
      }
    });
    char done = 0;
    ASSERT_EQ(::read(ready[0], &done, 1), 1);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    EXPECT_EQ(exit_code_of(child), -SIGKILL);
    ::close(ready[0]);
    ::close(ready[1]);
    const auto block = open(false);
    EXPECT_EQ(block->get("x").value()->value, block->get("y").value()->value);
    EXPECT_TRUE(block->get("x").value()->value.starts_with(std::to_string(round) + "."));
  }
}

TEST_F(SqliteClusterBlockTest, LeasesOfAnEarlierBootHaveEnded) {
  LeaseId lease = 0;
  {
    const auto block = open();
    lease = *block->grant(ClusterBlock::kMaxLeaseMs);
    ASSERT_TRUE(block->put("live/n1", "x", lease).ok());
  }
  EXPECT_TRUE(open(false)->keep_alive(lease).ok());
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &raw), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(raw, "UPDATE meta SET boot = x'00'", nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(raw);
  const auto block = open(false);
  EXPECT_FALSE(block->get("live/n1")->has_value());
  EXPECT_TRUE(absl::IsNotFound(block->keep_alive(lease)));
}

// Holds the one write lock that SQLite has, as a writer does whose disk is slow.
class Writer {
 public:
  explicit Writer(const std::string& path) {
    EXPECT_EQ(sqlite3_open(path.c_str(), &raw_), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(raw_, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  }
  ~Writer() {
    EXPECT_EQ(sqlite3_exec(raw_, "ROLLBACK", nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(raw_);
  }

 private:
  sqlite3* raw_ = nullptr;
};

class LeasesOfSqliteTest : public SqliteClusterBlockTest {
 protected:
  std::unique_ptr<ClusterBlock> open_with(Clock* clock, int busy_timeout_ms) {
    SqliteClusterBlockOptions options;
    options.path = path();
    options.create = true;
    options.clock = clock;
    options.busy_timeout_ms = busy_timeout_ms;
    options.poll_ms = 2;
    auto block = open_sqlite_cluster_block(options);
    EXPECT_TRUE(block.ok()) << block.status();
    return block.ok() ? *std::move(block) : nullptr;
  }
  static bool has(ClusterBlock& block, const std::string& key) {
    const auto entry = block.get(key);
    const auto listing = block.list(key);
    EXPECT_TRUE(entry.ok() && listing.ok()) << entry.status() << listing.status();
    EXPECT_EQ(entry->has_value(), !listing->entries.empty()) << key;
    return entry->has_value();
  }
  std::string leases() const { return path() + "-leases"; }
};

TEST_F(SqliteClusterBlockTest, AWriterThatHoldsTheFileForLongMakesOthersUnavailable) {
  SqliteClusterBlockOptions options;
  options.path = path();
  options.create = true;
  options.busy_timeout_ms = 50;
  const auto block = open_sqlite_cluster_block(options);
  ASSERT_TRUE(block.ok());
  {
    const Writer writer(path());
    const auto blocked = (*block)->put("a", "1");
    EXPECT_TRUE(absl::IsUnavailable(blocked.status())) << blocked.status();
    EXPECT_TRUE((*block)->get("a").ok());
  }
  EXPECT_TRUE((*block)->put("a", "1").ok());
}

TEST_F(LeasesOfSqliteTest, AreKeptWhileAWriterHoldsTheFile) {
  ManualClock clock;
  const auto block = open_with(&clock, 50);
  const auto other = open_with(&clock, 50);
  EventLog log;
  const auto watch = other->watch("live/", 0, log.callback());
  const auto kept = block->grant(1000);
  const auto dead = block->grant(1000);
  ASSERT_TRUE(block->put("live/kept", "1", *kept).ok());
  ASSERT_TRUE(block->put("live/dead", "1", *dead).ok());
  ASSERT_TRUE(log.wait_for("live/dead", Kind::kPut, "1"));
  {
    const Writer writer(path());
    for (int i = 0; i < 50; ++i) {
      clock.advance_ns(200'000'000);
      ASSERT_TRUE(block->keep_alive(*kept).ok()) << i;
      ASSERT_TRUE(has(*other, "live/kept")) << i;
      ASSERT_TRUE(has(*open_with(&clock, 50), "live/kept")) << i;
    }
    // What nobody could write down yet is seen all the same, and one more lease can be had.
    EXPECT_FALSE(has(*other, "live/dead"));
    EXPECT_TRUE(block->grant(1000).ok());
    EXPECT_TRUE(absl::IsUnavailable(block->revoke(*kept)));
    EXPECT_FALSE(has(*other, "live/kept")) << "a revoked lease has ended";
  }
  EXPECT_TRUE(log.wait_for("live/dead", Kind::kErase));
  EXPECT_TRUE(log.wait_for("live/kept", Kind::kErase));
  EXPECT_TRUE(block->compare_and_swap("live/dead", "2", 0).ok());
}

TEST_F(LeasesOfSqliteTest, AreKeptAndReadWhileTheSameBlockCommits) {
  const auto block = open_with(nullptr, 60'000);
  const auto lease = block->grant(60'000);
  ASSERT_TRUE(block->put("live/a", "1", *lease).ok());
  std::atomic<bool> committed{false};
  std::thread committing;
  {
    const Writer writer(path());
    committing = std::thread([&] {
      EXPECT_TRUE(block->put("b", "1").ok());
      committed = true;
    });
    for (int i = 0; i < 50; ++i) {
      EXPECT_TRUE(block->keep_alive(*lease).ok());
      EXPECT_TRUE(has(*block, "live/a"));
      system_clock().sleep_ns(1'000'000);
    }
    EXPECT_FALSE(committed);
  }
  committing.join();
}

// The keeper's own thread, in real time.
TEST_F(LeasesOfSqliteTest, AKeeperHoldsOnWhileAWriterHoldsTheFile) {
  const auto block = open_with(nullptr, 60'000);
  LeaseKeeper::Options options;
  options.ttl_ms = 800;
  const auto keeper = LeaseKeeper::grant(*block, options);
  ASSERT_TRUE(keeper.ok());
  ASSERT_TRUE(block->put("live/a", "1", (*keeper)->id()).ok());
  {
    const Writer writer(path());
    const int64_t end = system_clock().monotonic_ns() + 2'000'000'000;
    while (system_clock().monotonic_ns() < end) {
      ASSERT_TRUE(has(*block, "live/a"));
      system_clock().sleep_ns(5'000'000);
    }
    EXPECT_FALSE((*keeper)->has_ended());
  }
  EXPECT_TRUE((*keeper)->revoke().ok());
  EXPECT_FALSE((*keeper)->held());
  EXPECT_FALSE(has(*block, "live/a"));
}

TEST_F(LeasesOfSqliteTest, AProcessKilledBetweenItsStepsLeavesNothingThatStays) {
  ManualClock clock;
  { const auto block = open_with(&clock, 10'000); }
  for (const bool with_key : {false, true}) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = in_child([&] {
      const auto own = open_with(&clock, 10'000);
      const auto lease = own->grant(1000);
      if (!lease.ok() || (with_key && !own->put("live/n1", "x", *lease).ok())) return 1;
      if (::write(ready[1], "r", 1) != 1) return 2;
      for (;;) ::pause();
    });
    char done = 0;
    ASSERT_EQ(::read(ready[0], &done, 1), 1);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    EXPECT_EQ(exit_code_of(child), -SIGKILL);
    ::close(ready[0]);
    ::close(ready[1]);
    const auto block = open_with(&clock, 10'000);
    EXPECT_EQ(has(*block, "live/n1"), with_key);
    clock.advance_ns(1'000'000'000);
    EXPECT_FALSE(has(*block, "live/n1"));
    EXPECT_TRUE(block->compare_and_swap("live/n1", "y", 0).ok());
    EXPECT_TRUE(block->erase("live/n1").ok());
  }
}

TEST_F(LeasesOfSqliteTest, AreCarriedOverWhereTheirTableIsLost) {
  ManualClock clock;
  const auto block = open_with(&clock, 10'000);
  const auto lease = block->grant(1000);
  ASSERT_TRUE(block->put("live/a", "1", *lease).ok());
  const std::vector<std::function<void()>> losses = {
      [&] { std::filesystem::remove(leases()); },
      [&] { std::filesystem::rename(leases(), leases() + ".away"); },
      [&] { std::filesystem::resize_file(leases(), 0); },
      [&] { std::filesystem::resize_file(leases(), 100'000); },
      [&] {
        std::ofstream(leases() + "x") << std::string(4096, 'x');
        std::filesystem::rename(leases() + "x", leases());
      },
      // A crash while one was made, before and after it got its name.
      [&] {
        std::ofstream(leases() + ".new") << "half";
        std::filesystem::remove(leases());
      },
  };
  for (size_t i = 0; i < losses.size(); ++i) {
    losses[i]();
    clock.advance_ns(900'000'000);
    // Who has it open and who opens it meet in the same table again.
    const auto other = open_with(&clock, 10'000);
    EXPECT_TRUE(has(*other, "live/a")) << i;
    EXPECT_TRUE(block->keep_alive(*lease).ok()) << i;
    clock.advance_ns(900'000'000);
    EXPECT_TRUE(has(*other, "live/a")) << i;
    EXPECT_TRUE(other->keep_alive(*lease).ok()) << i;
    clock.advance_ns(900'000'000);
    EXPECT_TRUE(has(*block, "live/a")) << i;
    EXPECT_TRUE(block->keep_alive(*lease).ok()) << i;
    EXPECT_EQ(std::filesystem::file_size(leases()), 4096u) << i;
  }
  clock.advance_ns(1'000'000'000);
  EXPECT_FALSE(has(*block, "live/a"));
}

TEST_F(LeasesOfSqliteTest, AForeignFileInTheTablesPlaceIsNamed) {
  { const auto block = open(); }
  std::filesystem::remove(leases());
  std::filesystem::create_directory(leases());
  const absl::Status refused = open_error(false);
  EXPECT_FALSE(refused.ok());
  EXPECT_NE(message_of(refused).find(leases()), std::string_view::npos) << refused;
}

// A directory that is moved while it is open goes on with its own files, whatever gets its name.
TEST_F(LeasesOfSqliteTest, FollowADirectoryThatWasMoved) {
  ManualClock clock;
  const std::string before = folder_.file("before");
  const std::string after = folder_.file("after");
  std::filesystem::create_directory(before);
  const auto open_at = [&](const std::string& directory) {
    SqliteClusterBlockOptions options;
    options.path = directory + "/cluster.db";
    options.create = true;
    options.clock = &clock;
    auto block = open_sqlite_cluster_block(options);
    EXPECT_TRUE(block.ok()) << block.status();
    return block.ok() ? *std::move(block) : nullptr;
  };
  const auto block = open_at(before);
  const auto lease = block->grant(1000);
  ASSERT_TRUE(block->put("live/a", "1", *lease).ok());
  std::filesystem::rename(before, after);
  EXPECT_TRUE(block->keep_alive(*lease).ok());
  std::filesystem::create_directory(before);
  const auto stranger = open_at(before);
  const auto theirs = stranger->grant(1000);
  ASSERT_TRUE(stranger->put("live/b", "1", *theirs).ok());
  const auto moved = open_at(after);
  for (int i = 0; i < 5; ++i) {
    clock.advance_ns(900'000'000);
    ASSERT_TRUE(block->keep_alive(*lease).ok());
    ASSERT_TRUE(stranger->keep_alive(*theirs).ok());
    EXPECT_TRUE(has(*moved, "live/a") && has(*block, "live/a") && has(*stranger, "live/b"));
  }
}

// With the table and without it, as a backup of the files may be.
TEST_F(LeasesOfSqliteTest, OfACopyEndByThemselves) {
  ManualClock clock;
  const auto block = open_with(&clock, 10'000);
  const auto lease = block->grant(1000);
  ASSERT_TRUE(block->put("live/a", "1", *lease).ok());
  for (const bool with_table : {true, false}) {
    const std::string copy = folder_.file(with_table ? "copy" : "bare");
    std::filesystem::create_directory(copy);
    for (const auto& file :
         std::filesystem::directory_iterator(std::filesystem::path(path()).parent_path())) {
      const std::string name = file.path().filename();
      if (!file.is_regular_file() || (!with_table && name.ends_with("-leases"))) continue;
      std::filesystem::copy(file.path(), copy + "/" + name);
    }
    SqliteClusterBlockOptions options;
    options.path = copy + "/cluster.db";
    options.clock = &clock;
    const auto other = open_sqlite_cluster_block(options);
    ASSERT_TRUE(other.ok()) << other.status();
    for (int i = 0; i < 10; ++i) {
      clock.advance_ns(200'000'000);
      ASSERT_TRUE(block->keep_alive(*lease).ok());
    }
    EXPECT_FALSE(has(**other, "live/a"));
    EXPECT_TRUE(has(*block, "live/a"));
  }
}

TEST_F(LeasesOfSqliteTest, AStandstillOfAllEndsNone) {
  ManualClock clock;
  const auto block = open_with(&clock, 10'000);
  EventLog log;
  const auto watch = block->watch("live/", 0, log.callback());
  const auto lease = block->grant(1000);
  ASSERT_TRUE(block->put("live/a", "1", *lease).ok());
  ASSERT_TRUE(log.wait_for("live/a", Kind::kPut, "1"));
  clock.advance_ns(60'000'000'000);
  EXPECT_TRUE(has(*block, "live/a"));
  EXPECT_TRUE(block->keep_alive(*lease).ok());
  // Whoever does not come back is gone after half of its time.
  clock.advance_ns(60'000'000'000);
  EXPECT_TRUE(has(*block, "live/a"));
  clock.advance_ns(500'000'000);
  EXPECT_FALSE(has(*block, "live/a"));
  EXPECT_TRUE(log.wait_for("live/a", Kind::kErase));
}

}  // namespace
}  // namespace sluice
