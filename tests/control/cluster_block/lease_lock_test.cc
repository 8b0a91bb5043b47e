// Who holds a lock, as its holder's clock, the cluster block and other processes see it.
#include "control/cluster_block/lease_lock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <utility>

#include "base/status.h"
#include "control/cluster_block/memory_cluster_block.h"

namespace sluice {
namespace {

constexpr char kKey[] = "a-lock";

// The cluster block as one process reaches it: answers can fail to come, before or after the
// change was made.
class FlakyBlock final : public ClusterBlock {
 public:
  explicit FlakyBlock(ClusterBlock& block) : block_(block) {}
  enum class Mode { kWorks, kAway, kAnswersAreLost };
  std::atomic<Mode> mode{Mode::kWorks};
  std::atomic<int64_t> commit_ms{0};  // after the change was made

  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    if (mode == Mode::kAway) return away();
    return block_.get(key);
  }
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override {
    if (mode == Mode::kAway) return away();
    return block_.list(prefix);
  }
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    if (mode == Mode::kAway) return away();
    auto revision = block_.commit(ops);
    system_clock().sleep_ns(commit_ms * kMs);
    if (mode == Mode::kAnswersAreLost && revision.ok()) return away();
    return revision;
  }
  absl::StatusOr<LeaseId> grant(int64_t ttl_ms) override {
    if (mode == Mode::kAway) return away();
    return block_.grant(ttl_ms);
  }
  absl::Status keep_alive(LeaseId lease) override {
    if (mode == Mode::kAway) return away();
    return block_.keep_alive(lease);
  }
  void limit_calls(int64_t ms) override { block_.limit_calls(ms); }
  absl::Status revoke(LeaseId lease) override {
    if (mode != Mode::kWorks) return away();
    return block_.revoke(lease);
  }
  absl::StatusOr<WatchHandle> watch(std::string_view, Revision, WatchCallback) override {
    return away();
  }

 private:
  static absl::Status away() { return unavailable("the block does not answer"); }
  ClusterBlock& block_;
};

struct LeaseLockTest : ::testing::Test {
  std::unique_ptr<LeaseLock> take(ClusterBlock& from, const char* who) {
    auto taken = LeaseLock::take(from, kKey, who, options);
    EXPECT_TRUE(taken.ok()) << message_of(taken.status());
    return taken.ok() ? *std::move(taken) : nullptr;
  }
  std::string holder() {
    const auto entry = block->get(kKey);
    return entry.ok() && entry->has_value() ? (*entry)->value : "";
  }
  void pass(int64_t ms) { clock.advance_ns(ms * kMs); }
  // A change made under the lock.
  absl::Status commit_under(const LeaseLock& lock) {
    return block->commit({ClusterOp::put("document", "x"), lock.fence()}).status();
  }

  ManualClock clock;
  std::unique_ptr<ClusterBlock> block = make_memory_cluster_block(clock);
  LeaseLockOptions options{&clock, 4000, false};
};

TEST_F(LeaseLockTest, BelongsToOneUntilItIsReleased) {
  auto first = take(*block, "first");
  EXPECT_TRUE(first->held());
  EXPECT_EQ(holder(), "first");
  EXPECT_EQ(LeaseLock::take(*block, kKey, "second", options).status().code(),
            absl::StatusCode::kAborted);
  EXPECT_TRUE(commit_under(*first).ok());
  first.reset();
  EXPECT_EQ(holder(), "");
  EXPECT_TRUE(block->list("")->entries.size() == 1) << "only the document stays";
  EXPECT_TRUE(take(*block, "second")->held());
}

