// Merges of divergent slots over real stores, archives and streams, against a plain reference: the
// newest of all records written, and the differences counted record by record.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/pipeline/merge_lists.h"
#include "tests/dataplane/pipeline/cluster.h"

namespace sluice {
namespace {

// Each holder of a key gets one of a few records of it, or none; some slots have copies without a
// record, or are held by one node alone.
void fill_at_random(Cluster& cluster, uint64_t seed, size_t keys, size_t max_value) {
  Random random(seed);
  std::vector<std::vector<Record>> of_node(cluster.size());
  for (size_t i = 0; i < keys; ++i) {
    const std::string key = fmt::format("key-{:05}", i);
    const uint32_t slot = slot_of(key, cluster.options.slot_bits);
    std::vector<size_t> holders = cluster.holders(slot);
    if (slot % 5 == 1) holders.erase(holders.begin());  // a copy without any record
    if (slot % 5 == 2) holders.resize(1);
    std::vector<Record> versions;
    for (size_t v = 0; v < 1 + random.below(3); ++v) {
      const auto ms = -static_cast<int64_t>(random.below(3));
      const auto stamper = static_cast<uint32_t>(1 + random.below(2));
      const size_t bytes =
          random.chance(0.01) ? random.below(size_t{3} << 20) : random.below(max_value + 1);
      versions.push_back(random.chance(0.2)
                             ? make_tombstone(key, ms, stamper)
                             : make_record(key, random_value(random, bytes), ms, stamper));
    }
    for (const size_t node : holders) {
      if (random.chance(0.1)) continue;
      of_node[node].push_back(versions[random.chance(0.7) ? 0 : random.below(versions.size())]);
    }
  }
  for (size_t node = 0; node < cluster.size(); ++node) {
    cluster.put_all_at(node, of_node[node]);
  }
}

// What the report has to say of the divergent slots.
DivergenceReport count_differences(Cluster& cluster, const Backup& backup) {
  DivergenceReport counted;
  for (const auto& [key, newest] : cluster.newest()) {
    const uint32_t slot = slot_of(key, cluster.options.slot_bits);
    if (backup.is_agreed.at(slot)) continue;
    const RecordSummary winner = newest.view().summary();
    bool differs = false;
    for (const size_t node : cluster.holders(slot)) {
      const auto found = cluster.written[node].find(key);
      if (found == cluster.written[node].end()) {
        ++counted.missing;
      } else if (found->second.version < winner.version) {
        ++counted.stale;
      } else if (found->second.view().summary() != winner) {
        ++counted.conflicting;
      } else {
        continue;
      }
      differs = true;
    }
    counted.records_differing += differs;
  }
  return counted;
}

DivergenceReport reported(const Backup& backup) {
  DivergenceReport report;
  for (const Backup::Target& target : backup.targets) {
    report.merge(target.consolidation->progress().divergence);
  }
  return report;
}

void expect_same_counts(const DivergenceReport& report, const DivergenceReport& expected) {
  EXPECT_EQ(report.stale, expected.stale);
  EXPECT_EQ(report.missing, expected.missing);
  EXPECT_EQ(report.conflicting, expected.conflicting);
  EXPECT_EQ(report.records_differing, expected.records_differing);
}

void expect_archived(Cluster& cluster, const Backup& backup) {
  const std::map<std::string, Record> found = archived(backup.folders());
  const std::map<std::string, Record> expected = cluster.newest();
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& [key, record] : expected) {
    const auto at = found.find(key);
    ASSERT_NE(at, found.end()) << key;
    EXPECT_EQ(at->second.view().summary(), record.view().summary()) << key;
  }
  const auto report = verify_archive(backup.folders(), *cluster.node(0).arena, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->bad.empty());
}

uint64_t records_sent(const Backup& backup) {
  uint64_t records = backup.sent.records;
  for (const auto& source : backup.merge_sources) records += source->counters().records;
  return records;
}

TEST(MergeTest, RandomReplicasGiveTheNewestOfEveryRecordSentOnce) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Random random(seed);
    ClusterOptions options;
    options.nodes = 3 + random.below(3);
    options.replicas = 2 + random.below(2);
    options.slot_bits = 4;
    Cluster cluster(options);
    fill_at_random(cluster, seed, 400, 6'000);
    cluster.cut();
    std::vector<size_t> targets = {0};
    if (random.chance(0.5)) targets.push_back(2);
    Backup backup(cluster, targets);
    for (Backup::Target& target : backup.targets) {
      // Lists that are full after a few runs: several passes.
      const size_t list_bytes[] = {24, 40, kMaxBlockBytes};
      target.options.merge_list_bytes = list_bytes[seed % 3];
      target.options.merge_workers = 1 + random.below(3);
      target.options.merge_streams = 2 + random.below(6);
    }
    backup.start();
    const absl::Status status = backup.send();
    ASSERT_TRUE(status.ok()) << status;
    backup.commit();
    expect_same_counts(reported(backup), count_differences(cluster, backup));
    expect_archived(cluster, backup);
    EXPECT_EQ(records_sent(backup), backup.manifest.records());
    for (const Backup::Target& target : backup.targets) {
      EXPECT_EQ(target.consolidation->progress().slots_refused, 0u);
    }
    // Each source was told of each of its slots, once.
    std::map<uint32_t, int> senders;
    for (const auto& [slot, agreed] : backup.is_agreed) {
      senders[slot] = agreed ? 1 : static_cast<int>(options.replicas);
    }
    EXPECT_EQ(backup.durable_events, senders);
  }
}

