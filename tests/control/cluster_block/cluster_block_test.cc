// The contract of cluster_block.h, held against every implementation.
#include "control/cluster_block/cluster_block.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "base/status.h"
#include "control/cluster_block/memory_cluster_block.h"
#include "control/cluster_block/sqlite_cluster_block.h"
#include "tests/control/cluster_block/etcd_server.h"
#include "tests/control/cluster_block/harness.h"

namespace sluice {
namespace {

using Kind = WatchEvent::Kind;

class ClusterBlockTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "memory") {
      block_ = make_memory_cluster_block(clock_);
      return;
    }
    if (is_etcd()) {
      block_ = shared_etcd().open(new_etcd_prefix());
      ASSERT_NE(block_, nullptr);
      return;
    }
    SqliteClusterBlockOptions options;
    options.path = folder_.file("cluster.db");
    options.create = true;
    options.clock = &clock_;
    options.poll_ms = 2;
    auto block = open_sqlite_cluster_block(options);
    ASSERT_TRUE(block.ok()) << block.status();
    block_ = *std::move(block);
  }

  std::string value_of(const std::string& key) {
    const auto entry = block_->get(key);
    EXPECT_TRUE(entry.ok()) << entry.status();
    return *entry ? (*entry)->value : "(none)";
  }
  std::set<std::string> keys_under(const std::string& prefix) {
    const auto listing = block_->list(prefix);
    EXPECT_TRUE(listing.ok()) << listing.status();
    std::set<std::string> keys;
    for (const ClusterEntry& entry : listing->entries) keys.insert(entry.key);
    return keys;
  }

  bool is_etcd() const { return GetParam() == "etcd"; }
  // A lease of the block's shortest kind, and how long it runs for sure. The others are exact to
  // the millisecond of their clock.
  int64_t lease_ms() const { return is_etcd() ? 2000 : 1000; }
  int64_t safe_ms() const { return is_etcd() ? lease_ms() * 3 / 4 : lease_ms() - 1; }
  // etcd's clock is the machine's.
  void pass_ms(int64_t ms) {
    if (is_etcd()) std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    clock_.advance_ns(ms * 1'000'000);
  }
  // Of a key whose lease is over: etcd notices soon, the others at once.
  bool is_gone(const std::string& key) {
    const auto deadline = std::chrono::steady_clock::now() +
                          std::chrono::milliseconds(ClusterBlock::kMaxLeaseDelayMs);
    while (is_etcd() && value_of(key) != "(none)" && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return value_of(key) == "(none)";
  }

  TestFolder folder_;
  ManualClock clock_;
  std::unique_ptr<ClusterBlock> block_;
};

TEST_P(ClusterBlockTest, AnEmptyBlockHasNothing) {
  EXPECT_EQ(value_of("a"), "(none)");
  EXPECT_TRUE(keys_under("").empty());
  // etcd's revisions are not this block's alone.
  EXPECT_TRUE(is_etcd() || block_->list("")->revision == 0);
}

TEST_P(ClusterBlockTest, KeepsAnyBytes) {
  const std::string key("k\0\xff/x", 5);
  const std::string value("\0v\xff", 3);
  const auto revision = block_->put(key, value);
  ASSERT_TRUE(revision.ok()) << revision.status();
  const auto entry = block_->get(key);
  ASSERT_TRUE(entry.ok() && entry->has_value());
  EXPECT_EQ((*entry)->value, value);
  EXPECT_EQ((*entry)->key, key);
  EXPECT_EQ((*entry)->revision, *revision);
  ASSERT_TRUE(block_->put("empty", "").ok());
  EXPECT_EQ(value_of("empty"), "");
}

TEST_P(ClusterBlockTest, CompareAndSwapComparesRevisions) {
  const auto first = block_->compare_and_swap("a", "1", 0);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto again = block_->compare_and_swap("a", "2", 0);
  EXPECT_TRUE(absl::IsAborted(again.status())) << again.status();
  EXPECT_NE(message_of(again.status()).find(std::to_string(*first)), std::string_view::npos);
  const auto second = block_->compare_and_swap("a", "2", *first);
  ASSERT_TRUE(second.ok());
  EXPECT_GT(*second, *first);
  EXPECT_TRUE(absl::IsAborted(block_->compare_and_swap("a", "3", *first).status()));
  EXPECT_TRUE(absl::IsAborted(block_->compare_and_swap("b", "3", *first).status()));
  EXPECT_EQ(value_of("a"), "2");
  EXPECT_EQ(value_of("b"), "(none)");
}