// Nobody told it anything: the time alone ends it.
TEST_F(LeaseLockTest, IsNotHeldAfterAStallOfAnyLength) {
  const auto lock = take(*block, "stalled");
  pass(2'900);
  EXPECT_TRUE(lock->held());
  pass(200);
  EXPECT_FALSE(lock->held()) << "the lease is about to end";
  pass(3'600'000);
  EXPECT_FALSE(lock->held());
  EXPECT_FALSE(lock->lost());
}

TEST_F(LeaseLockTest, IsKeptByRenewing) {
  const auto lock = take(*block, "keeper");
  for (int i = 0; i < 100; ++i) {
    pass(2'500);
    ASSERT_TRUE(lock->renew().ok());
    ASSERT_TRUE(lock->held());
  }
  EXPECT_EQ(holder(), "keeper");
}

TEST_F(LeaseLockTest, IsTakenAgainWhereNobodyElseTookIt) {
  const auto lock = take(*block, "stalled");
  pass(60'000);
  EXPECT_EQ(holder(), "");
  EXPECT_TRUE(lock->renew().ok());
  EXPECT_TRUE(lock->held());
  EXPECT_EQ(holder(), "stalled");
  EXPECT_TRUE(commit_under(*lock).ok());
  EXPECT_EQ(LeaseLock::take(*block, kKey, "other", options).status().code(),
            absl::StatusCode::kAborted);
  pass(2'500);
  EXPECT_TRUE(lock->renew().ok());
  EXPECT_TRUE(lock->held());
}

TEST_F(LeaseLockTest, IsLostToWhoeverTookIt) {
  const auto first = take(*block, "first");
  pass(10'000);
  auto second = take(*block, "second");
  EXPECT_FALSE(first->held());
  EXPECT_TRUE(absl::IsAborted(commit_under(*first))) << "before it knows";
  EXPECT_TRUE(commit_under(*second).ok());
  EXPECT_TRUE(absl::IsAborted(first->renew()));
  EXPECT_TRUE(first->lost());
  EXPECT_TRUE(absl::IsAborted(first->wait_held(0)));
  EXPECT_TRUE(second->renew().ok());
  EXPECT_TRUE(second->held());
  second.reset();
  EXPECT_TRUE(absl::IsAborted(first->renew()));
  EXPECT_FALSE(first->held());
  EXPECT_EQ(holder(), "");
}

// What the other did meanwhile counts, though the key is free again.
TEST_F(LeaseLockTest, IsLostToWhoeverTookAndReleasedIt) {
  const auto first = take(*block, "first");
  pass(10'000);
  take(*block, "second").reset();
  EXPECT_EQ(holder(), "");
  EXPECT_TRUE(absl::IsAborted(commit_under(*first)));
  EXPECT_TRUE(absl::IsAborted(first->renew()));
  EXPECT_TRUE(first->lost());
  EXPECT_EQ(holder(), "");
}

TEST_F(LeaseLockTest, OutlivesABlockThatTakesNoWritesForAWhile) {
  FlakyBlock flaky(*block);
  const auto lock = take(flaky, "patient");
  flaky.mode = FlakyBlock::Mode::kAway;
  for (int i = 0; i < 10; ++i) {
    pass(1'000);
    EXPECT_TRUE(absl::IsUnavailable(lock->renew()));
    EXPECT_EQ(lock->held(), i < 2) << i;
    EXPECT_FALSE(lock->lost());
  }
  EXPECT_TRUE(absl::IsUnavailable(lock->wait_held(0)));
  flaky.mode = FlakyBlock::Mode::kWorks;
  EXPECT_TRUE(lock->renew().ok());
  EXPECT_TRUE(lock->held());
  EXPECT_TRUE(lock->wait_held(0).ok());
}

TEST_F(LeaseLockTest, FindsItsOwnKeyWhereTheAnswerWasLost) {
  FlakyBlock flaky(*block);
  const auto lock = take(flaky, "mine");
  pass(10'000);
  flaky.mode = FlakyBlock::Mode::kAnswersAreLost;
  EXPECT_FALSE(lock->renew().ok());
  EXPECT_EQ(holder(), "mine");
  EXPECT_FALSE(lock->held());
  flaky.mode = FlakyBlock::Mode::kWorks;
  EXPECT_FALSE(lock->renew().ok()) << "finds whose the key is";
  EXPECT_TRUE(lock->renew().ok());
  EXPECT_TRUE(lock->held());
  pass(2'500);
  EXPECT_TRUE(lock->renew().ok());
  EXPECT_EQ(holder(), "mine");
}

// The commit that takes the lock lasts longer than its lease, as on a slow disk.
TEST(LeaseLock, IsHeldAfterACommitThatTookLongerThanItsLease) {
  const auto inner = make_memory_cluster_block(system_clock());
  FlakyBlock slow(*inner);
  LeaseLockOptions options;
  options.lease_ms = 500;
  slow.commit_ms = 1200;
  const auto lock = LeaseLock::take(slow, kKey, "patient", options);
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_TRUE((*lock)->held());
  // So does the one that takes it again.
  ASSERT_TRUE(inner->revoke((*inner->get(kKey))->lease).ok());
  const int64_t deadline = system_clock().monotonic_ns() + 20'000 * kMs;
  while ((*lock)->held() && system_clock().monotonic_ns() < deadline) system_clock().sleep_ns(kMs);
  EXPECT_TRUE((*lock)->wait_held(20'000).ok());
  EXPECT_TRUE(inner->get(kKey)->has_value());
  slow.commit_ms = 0;
}

TEST(LeaseLock, ItsKeeperTakesItAgain) {
  const auto block = make_memory_cluster_block(system_clock());
  LeaseLockOptions options;
  options.lease_ms = 400;
  const auto lock = LeaseLock::take(*block, kKey, "kept", options);
  ASSERT_TRUE(lock.ok());
  const auto entry = block->get(kKey);
  ASSERT_TRUE(entry.ok() && entry->has_value());
  ASSERT_TRUE(block->revoke((*entry)->lease).ok());
  const int64_t deadline = system_clock().monotonic_ns() + 20'000 * kMs;
  while (!block->get(kKey)->has_value() && system_clock().monotonic_ns() < deadline) {
    system_clock().sleep_ns(kMs);
  }
  EXPECT_TRUE(block->get(kKey)->has_value());
  EXPECT_TRUE((*lock)->wait_held(20'000).ok());
}

}  // namespace
}  // namespace sluice