TEST(MergeTest, TheWireCarriesLittleMoreThanOneCopy) {
  ClusterOptions options;
  options.slot_bits = 5;
  options.replicas = 3;
  Cluster cluster(options);
  Random random(5);
  std::vector<Record> all;
  for (int i = 0; i < 3000; ++i) {
    all.push_back(make_record(fmt::format("key-{:08}", i), random_value(random, 4096), -1));
  }
  std::vector<Record> held(all.begin() + 150, all.end());
  cluster.put_all_at(0, all);
  cluster.put_all_at(1, held);  // one in twenty was missed
  cluster.put_all_at(2, all);
  cluster.cut();
  Backup backup(cluster, {0, 1, 2});
  size_t divergent = 0;
  for (const auto& [slot, agreed] : backup.is_agreed) divergent += agreed ? 0 : 1;
  EXPECT_GT(divergent, 25u);
  const uint64_t before = backup.stream_bytes();
  backup.start();
  const absl::Status status = backup.send();
  ASSERT_TRUE(status.ok()) << status;
  const uint64_t bytes = backup.stream_bytes() - before;
  backup.commit();
  EXPECT_LE(static_cast<double>(bytes), 1.15 * static_cast<double>(backup.manifest.bytes()));
  EXPECT_EQ(reported(backup).missing, 150u);
  expect_archived(cluster, backup);
}

// A cut that says something else than it holds, as often as it is told to.
class LyingCut final : public CutReader {
 public:
  enum class Lie { kLeaveOut, kOtherValue, kOlder };
  LyingCut(std::shared_ptr<CutReader> inner, Lie lie, uint32_t slot, int times)
      : inner_(std::move(inner)), lie_(lie), slot_(slot), times_(times) {}
  std::unique_ptr<SlotScan> scan(uint32_t slot) override {
    return std::make_unique<Scan>(*this, inner_->scan(slot), slot == slot_);
  }
  const std::vector<SlotDigest>& digests() const override { return inner_->digests(); }
  int told() const { return told_; }

