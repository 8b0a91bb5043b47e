#include "control/cluster_block/lease_table.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <set>
#include <thread>

#include "base/status.h"
#include "tests/control/cluster_block/harness.h"

namespace sluice::cluster_block {
namespace {

constexpr int kSlots = 504;

class LeaseTableTest : public ::testing::Test {
 protected:
  void SetUp() override {
    { std::ofstream database(folder_.file("db")); }
    table_ = make({});
  }
  std::shared_ptr<LeaseTable> make(const std::vector<LeaseId>& leases) {
    auto made = LeaseTable::make(path(), folder_.file("db"), "an-id", leases, clock_);
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? *std::move(made) : nullptr;
  }
  LeaseId grant(int64_t ttl_ms) {
    const auto lease = table_->grant(ttl_ms, clock_);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *lease : 0;
  }
  bool is_alive(LeaseId lease) { return table_->is_alive(lease, clock_, pulse_); }
  absl::Status open_error() { return LeaseTable::open(path(), "an-id").status(); }
  std::string path() const { return LeaseTable::path_beside(folder_.file("db")); }
  void pass(int64_t ms) { clock_.advance_ns(ms * kMs); }

  TestFolder folder_;
  ManualClock clock_;
  Pulse pulse_{clock_, 1};
  std::shared_ptr<LeaseTable> table_;
};

TEST_F(LeaseTableTest, ALeaseLivesForItsTimeAfterEachRenewal) {
  const LeaseId lease = grant(1000);
  for (int i = 0; i < 50; ++i) {
    pass(999);
    ASSERT_TRUE(is_alive(lease));
    ASSERT_TRUE(table_->renew(lease, clock_));
  }
  pass(1000);
  EXPECT_FALSE(is_alive(lease));
  EXPECT_FALSE(table_->renew(lease, clock_));
  // Late, but nobody ended it.
  const LeaseId late = grant(1000);
  pass(5000);
  EXPECT_TRUE(table_->renew(late, clock_));
  EXPECT_TRUE(is_alive(late));
  table_->end(late);
  EXPECT_FALSE(is_alive(late));
  EXPECT_FALSE(table_->renew(late, clock_));
}

TEST_F(LeaseTableTest, WhatIsNotALeaseIsOver) {
  const LeaseId lease = grant(1000);
  EXPECT_FALSE(is_alive(lease ^ (LeaseId{1} << 40)));  // another generation
  for (const LeaseId id : {LeaseId{0}, LeaseId{1}, LeaseId{4711}, ~LeaseId{0}, lease | 511}) {
    EXPECT_FALSE(is_alive(id));
    EXPECT_FALSE(table_->renew(id, clock_));
    table_->end(id);
  }
  EXPECT_TRUE(is_alive(lease));
}

TEST_F(LeaseTableTest, AFullTableTakesNoMoreUntilSomeHaveEnded) {
  std::set<LeaseId> leases;
  for (int i = 0; i < kSlots; ++i) leases.insert(grant(i == 0 ? 5000 : 1000));
  EXPECT_EQ(leases.size(), size_t{kSlots});
  const absl::Status full = table_->grant(1000, clock_).status();
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  table_->end(*leases.rbegin());
  leases.insert(grant(1000));
  // What a process granted and never came back to is forgotten.
  pass(1000);
  for (int i = 1; i < kSlots; ++i) leases.insert(grant(1000));
  EXPECT_FALSE(table_->grant(1000, clock_).ok());
  EXPECT_EQ(leases.size(), size_t{2 * kSlots});
}

TEST_F(LeaseTableTest, OfARenewalAndAnEndingOneSucceeds) {
  for (int round = 0; round < 3000; ++round) {
    const LeaseId lease = grant(10);
    pass(10);
    bool kept = false;
    std::thread renewing([&] { kept = table_->renew(lease, clock_); });
    const bool alive = is_alive(lease);
    renewing.join();
    EXPECT_EQ(alive, kept);
    EXPECT_EQ(is_alive(lease), kept);
    EXPECT_EQ(table_->renew(lease, clock_), kept);
    table_->end(lease);
  }
}

TEST_F(LeaseTableTest, ProcessesThatGrantAtOnceGetDifferentLeases) {
  constexpr int kProcesses = 4;
  constexpr int kEach = 100;
  int ids[2];
  ASSERT_EQ(::pipe(ids), 0);
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      auto own = LeaseTable::open(path(), "an-id");
      for (int each = 0; own.ok() && each < kEach; ++each) {
        const auto lease = (*own)->grant(1000, clock_);
        if (!lease.ok() || ::write(ids[1], &*lease, sizeof(LeaseId)) != sizeof(LeaseId)) ::_exit(1);
      }
      ::_exit(own.ok() ? 0 : 2);
    }
    children.push_back(child);
  }
  std::set<LeaseId> seen;
  for (int i = 0; i < kProcesses * kEach; ++i) {
    LeaseId lease = 0;
    ASSERT_EQ(::read(ids[0], &lease, sizeof(lease)), static_cast<ssize_t>(sizeof(lease)));
    seen.insert(lease);
    EXPECT_TRUE(is_alive(lease));
  }
  EXPECT_EQ(seen.size(), size_t{kProcesses * kEach});
  for (const pid_t child : children) {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  ::close(ids[0]);
  ::close(ids[1]);
}

TEST_F(LeaseTableTest, AStandstillIsForgivenOnce) {
  ASSERT_TRUE(pulse_.start().ok());
  const LeaseId stalled = grant(1000);
  const LeaseId dead = grant(1000);
  pass(100);  // of no weight
  pass(10'000);
  EXPECT_TRUE(is_alive(stalled));
  EXPECT_TRUE(is_alive(dead));
  // Its holder goes on, and renews it.
  EXPECT_TRUE(table_->renew(stalled, clock_));
  pass(400);
  EXPECT_TRUE(is_alive(dead));
  pass(10'000);
  EXPECT_FALSE(is_alive(dead)) << "a second standstill is no second grace";
  EXPECT_TRUE(is_alive(stalled)) << "of a renewed lease it is the first again";
}

TEST_F(LeaseTableTest, AStandstillThatBeganAfterTheDeadlineForgivesNothing) {
  const LeaseId dead = grant(1000);
  pass(1000);
  ASSERT_TRUE(pulse_.start().ok());
  pass(10'000);
  EXPECT_FALSE(is_alive(dead));
}

// Somebody who reads the clock, and then waits for the page like everybody who renews.
class WaitingClock final : public Clock {
 public:
  int64_t wall_ms() const override { return 0; }
  int64_t monotonic_ns() const override { return now_ns_.fetch_add(step_ns); }
  void sleep_ns(int64_t) override {}
  int64_t step_ns = 0;

 private:
  mutable std::atomic<int64_t> now_ns_{1000 * 1000 * kMs};
};

TEST_F(LeaseTableTest, WhoWaitedForTheTableItselfJudgesNothing) {
  WaitingClock clock;
  const auto lease = table_->grant(1000, clock);
  clock.step_ns = 2000 * kMs;
  clock.monotonic_ns();
  EXPECT_TRUE(table_->is_alive(*lease, clock, pulse_));
  clock.step_ns = 0;
  EXPECT_FALSE(table_->is_alive(*lease, clock, pulse_));
}

TEST_F(LeaseTableTest, LeasesThatAreCarriedOverBeginTheirTimeAnew) {
  const LeaseId kept = grant(1000);
  const LeaseId other = grant(1000);
  pass(900);
  const auto old = table_;
  EXPECT_TRUE(old->is_whole() && old->has_its_name());
  table_ = make({kept, 4711, ~LeaseId{0}});
  EXPECT_FALSE(old->is_whole()) << "whoever has mapped it has to notice";
  EXPECT_FALSE(is_alive(other));
  pass(900);
  EXPECT_TRUE(is_alive(kept));
  EXPECT_TRUE(table_->renew(kept, clock_));
}

TEST_F(LeaseTableTest, HostileFilesAreRefused) {
  const auto write = [&](const std::string& content) {
    std::ofstream file(path(), std::ios::binary | std::ios::trunc);
    file << content;
  };
  std::string whole;
  {
    std::ifstream file(path(), std::ios::binary);
    whole.assign(std::istreambuf_iterator<char>(file), {});
  }
  ASSERT_EQ(whole.size(), LeaseTable::kBytes);
  EXPECT_TRUE(open_error().ok());
  EXPECT_TRUE(absl::IsDataLoss(LeaseTable::open(path(), "another").status()));
  for (const std::string& content : {std::string(), whole.substr(0, 4095), whole + "x",
                                     std::string(4096, '\0'), std::string(4096, '\xff')}) {
    write(content);
    EXPECT_TRUE(absl::IsDataLoss(open_error())) << open_error();
    EXPECT_TRUE(content.size() == whole.size() || !table_->is_whole());
  }
  std::string newer = whole;
  newer[8] = 2;
  write(newer);
  EXPECT_TRUE(absl::IsFailedPrecondition(open_error())) << open_error();
  // Whatever the slots hold: some leases are over, and there is room again.
  write(whole.substr(0, 64) + std::string(4032, '\xff'));
  table_ = *LeaseTable::open(path(), "an-id");
  EXPECT_TRUE(is_alive(grant(1000)));
  std::filesystem::remove(path());
  EXPECT_TRUE(absl::IsNotFound(open_error()));
  EXPECT_FALSE(table_->is_whole());
  std::filesystem::create_symlink(folder_.file("db"), path());
  EXPECT_FALSE(open_error().ok() || absl::IsNotFound(open_error()) ||
               absl::IsDataLoss(open_error()));
  std::filesystem::remove(path());
  ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(open_error())) << open_error();
}

TEST_F(LeaseTableTest, WhoMayUseTheDatabaseMayUseIt) {
  ASSERT_EQ(::chmod(folder_.file("db").c_str(), 0660), 0);
  make({});
  struct stat info {};
  ASSERT_EQ(::stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660u);
}

}  // namespace
}  // namespace sluice::cluster_block
