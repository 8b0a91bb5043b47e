#include "control/cluster_block/sqlite_cluster_block.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>

#include "base/status.h"
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
      auto block = open_cluster_block(url());
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
  const auto block = open(false);
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
      auto block = open_cluster_block(url());
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

TEST_F(SqliteClusterBlockTest, AWriterThatHoldsTheFileForLongMakesOthersUnavailable) {
  SqliteClusterBlockOptions options;
  options.path = path();
  options.create = true;
  options.busy_timeout_ms = 50;
  const auto block = open_sqlite_cluster_block(options);
  ASSERT_TRUE(block.ok());
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &raw), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(raw, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  const auto blocked = (*block)->put("a", "1");
  EXPECT_TRUE(absl::IsUnavailable(blocked.status())) << blocked.status();
  EXPECT_TRUE((*block)->get("a").ok());
  ASSERT_EQ(sqlite3_exec(raw, "ROLLBACK", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(raw);
  EXPECT_TRUE((*block)->put("a", "1").ok());
}

}  // namespace
}  // namespace sluice