TEST_P(ClusterBlockTest, EraseComparesWhenAsked) {
  const auto revision = block_->put("a", "1");
  ASSERT_TRUE(revision.ok());
  EXPECT_TRUE(absl::IsAborted(block_->erase("a", *revision + 1)));
  EXPECT_TRUE(block_->erase("a", *revision).ok());
  EXPECT_TRUE(absl::IsAborted(block_->erase("a", *revision)));
  EXPECT_TRUE(block_->erase("a").ok());
  EXPECT_EQ(value_of("a"), "(none)");
  // A key that was erased counts as not there, and its next revision is a new one.
  const auto back = block_->compare_and_swap("a", "2", 0);
  ASSERT_TRUE(back.ok());
  EXPECT_GT(*back, *revision);
}

TEST_P(ClusterBlockTest, ListsAPrefixInOrder) {
  for (const char* key : {"b/2", "b/10", "b", "c", "b/1", "a"})
    ASSERT_TRUE(block_->put(key, key).ok());
  const auto listing = block_->list("b/");
  ASSERT_TRUE(listing.ok());
  ASSERT_EQ(listing->entries.size(), 3u);
  EXPECT_EQ(listing->entries[0].key, "b/1");
  EXPECT_EQ(listing->entries[1].key, "b/10");
  EXPECT_EQ(listing->entries[2].key, "b/2");
  EXPECT_EQ(listing->revision, block_->get("a").value()->revision);
  EXPECT_EQ(keys_under("").size(), 6u);
  ASSERT_TRUE(block_->put("\xff\xff", "x").ok());
  EXPECT_EQ(keys_under("\xff").size(), 1u);
}

TEST_P(ClusterBlockTest, ATransactionIsAllOrNothing) {
  const auto revision = block_->put("a", "1");
  ASSERT_TRUE(revision.ok());
  const auto failed = block_->commit(
      {ClusterOp::put("b", "1"), ClusterOp::erase("a"), ClusterOp::check("c", *revision)});
  EXPECT_TRUE(absl::IsAborted(failed.status()));
  EXPECT_EQ(keys_under(""), std::set<std::string>{"a"});
  const auto done = block_->commit(
      {ClusterOp::put("b", "1", 0), ClusterOp::check("a", *revision), ClusterOp::erase("never")});
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(block_->get("b").value()->revision, *done);
  EXPECT_EQ(block_->get("a").value()->revision, *revision);
}