 private:
  class Scan final : public SlotScan {
   public:
    Scan(LyingCut& cut, std::unique_ptr<SlotScan> inner, bool lies)
        : cut_(cut), inner_(std::move(inner)), lies_(lies) {}
    absl::StatusOr<bool> next(Item* item) override {
      absl::StatusOr<bool> more = inner_->next(item);
      if (!lies_ || lied_ || !more.ok() || !*more || item->summary.value_bytes == 0) return more;
      if (cut_.lie_ == Lie::kLeaveOut && cut_.may_lie()) {
        lied_ = true;
        return inner_->next(item);
      }
      // So that it is asked for the value.
      if (cut_.lie_ == Lie::kOtherValue) item->inline_value = {};
      if (cut_.lie_ == Lie::kOlder && cut_.may_lie()) {
        lied_ = true;
        --item->summary.version.stamp;
      }
      return more;
    }
    absl::Status read_value(uint64_t offset, std::span<uint8_t> into) override {
      const absl::Status status = inner_->read_value(offset, into);
      if (lies_ && !lied_ && !into.empty() && cut_.lie_ == Lie::kOtherValue && cut_.may_lie()) {
        lied_ = true;
        into[0] ^= 1;
      }
      return status;
    }

   private:
    LyingCut& cut_;
    const std::unique_ptr<SlotScan> inner_;
    const bool lies_;
    bool lied_ = false;
  };
  bool may_lie() {
    if (told_ >= times_) return false;
    ++told_;
    return true;
  }

  const std::shared_ptr<CutReader> inner_;
  const Lie lie_;
  const uint32_t slot_;
  const int times_;
  std::atomic<int> told_{0};
};

// Two nodes; the second one lacks some records of every slot.
void fill_one_sided(Cluster& cluster) {
  Random random(9);
  std::vector<Record> all;
  std::vector<Record> some;
  for (int i = 0; i < 200; ++i) {
    all.push_back(make_record(fmt::format("key-{:04}", i), random_value(random, 500), -1));
    if (i % 5 != 0) some.push_back(all.back());
  }
  cluster.put_all_at(0, all);
  cluster.put_all_at(1, some);
}

ClusterOptions two_nodes() {
  ClusterOptions options;
  options.nodes = 2;
  options.slot_bits = 2;
  return options;
}

// Of a node that is a source of its own: its limit holds such messages back.
TEST(MergeTest, ALimitIsWaitedForAndNotTakenForABrokenStream) {
  ClusterOptions options;
  options.nodes = 2;
  options.slot_bits = 1;
  options.bytes_per_second = 2 << 20;
  Cluster cluster(options);
  for (int i = 0; i < 10; ++i) {
    cluster.put_at(0, make_record(fmt::format("key-{}", i), "newer", -1));
    cluster.put_at(1, make_record(fmt::format("key-{}", i), "older", -2));
  }
  cluster.cut();
  Backup backup(cluster, {0});
  backup.serve_merges();
  cluster.node(0).limit->in.take(5 << 20);  // two seconds of it
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  EXPECT_EQ(backup.targets[0].consolidation->progress().slots_refused, 0);
  backup.commit();
}