TEST_P(ClusterBlockTest, LimitsAreKept) {
  const std::string long_key(ClusterBlock::kMaxKeyBytes, 'k');
  const std::string long_value(ClusterBlock::kMaxValueBytes, 'v');
  ASSERT_TRUE(block_->put(long_key, long_value).ok());
  EXPECT_EQ(value_of(long_key), long_value);
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"", "x"}, {long_key + "k", "x"}, {"a", long_value + "v"}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(block_->put(key, value).status()));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(block_->get("").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(block_->list(long_key + "k").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(block_->commit({}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      block_->commit({ClusterOp::put("a", "1"), ClusterOp::erase("a")}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      block_->commit({ClusterOp::put("a", long_value), ClusterOp::put("b", long_value)}).status()));
  std::vector<ClusterOp> many;
  for (size_t i = 0; i <= ClusterBlock::kMaxOps; ++i) {
    many.push_back(ClusterOp::put(std::to_string(i), ""));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(block_->commit(many).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(block_->grant(0).status()));
  EXPECT_EQ(keys_under("").size(), 1u);
  many.pop_back();
  EXPECT_TRUE(block_->commit(many).ok());
}

// As much of everything as a commit may have, compared as well.
TEST_P(ClusterBlockTest, TheLargestCommitIsTaken) {
  std::vector<ClusterOp> ops;
  const size_t bytes = ClusterBlock::kMaxCommitBytes / ClusterBlock::kMaxOps;
  for (size_t i = 0; i < ClusterBlock::kMaxOps; ++i) {
    std::string key = std::to_string(i);
    key.resize(ClusterBlock::kMaxKeyBytes, 'k');
    const size_t value_bytes = bytes - key.size();
    ops.push_back(ClusterOp::put(std::move(key), std::string(value_bytes, 'v'), 0));
  }
  const auto revision = block_->commit(ops);
  ASSERT_TRUE(revision.ok()) << revision.status();
  for (ClusterOp& op : ops) op.expected = *revision;
  EXPECT_TRUE(block_->commit(ops).ok());
  EXPECT_TRUE(absl::IsAborted(block_->commit(ops).status()));
  const auto listing = block_->list("");
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_EQ(listing->entries.size(), ops.size());
  std::vector<ClusterOp> checks;
  for (const ClusterEntry& entry : listing->entries) {
    checks.push_back(ClusterOp::check(entry.key, entry.revision));
  }
  const auto checked = block_->commit(checks);
  EXPECT_TRUE(checked.ok()) << checked.status();
}

// In etcd they come in several answers, and the sizes leap.
TEST_P(ClusterBlockTest, ListsMoreThanOneAnswerHolds) {
  std::vector<ClusterOp> small;
  for (size_t i = 0; i < ClusterBlock::kMaxOps; ++i) {
    small.push_back(ClusterOp::put("a/" + std::to_string(i), "s"));
  }
  ASSERT_TRUE(block_->commit(small).ok());
  const std::string large(ClusterBlock::kMaxValueBytes, 'l');
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(block_->put("b/" + std::to_string(i), large).ok());
  ASSERT_TRUE(block_->put("c", "last").ok());
  const auto listing = block_->list("");
  ASSERT_TRUE(listing.ok()) << listing.status();
  ASSERT_EQ(listing->entries.size(), small.size() + 6);
  std::set<std::string> keys;
  for (const ClusterEntry& entry : listing->entries) keys.insert(entry.key);
  EXPECT_EQ(keys.size(), listing->entries.size());
  EXPECT_EQ(listing->entries[small.size() + 4].value, large);
  EXPECT_EQ(listing->entries.back().value, "last");
}

TEST_P(ClusterBlockTest, KeysVanishWithTheirLease) {
  const auto lease = block_->grant(lease_ms());
  const auto other = block_->grant(5 * lease_ms());
  ASSERT_TRUE(lease.ok() && other.ok());
  EXPECT_NE(*lease, 0u);
  EXPECT_NE(*lease, *other);
  ASSERT_TRUE(block_->put("live/a", "1", *lease).ok());
  ASSERT_TRUE(block_->put("live/b", "1", *lease).ok());
  ASSERT_TRUE(block_->put("live/c", "1", *other).ok());
  ASSERT_TRUE(block_->put("stays", "1").ok());
  pass_ms(safe_ms());
  EXPECT_TRUE(block_->keep_alive(*lease).ok());
  pass_ms(safe_ms());
  EXPECT_EQ(value_of("live/a"), "1");
  const Revision before = block_->list("")->revision;
  pass_ms(lease_ms() - safe_ms());
  EXPECT_TRUE(is_gone("live/a"));
  EXPECT_EQ(keys_under(""), (std::set<std::string>{"live/c", "stays"}));
  EXPECT_TRUE(absl::IsNotFound(block_->keep_alive(*lease)));
  EXPECT_TRUE(absl::IsFailedPrecondition(block_->put("live/a", "2", *lease).status()));
  EXPECT_TRUE(block_->revoke(*lease).ok());
  EXPECT_TRUE(block_->revoke(*other).ok());
  EXPECT_EQ(keys_under(""), std::set<std::string>{"stays"});
  EXPECT_GE(block_->list("")->revision, before + 2) << "each end that erases keys takes one";
  EXPECT_TRUE(absl::IsNotFound(block_->keep_alive(*other)));
}

TEST_P(ClusterBlockTest, ALeaseThatEndedNeverComesBack) {
  const auto lease = block_->grant(lease_ms());
  ASSERT_TRUE(block_->put("live/a", "1", *lease).ok());
  pass_ms(lease_ms());
  EXPECT_TRUE(is_gone("live/a"));
  for (int i = 0; i < 100; ++i) {
    const auto other = block_->grant(1000);
    ASSERT_TRUE(other.ok());
    EXPECT_NE(*other, *lease);
    EXPECT_TRUE(absl::IsNotFound(block_->keep_alive(*lease)));
    EXPECT_EQ(value_of("live/a"), "(none)");
    ASSERT_TRUE(block_->revoke(*other).ok());
  }
}

// One of the two wins, and what it made of the lease stays so.
TEST_P(ClusterBlockTest, ARenewalThatRacesWithALookIsNeverHalfDone) {
  const int rounds = is_etcd() ? 3 : 60;  // in real time
  for (int round = 0; round < rounds; ++round) {
    const auto lease = block_->grant(lease_ms());
    ASSERT_TRUE(block_->put("live/a", "1", *lease).ok());
    pass_ms(lease_ms());
    absl::Status kept;
    bool seen = false;
    std::thread renewing([&] { kept = block_->keep_alive(*lease); });
    std::thread looking([&] { seen = !keys_under("live/").empty(); });
    renewing.join();
    looking.join();
    EXPECT_EQ(value_of("live/a"), kept.ok() ? "1" : "(none)") << kept;
    // In etcd the lease ends, and its keys with it, a moment later.
    EXPECT_TRUE(is_etcd() || !seen || kept.ok()) << "it was seen, though its time was over";
    EXPECT_EQ(block_->keep_alive(*lease).ok(), kept.ok());
    ASSERT_TRUE(block_->revoke(*lease).ok());
  }
}

TEST_P(ClusterBlockTest, AKeyBelongsToItsLastLease) {
  const auto first = block_->grant(10 * lease_ms());
  const auto second = block_->grant(10 * lease_ms());
  ASSERT_TRUE(block_->put("a", "1", *first).ok());
  ASSERT_TRUE(block_->put("a", "2", *second).ok());
  ASSERT_TRUE(block_->put("b", "1", *first).ok());
  ASSERT_TRUE(block_->put("b", "2").ok());
  ASSERT_TRUE(block_->revoke(*first).ok());
  EXPECT_EQ(keys_under(""), (std::set<std::string>{"a", "b"}));
  ASSERT_TRUE(block_->revoke(*second).ok());
  EXPECT_EQ(keys_under(""), std::set<std::string>{"b"});
  EXPECT_TRUE(absl::IsFailedPrecondition(block_->put("c", "1", 4711).status()));
}

TEST_P(ClusterBlockTest, AnEndedLeaseLosesBeforeItIsCompared) {
  const auto lease = block_->grant(lease_ms());
  ASSERT_TRUE(block_->put("leader", "a", *lease).ok());
  EXPECT_TRUE(absl::IsAborted(block_->compare_and_swap("leader", "b", 0).status()));
  pass_ms(lease_ms());
  EXPECT_TRUE(!is_etcd() || is_gone("leader"));
  EXPECT_TRUE(block_->compare_and_swap("leader", "b", 0).ok());
}

TEST_P(ClusterBlockTest, AWatchReportsWhatChangesAfterARevision) {
  ASSERT_TRUE(block_->put("a/old", "1").ok());
  const auto listing = block_->list("a/");
  EventLog log;
  const auto watch = block_->watch("a/", listing->revision, log.callback());
  ASSERT_TRUE(watch.ok()) << watch.status();
  ASSERT_TRUE(block_->put("a/1", "x").ok());
  ASSERT_TRUE(block_->put("b/1", "x").ok());
  ASSERT_TRUE(log.wait_for("a/1", Kind::kPut, "x"));
  ASSERT_TRUE(block_->erase("a/1").ok());
  ASSERT_TRUE(log.wait_for("a/1", Kind::kErase));
  ASSERT_TRUE(block_->put("a/old", "2").ok());
  ASSERT_TRUE(log.wait_for("a/old", Kind::kPut, "2"));
  Revision last = listing->revision;
  for (const WatchEvent& event : log.events()) {
    EXPECT_TRUE(event.key.starts_with("a/"));
    EXPECT_GE(event.revision, last);
    last = event.revision;
  }
}

TEST_P(ClusterBlockTest, AWatchFromZeroReportsAllThatIsThere) {
  constexpr int kKeys = 3000;  // more than one batch
  std::vector<ClusterOp> ops;
  for (int i = 0; i < kKeys; ++i) {
    ops.push_back(ClusterOp::put("a/" + std::to_string(i), std::to_string(i)));
    if (ops.size() < ClusterBlock::kMaxOps && i + 1 < kKeys) continue;
    ASSERT_TRUE(block_->commit(ops).ok());
    ops.clear();
  }
  EventLog log;
  const auto watch = block_->watch("a/", 0, log.callback());
  ASSERT_TRUE(watch.ok());
  ASSERT_TRUE(log.wait([](const auto& events) { return events.size() >= kKeys; }));
  std::set<std::string> seen;
  for (const WatchEvent& event : log.events()) {
    EXPECT_EQ(event.kind, Kind::kPut);
    EXPECT_EQ(event.key, "a/" + event.value);
    seen.insert(event.key);
  }
  EXPECT_EQ(seen.size(), size_t{kKeys});
}

TEST_P(ClusterBlockTest, AWatchSeesALeaseEnd) {
  EventLog log;
  const auto watch = block_->watch("live/", 0, log.callback());
  const auto lease = block_->grant(1000);
  ASSERT_TRUE(block_->put("live/a", "1", *lease).ok());
  ASSERT_TRUE(log.wait_for("live/a", Kind::kPut, "1"));
  // In steps: a clock that jumps by half a lease says that everybody stood still.
  const auto erased = [&] { return log.events().back().kind == Kind::kErase; };
  for (int i = 0; i < 2000 && !erased(); ++i) {
    clock_.advance_ns(100'000'000);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_TRUE(erased());
}

TEST_P(ClusterBlockTest, AWatchThatCameTooLateIsToldToResync) {
  ASSERT_TRUE(block_->put("a/kept", "1").ok());
  const Revision early = block_->list("")->revision;
  for (int round = 0; round < 4200 / 100 + 1; ++round) {
    std::vector<ClusterOp> puts;
    std::vector<ClusterOp> erases;
    for (int i = 0; i < 100; ++i) {
      const std::string key = "b/" + std::to_string(round * 100 + i);
      puts.push_back(ClusterOp::put(key, ""));
      erases.push_back(ClusterOp::erase(key));
    }
    ASSERT_TRUE(block_->commit(puts).ok());
    ASSERT_TRUE(block_->commit(erases).ok());
  }
  // The others forget by themselves.
  if (is_etcd()) shared_etcd().compact(block_->list("")->revision);
  EventLog log;
  const auto watch = block_->watch("a/", early, log.callback());
  ASSERT_TRUE(log.wait([](const auto& events) { return !events.empty(); }));
  EXPECT_EQ(log.events().front().kind, Kind::kResync);
  EXPECT_EQ(log.events().front().revision, block_->list("")->revision);
  ASSERT_TRUE(block_->put("a/new", "2").ok());
  EXPECT_TRUE(log.wait_for("a/new", Kind::kPut, "2"));
  // One that asks for all there is needs no forgotten erasure.
  EventLog whole;
  const auto from_zero = block_->watch("a/", 0, whole.callback());
  ASSERT_TRUE(whole.wait_for("a/new", Kind::kPut, "2"));
  for (const WatchEvent& event : whole.events()) EXPECT_EQ(event.kind, Kind::kPut);
}

TEST_P(ClusterBlockTest, NoCallbackRunsAfterTheHandleIsGone) {
  std::atomic<bool> gone{false};
  std::atomic<int> late{0};
  EventLog other;
  const auto watch = block_->watch("a", 0, other.callback());
  for (int round = 0; round < 20; ++round) {
    gone = false;
    auto handle = block_->watch("a", 0, [&](const WatchEvent&) {
      if (gone) ++late;
    });
    ASSERT_TRUE(handle.ok());
    ASSERT_TRUE(block_->put("a", std::to_string(round)).ok());
    handle->reset();
    gone = true;
    ASSERT_TRUE(other.wait_for("a", Kind::kPut, std::to_string(round)));
  }
  EXPECT_EQ(late, 0);
}

TEST_P(ClusterBlockTest, ACallbackMayCallTheBlockAndEndItsOwnWatch) {
  WatchHandle own;
  std::mutex mutex;
  std::atomic<int> calls{0};
  EventLog log;
  const auto watch = block_->watch("answer", 0, log.callback());
  {
    std::lock_guard lock(mutex);
    auto handle = block_->watch("ask", 0, [&](const WatchEvent& event) {
      std::lock_guard inner(mutex);
      ++calls;
      own.reset();
      EXPECT_TRUE(block_->put("answer", event.value).ok());
    });
    own = *std::move(handle);
  }
  ASSERT_TRUE(block_->put("ask", "1").ok());
  ASSERT_TRUE(log.wait_for("answer", Kind::kPut, "1"));
  ASSERT_TRUE(block_->put("ask", "2").ok());
  ASSERT_TRUE(block_->put("answer", "end").ok());
  ASSERT_TRUE(log.wait_for("answer", Kind::kPut, "end"));
  EXPECT_EQ(calls, 1);
}

TEST_P(ClusterBlockTest, AHandleMayOutliveItsBlock) {
  EventLog log;
  auto watch = block_->watch("a", 0, log.callback());
  ASSERT_TRUE(watch.ok());
  block_.reset();
  watch->reset();
}

TEST_P(ClusterBlockTest, ConcurrentSwapsLoseNoUpdate) {
  constexpr int kThreads = 4;
  constexpr int kAdds = 50;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int done = 0; done < kAdds;) {
        const auto entry = block_->get("sum");
        ASSERT_TRUE(entry.ok()) << entry.status();
        const int value = *entry ? std::stoi((*entry)->value) : 0;
        const Revision revision = *entry ? (*entry)->revision : 0;
        const auto swapped = block_->compare_and_swap("sum", std::to_string(value + 1), revision);
        if (swapped.ok()) ++done;
        ASSERT_TRUE(swapped.ok() || absl::IsAborted(swapped.status())) << swapped.status();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(value_of("sum"), std::to_string(kThreads * kAdds));
}

INSTANTIATE_TEST_SUITE_P(All, ClusterBlockTest, ::testing::Values("memory", "sqlite", "etcd"),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace sluice