TEST(MergeTest, ACopyThatIsNotThePublishedOneFailsTheJobAndIsNamed) {
  for (const LyingCut::Lie lie :
       {LyingCut::Lie::kLeaveOut, LyingCut::Lie::kOtherValue, LyingCut::Lie::kOlder}) {
    Cluster cluster(two_nodes());
    fill_one_sided(cluster);
    cluster.cut();
    Backup backup(cluster, {1});
    backup.cuts[0] = std::make_shared<LyingCut>(backup.cuts[0], lie, 2, 1'000'000);
    backup.merge_patience_ms = 100;
    backup.start();
    EXPECT_FALSE(backup.send().ok());
    const absl::Status ended = backup.targets[0].consolidation->wait(20'000);
    EXPECT_EQ(ended.code(), absl::StatusCode::kDataLoss) << ended;
    EXPECT_THAT(std::string(message_of(ended)), testing::HasSubstr("slot 2"));
    EXPECT_THAT(std::string(message_of(ended)), testing::HasSubstr("n1"));
    EXPECT_EQ(backup.targets[0].consolidation->progress().slots_refused,
              backup.targets[0].options.slot_tries);
  }
}

TEST(MergeTest, ASlotStartsOverAndNothingOfItsFirstTryIsKept) {
  for (const LyingCut::Lie lie :
       {LyingCut::Lie::kLeaveOut, LyingCut::Lie::kOtherValue, LyingCut::Lie::kOlder}) {
    Cluster cluster(two_nodes());
    fill_one_sided(cluster);
    cluster.cut();
    Backup backup(cluster, {1});
    const auto liar = std::make_shared<LyingCut>(backup.cuts[0], lie, 2, 2);
    backup.cuts[0] = liar;
    backup.start();
    const absl::Status status = backup.send();
    ASSERT_TRUE(status.ok()) << status;
    backup.commit();
    EXPECT_EQ(liar->told(), 2);
    EXPECT_EQ(backup.targets[0].consolidation->progress().slots_refused, 2u);
    expect_same_counts(reported(backup), count_differences(cluster, backup));
    expect_archived(cluster, backup);
  }
}

TEST(MergeTest, ASourceThatDiesIsWaitedForAndToldAgain) {
  ClusterOptions options;
  options.slot_bits = 6;
  Cluster cluster(options);
  fill_at_random(cluster, 21, 1500, 20'000);
  cluster.cut();
  Backup backup(cluster, {0});
  std::atomic<int> starts{1};
  Backup::Target& target = backup.targets[0];
  const auto find = target.options.find_source;
  target.options.find_source = [&](const std::string& node) -> absl::StatusOr<MergePeer> {
    absl::StatusOr<MergePeer> peer = find(node);
    if (peer.ok() && node == "n2") peer->start = fmt::format("start {}", starts.load());
    return peer;
  };
  target.options.sync_ms = 1;
  std::atomic<size_t> received{0};
  target.options.on_slot_received = [&](uint32_t) { ++received; };
  backup.serve_merges();
  backup.start();
  for (const size_t slots : {3, 10}) {
    while (received < slots) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    backup.merge_sources[1].reset();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    ++starts;
    backup.serve_merges(1);
  }
  const absl::Status status = backup.send();
  ASSERT_TRUE(status.ok()) << status;
  // All is durable; who comes now has to be told all the same.
  backup.merge_sources[1].reset();
  ++starts;
  backup.serve_merges(1);
  const absl::Status again = backup.merge_sources[1]->wait_durable(20'000);
  EXPECT_TRUE(again.ok()) << again;
  backup.commit();
  expect_same_counts(reported(backup), count_differences(cluster, backup));
  expect_archived(cluster, backup);
}

TEST(MergeTest, MoreTargetsAndSourcesThanThereIsRoomFor) {
  ClusterOptions options;
  options.nodes = 7;
  options.replicas = 3;
  options.slot_bits = 7;
  Cluster cluster(options);
  fill_at_random(cluster, 31, 2500, 2'000);
  cluster.cut();
  Backup backup(cluster, {0, 1, 2, 3, 4, 5, 6});
  for (Backup::Target& target : backup.targets) target.options.merge_streams = 3;
  backup.adjust_merge = [](MergeSourceOptions& merge) { merge.max_streams = 2; };
  backup.start();
  const absl::Status status = backup.send();
  ASSERT_TRUE(status.ok()) << status;
  uint64_t refused = 0;
  for (const auto& source : backup.merge_sources) refused += source->counters().refused;
  EXPECT_GT(refused, 0u) << "there was room for all: nothing was tried";
  backup.commit();
  expect_same_counts(reported(backup), count_differences(cluster, backup));
  expect_archived(cluster, backup);
}

TEST(MergeTest, AnotherAttemptGoesOnFromWhatIsDurable) {
  ClusterOptions options;
  options.slot_bits = 5;
  Cluster cluster(options);
  fill_at_random(cluster, 41, 1000, 10'000);
  cluster.cut();
  DivergenceReport report;
  std::mutex mutex;
  std::set<uint32_t> durable;
  {
    Backup first(cluster, {1}, 1);
    first.targets[0].options.sync_ms = 1;
    first.targets[0].options.merge_workers = 1;
    first.targets[0].options.on_slot_durable = [&](uint32_t slot) {
      const std::lock_guard lock(mutex);
      durable.insert(slot);
    };
    first.serve_merges();
    first.start();
    for (;;) {
      {
        const std::lock_guard lock(mutex);
        if (durable.size() >= 5) break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    first.targets[0].consolidation->cancel();
    // What was under way then may have become durable.
    first.targets[0].consolidation->wait(30'000).IgnoreError();
    report.merge(reported(first));
  }
  Backup second(cluster, {1}, 2);
  second.targets[0].options.on_slot_received = [&](uint32_t slot) {
    EXPECT_FALSE(durable.contains(slot)) << slot;
  };
  second.start();
  const absl::Status status = second.send();
  ASSERT_TRUE(status.ok()) << status;
  second.commit();
  report.merge(reported(second));
  expect_same_counts(report, count_differences(cluster, second));
  expect_archived(cluster, second);
}

TEST(MergeTest, OneOfEqualCopiesWillDo) {
  ClusterOptions options;
  options.replicas = 3;
  Cluster cluster(options);
  Random random(7);
  std::vector<Record> all;
  for (int i = 0; i < 500; ++i) {
    all.push_back(make_record(fmt::format("key-{:04}", i), random_value(random, 300), -1));
  }
  for (const size_t node : {0, 2}) cluster.put_all_at(node, all);
  all.resize(100);
  cluster.put_all_at(1, all);
  cluster.cut();
  Backup backup(cluster, {1});
  for (const auto& [slot, agreed] : backup.is_agreed) ASSERT_FALSE(agreed) << slot;
  backup.serve_merges();
  backup.merge_sources[0].reset();
  backup.start();
  // Its slots are not waited for; it is told as soon as it is there.
  ASSERT_TRUE(backup.targets[0].consolidation->wait(30'000).ok());
  EXPECT_EQ(backup.merge_sources[2]->counters().records, 500u);
  backup.serve_merges(0);
  const absl::Status status = backup.send();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(backup.merge_sources[0]->counters().records, 0u);
  backup.commit();
  expect_same_counts(reported(backup), count_differences(cluster, backup));
  expect_archived(cluster, backup);
}

TEST(MergeTest, AnOlderAttemptIsRefused) {
  Cluster cluster(two_nodes());
  fill_one_sided(cluster);
  cluster.cut();
  Backup backup(cluster, {1}, 1);
  Backup newer(cluster, {1}, 2);
  newer.serve_merges();
  backup.targets[0].options.idle_timeout_ms = 300;
  backup.start();
  const absl::Status ended = backup.targets[0].consolidation->wait(20'000);
  EXPECT_EQ(ended.code(), absl::StatusCode::kDeadlineExceeded) << ended;
  EXPECT_EQ(backup.targets[0].consolidation->progress().slots_received, 0u);
  for (const auto& source : newer.merge_sources) EXPECT_EQ(source->counters().wire_bytes, 0u);
}

// Speaks the target's part by hand.
class HandMadeTarget {
 public:
  HandMadeTarget(Cluster& cluster, size_t from, size_t source) {
    Exchange::ConnectOptions options;
    options.address = cluster.node(source).exchange->address();
    options.kind = StreamKind::kBackupMerge;
    options.job = kBackup;
    options.attempt = 1;
    options.receive_blocks = 2;
    auto connected = cluster.node(from).exchange->connect(options);
    EXPECT_TRUE(connected.ok()) << connected.status();
    if (connected.ok()) stream = *std::move(connected);
  }
  absl::Status ask(MessageKind kind, uint32_t slot, std::string_view payload) {
    Envelope envelope;
    envelope.kind = kind;
    envelope.slot = slot;
    envelope.attempt = 1;
    envelope.sequence = ++requests << 32;
    return stream->send_control(envelope, payload, 5'000);
  }
  // Why the source ended the stream.
  absl::Status end() {
    for (int i = 0; i < 1'000; ++i) {
      const auto message = stream->receive(10);
      if (!message.ok() && stream->closed()) return stream->closed_reason();
    }
    return absl::OkStatus();
  }
  std::shared_ptr<Stream> stream;
  uint64_t requests = 0;
};

TEST(MergeTest, ASourceRefusesWhatIsNotARequest) {
  using namespace std::string_literals;
  Cluster cluster(two_nodes());
  fill_one_sided(cluster);
  cluster.cut();
  Backup backup(cluster, {1});
  backup.serve_merges();
  const auto section = [](const std::string& list) {
    uint8_t header[MergeSection::kHeaderBytes];
    MergeSection::write_header(header, 0, true, static_cast<uint32_t>(list.size()));
    return std::string(as_string_view(header)) + list;
  };
  const struct {
    MessageKind kind;
    uint32_t slot;
    std::string payload;
  } bad[] = {{MessageKind::kSummaryRequest, 0, ""},
             {MessageKind::kSummaryRequest, 0, "\0"s},
             {MessageKind::kSummaryRequest, 1, "\0\0\0\0\0"s},
             {MessageKind::kSummaryRequest, 77, "\0\x4d\0\0\0"s},
             {MessageKind::kRecordRequest, 0, ""},
             {MessageKind::kRecordRequest, 0, section("")},
             {MessageKind::kRecordRequest, 0, section("\1\0"s)},
             {MessageKind::kRecordRequest, 0, section("\0\1").substr(0, 9)},
             {MessageKind::kWriteReply, 0, ""},
             {MessageKind::kSlotsDurable, 0, "\x63\0\0\0"s}};
  for (const auto& request : bad) {
    HandMadeTarget target(cluster, 1, 0);
    ASSERT_TRUE(target.ask(request.kind, request.slot, request.payload).ok());
    EXPECT_EQ(target.end().code(), absl::StatusCode::kDataLoss)
        << static_cast<int>(request.kind) << " " << target.end();
  }
  // More records than there are: the target's mistake, not the cut's.
  HandMadeTarget target(cluster, 1, 0);
  ASSERT_TRUE(target.ask(MessageKind::kRecordRequest, 0, section("\0\xff\x7f"s)).ok());
  EXPECT_EQ(target.end().code(), absl::StatusCode::kInvalidArgument) << target.end();
  EXPECT_TRUE(absl::IsDeadlineExceeded(backup.merge_sources[0]->wait_durable(0)));
}

TEST(MergeTest, ATargetThatTakesNothingHoldsUpNobodyElse) {
  ClusterOptions options = two_nodes();
  options.nodes = 3;
  options.replicas = 3;
  Cluster cluster(options);
  Random random(3);
  std::vector<Record> all;
  for (int i = 0; i < 40; ++i) {
    all.push_back(make_record(fmt::format("key-{:04}", i), random_value(random, 900'000), -1));
  }
  cluster.put_all_at(0, all);
  all.resize(20);
  cluster.put_all_at(1, all);
  cluster.put_all_at(2, all);
  cluster.cut();
  Backup backup(cluster, {1});
  backup.adjust_merge = [](MergeSourceOptions& merge) { merge.workers = 1; };
  backup.serve_merges();
  // Asks for everything, and reads nothing of it.
  std::vector<std::unique_ptr<HandMadeTarget>> stuck;
  for (uint32_t slot = 0; slot < 4; ++slot) {
    stuck.push_back(std::make_unique<HandMadeTarget>(cluster, 1, 0));
    uint8_t header[MergeSection::kHeaderBytes];
    MergeSection::write_header(header, slot, true, 2);
    const std::string list = std::string(as_string_view(header)) + std::string("\0\5", 2);
    ASSERT_TRUE(stuck.back()->ask(MessageKind::kRecordRequest, slot, list).ok());
  }
  backup.start();
  const absl::Status status = backup.send();
  EXPECT_TRUE(status.ok()) << status;
  backup.commit();
  expect_archived(cluster, backup);
}

}  // namespace
}  // namespace sluice
