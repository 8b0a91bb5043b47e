// Backups over real stores, archives and tcp, restored and compared record by record.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <future>
#include <thread>

#include "base/status.h"
#include "dataplane/pipeline/slot_packer.h"
#include "tests/dataplane/pipeline/cluster.h"

namespace sluice {
namespace {

void fill(Cluster& cluster, uint64_t seed, size_t records, size_t max_value) {
  Random random(seed);
  std::vector<Record> all;
  for (size_t i = 0; i < records; ++i) {
    all.push_back(make_record(fmt::format("key-{:06}", i),
                              random_value(random, random.below(max_value + 1)),
                              -static_cast<int64_t>(random.below(100'000))));
  }
  cluster.put_all(all);
}

void expect_verifies(Cluster& cluster, const Backup& backup) {
  absl::StatusOr<VerifyReport> report =
      verify_archive(backup.folders(), *cluster.node(0).arena, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  for (const VerifyProblem& problem : report->bad) {
    ADD_FAILURE() << problem.file << " at " << problem.offset << ": " << problem.reason;
  }
}

// What the archive holds, read back through a restore into an empty cluster.
void expect_restores_to(const std::vector<std::string>& folders,
                        const std::map<std::string, Record>& expected, uint32_t slot_bits,
                        size_t nodes, size_t replicas) {
  ClusterOptions options;
  options.nodes = nodes;
  options.replicas = replicas;
  options.slot_bits = slot_bits;
  options.cluster = "bbbbbbbb-2222-4333-8444-555555555555";
  Cluster into(options);
  into.serve_writes();
  absl::StatusOr<std::unique_ptr<ArchiveReader>> archive = ArchiveReader::open(folders);
  ASSERT_TRUE(archive.ok()) << archive.status();
  RestoreOptions restore_options;
  restore_options.id = "restore-1";
  restore_options.cluster = options.cluster;
  absl::StatusOr<RestoreResult> result =
      restore(*into.node(0).exchange, **archive, into.node(0).router, restore_options);
  ASSERT_TRUE(result.ok()) << result.status();
  for (const RestoreUnit& unit : result->failed) ADD_FAILURE() << unit.node << ": " << unit.reason;
  uint64_t live = 0;
  uint64_t bytes = 0;
  for (const auto& [key, record] : expected) {
    live += !record.tombstone;
    if (!record.tombstone) bytes += key.size() + record.value.size();
  }
  EXPECT_EQ(result->records, live);
  EXPECT_EQ(result->bytes, bytes);
  EXPECT_EQ(result->written, live);
  EXPECT_FALSE(result->kept.any());
  uint64_t at_nodes = 0;
  for (const auto& [name, node] : result->nodes) at_nodes += node.records;
  EXPECT_EQ(at_nodes, live * replicas);
  for (uint32_t slot = 0; slot < into.slots(); ++slot) {
    for (const size_t i : into.holders(slot)) {
      EXPECT_EQ(into.node(i).store->digest(slot), result->expected[slot]) << "slot " << slot;
    }
  }
  for (size_t i = 0; i < nodes; ++i) {
    const std::map<std::string, Record> here = contents(*into.node(i).store);
    size_t due = 0;
    for (const auto& [key, record] : expected) {
      const std::vector<size_t> holders = into.holders(slot_of(key, slot_bits));
      if (std::find(holders.begin(), holders.end(), i) == holders.end()) continue;
      ++due;
      const auto found = here.find(key);
      ASSERT_NE(found, here.end()) << key;
      EXPECT_EQ(found->second.view().summary(), record.view().summary()) << key;
    }
    EXPECT_EQ(here.size(), due);
  }
}

TEST(BackupTest, AgreedCopiesAreArchivedOnceAndRestore) {
  Cluster cluster({});
  fill(cluster, 1, 600, 3000);
  cluster.cut();
  Backup backup(cluster, {0, 2});
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  backup.commit();
  EXPECT_EQ(backup.sent.records, 600);
  EXPECT_EQ(backup.sent.slots_repeated, 0);
  EXPECT_EQ(backup.manifest.records(), 600);
  for (const auto& [slot, agreed] : backup.is_agreed) EXPECT_TRUE(agreed);
  expect_verifies(cluster, backup);
  expect_restores_to(backup.folders(), cluster.newest(), 4, 3, 2);
}

TEST(BackupTest, SlotsWithoutRecordsAndTombstonesAlone) {
  ClusterOptions options;
  options.slot_bits = 8;
  Cluster cluster(options);
  cluster.put(make_record("one", "value", -5));
  cluster.put(make_tombstone("gone", -4));
  cluster.put(make_record("empty value", "", -4));
  cluster.cut();
  Backup backup(cluster, {1});
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  backup.commit();
  EXPECT_EQ(backup.sent.slots, 256);
  expect_verifies(cluster, backup);
  expect_restores_to(backup.folders(), cluster.newest(), 8, 2, 2);
}

TEST(BackupTest, LargeValuesTravelInFragments) {
  Cluster cluster({});
  Random random(3);
  for (const size_t bytes : {size_t{1} << 20, (size_t{1} << 20) + 1, size_t{5} << 20,
                             (size_t{9} << 20) + 12345, size_t{700'000}, size_t{0}}) {
    cluster.put(make_record(fmt::format("large-{}", bytes), random_value(random, bytes), -1));
  }
  fill(cluster, 4, 200, 100'000);
  cluster.cut();
  Backup backup(cluster, {0});
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  backup.commit();
  expect_verifies(cluster, backup);
  expect_restores_to(backup.folders(), cluster.newest(), 4, 3, 3);
}

// Makes every kind of difference between two replicas, and counts them as the report should.
struct Differences {
  uint64_t stale = 0;
  uint64_t missing = 0;
  uint64_t conflicting = 0;
  uint64_t keys = 0;
};

Differences make_divergent(Cluster& cluster, uint64_t seed) {
  Random random(seed);
  Differences made;
  for (int i = 0; i < 300; ++i) {
    const std::string key = fmt::format("record-{:04}", i);
    const size_t bytes =
        i % 50 == 7 ? (size_t{2} << 20) + random.below(1 << 20) : random.below(5000);
    const std::vector<size_t> holders = cluster.holders(slot_of(key, cluster.options.slot_bits));
    const Record old = make_record(key, random_value(random, bytes), -1000);
    const size_t odd = holders[random.below(holders.size())];
    switch (random.below(6)) {
      case 0: {  // one copy is older
        const Record newer = make_record(key, random_value(random, bytes), -500);
        for (const size_t node : holders) cluster.put_at(node, node == odd ? old : newer);
        ++made.stale;
        ++made.keys;
        break;
      }
      case 1:  // one copy is not there
        for (const size_t node : holders) {
          if (node != odd) cluster.put_at(node, old);
        }
        ++made.missing;
        ++made.keys;
        break;
      case 2: {  // the same version with another value; the larger digest wins
        const Record other = make_record(key, random_value(random, bytes + 1), -1000);
        const bool odd_wins = old.view().summary() < other.view().summary();
        for (const size_t node : holders) cluster.put_at(node, node == odd ? other : old);
        made.conflicting += odd_wins ? holders.size() - 1 : 1;
        ++made.keys;
        break;
      }
      case 3:  // one copy missed the deletion
        for (const size_t node : holders) {
          cluster.put_at(node, old);
          if (node != odd) cluster.put_at(node, make_tombstone(key, -10));
        }
        ++made.stale;
        ++made.keys;
        break;
      case 4:  // a tombstone and a value of one version
        for (const size_t node : holders) {
          cluster.put_at(node, node == odd ? make_tombstone(key, -1000) : old);
        }
        made.conflicting += holders.size() - 1;  // tombstones win
        ++made.keys;
        break;
      default:
        cluster.put(old);
    }
  }
  return made;
}

TEST(BackupTest, DivergentCopiesAreMergedAndCounted) {
  ClusterOptions options;
  options.nodes = 4;
  options.replicas = 3;
  options.slot_bits = 3;
  Cluster cluster(options);
  const Differences made = make_divergent(cluster, 11);
  cluster.cut();
  Backup backup(cluster, {0, 1});
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  backup.commit();
  DivergenceReport report;
  for (Backup::Target& target : backup.targets) {
    report.merge(target.consolidation->progress().divergence);
  }
  EXPECT_EQ(report.stale, made.stale);
  EXPECT_EQ(report.missing, made.missing);
  EXPECT_EQ(report.conflicting, made.conflicting);
  EXPECT_EQ(report.records_differing, made.keys);
  EXPECT_EQ(report.examples.size(),
            std::min(DivergenceReport::kMaxExamples, report.examples.size()));
  EXPECT_FALSE(report.examples.empty());
  expect_verifies(cluster, backup);
  expect_restores_to(backup.folders(), cluster.newest(), 3, 3, 2);
}

// Of agreed slots: what came is what is kept, and what is counted as dropped.
void expect_accounts_for_all(const Consolidation::Progress& progress) {
  EXPECT_NEAR(static_cast<double>(progress.received_bytes - progress.dropped_bytes),
              static_cast<double>(progress.record_bytes),
              static_cast<double>(progress.record_bytes) / 50);
}

TEST(BackupTest, BrokenStreamsAreOpenedAgainAndNothingDurableIsSentTwice) {
  uint64_t reconnects = 0;
  uint64_t merges_again = 0;
  for (const uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    ClusterOptions options;
    options.slot_bits = 5;
    options.with_faults = true;
    options.faults.seed = seed;
    // With all slots agreed, which take fewer messages.
    const bool divergent = seed != 2;
    options.faults.cut_after_messages = divergent ? 12 + seed : 7;
    options.faults.partial_post = 0.1;
    options.faults.delay = 0.05;
    Cluster cluster(options);
    if (divergent) make_divergent(cluster, seed);
    fill(cluster, seed, 400, 40'000);
    cluster.cut();
    Backup backup(cluster, {0, 1});
    backup.adjust_send = [](SendCopiesOptions& send) { send.backoff_ms = 5; };
    for (Backup::Target& target : backup.targets) target.options.sync_ms = 5;
    backup.start();
    const absl::Status status = backup.send();
    ASSERT_TRUE(status.ok()) << status;
    backup.commit();
    reconnects += backup.sent.reconnects;
    for (const Backup::Target& target : backup.targets) {
      const Consolidation::Progress progress = target.consolidation->progress();
      if (divergent) {
        merges_again += progress.slots_refused;
      } else {
        expect_accounts_for_all(progress);
      }
      EXPECT_LE(progress.repeated_bytes, (backup.sent.reconnects + 1) * 4 * kMaxBlockBytes);
    }
    expect_verifies(cluster, backup);
    for (auto& node : cluster.nodes) EXPECT_GT(node->exchange->counters().sent_bytes, 0);
    expect_restores_to(backup.folders(), cluster.newest(), 5, 2, 2);
  }
  EXPECT_GT(reconnects, 0u);
  EXPECT_GT(merges_again, 0u);
}

// A cut that is read slowly, the first slot more so.
class SlowCut final : public CutReader {
 public:
  explicit SlowCut(std::shared_ptr<CutReader> inner) : inner_(std::move(inner)) {}
  std::unique_ptr<SlotScan> scan(uint32_t slot) override {
    return std::make_unique<Scan>(*this, inner_->scan(slot));
  }
  const std::vector<SlotDigest>& digests() const override { return inner_->digests(); }

 private:
  class Scan final : public SlotScan {
   public:
    Scan(SlowCut& cut, std::unique_ptr<SlotScan> inner) : cut_(cut), inner_(std::move(inner)) {}
    absl::StatusOr<bool> next(Item* item) override {
      if (!begun_) {
        const bool first = !cut_.slept_.exchange(true);
        std::this_thread::sleep_for(std::chrono::milliseconds(first ? 300 : 30));
        begun_ = true;
      }
      return inner_->next(item);
    }
    absl::Status read_value(uint64_t offset, std::span<uint8_t> into) override {
      return inner_->read_value(offset, into);
    }

   private:
    SlowCut& cut_;
    const std::unique_ptr<SlotScan> inner_;
    bool begun_ = false;
  };
  const std::shared_ptr<CutReader> inner_;
  std::atomic<bool> slept_{false};
};

// What was begun on the broken stream ends when another one is in use already.
TEST(BackupTest, ASlotThatIsReadSlowlyDoesNotBreakTheNextStream) {
  ClusterOptions options;
  options.slot_bits = 5;
  options.with_faults = true;
  options.faults.cut_after_messages = 6;
  Cluster cluster(options);
  fill(cluster, 9, 400, 3'000);
  cluster.cut();
  Backup backup(cluster, {1});
  for (auto& cut : backup.cuts) cut = std::make_shared<SlowCut>(cut);
  backup.adjust_send = [](SendCopiesOptions& send) { send.backoff_ms = 5; };
  for (Backup::Target& target : backup.targets) {
    target.options.sync_ms = 5;
    target.options.idle_timeout_ms = 5'000;
  }
  backup.start();
  const absl::Status status = backup.send();
  ASSERT_TRUE(status.ok()) << status;
  backup.commit();
  EXPECT_GT(backup.sent.reconnects, 0u);
}

TEST(BackupTest, DamageOnTheWayIsRefusedAndSentAgain) {
  ClusterOptions options;
  options.slot_bits = 6;
  options.with_faults = true;
  options.faults.seed = 5;
  options.faults.flip_bit = 0.2;
  options.faults.flip_from_bytes = 20'000;
  Cluster cluster(options);
  fill(cluster, 6, 2000, 20'000);
  cluster.cut();
  Backup backup(cluster, {0});
  backup.targets[0].options.slot_tries = 50;
  backup.adjust_send = [](SendCopiesOptions& send) { send.backoff_ms = 5; };
  backup.start();
  const absl::Status status = backup.send();
  ASSERT_TRUE(status.ok()) << status;
  backup.commit();
  EXPECT_GT(backup.targets[0].consolidation->progress().slots_refused, 0);
  EXPECT_GT(backup.targets[0].consolidation->progress().dropped_bytes, 0);
  expect_accounts_for_all(backup.targets[0].consolidation->progress());
  EXPECT_GT(backup.sent.slots_repeated, 0);
  expect_verifies(cluster, backup);
  expect_restores_to(backup.folders(), cluster.newest(), 6, 2, 1);
}

TEST(BackupTest, AnotherAttemptGoesOnFromWhatIsDurable) {
  Cluster cluster({});
  fill(cluster, 7, 800, 20'000);
  cluster.cut();
  std::set<uint32_t> durable;
  {
    Backup first(cluster, {1}, 1);
    first.targets[0].options.sync_ms = 1;
    first.targets[0].options.on_slot_durable = [&](uint32_t slot) { durable.insert(slot); };
    first.adjust_send = [](SendCopiesOptions& send) {
      send.agreed.resize(send.agreed.size() / 2);
      send.packers = 1;
      send.agreed_buffers = 1;
    };
    first.start();
    const absl::Status status = first.send();
    EXPECT_TRUE(status.ok()) << status;
    Consolidation& consolidation = *first.targets[0].consolidation;
    EXPECT_EQ(consolidation.wait(0).code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(consolidation.finish().status().code(), absl::StatusCode::kFailedPrecondition);
    consolidation.cancel();
    EXPECT_EQ(consolidation.wait(0).code(), absl::StatusCode::kCancelled);
  }
  ASSERT_GE(durable.size(), 5u);
  ASSERT_LT(durable.size(), cluster.slots());
  Backup second(cluster, {1}, 2);
  second.start();
  std::mutex mutex;
  std::set<uint32_t> sent_again;
  second.adjust_send = [&](SendCopiesOptions& send) {
    send.on_slot_sent = [&](uint32_t slot) {
      std::lock_guard lock(mutex);
      if (durable.contains(slot)) sent_again.insert(slot);
    };
  };
  const absl::Status status = second.send();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(sent_again, testing::IsEmpty());
  EXPECT_GE(second.sent.slots_skipped, durable.size());
  second.commit();
  expect_verifies(cluster, second);
  expect_restores_to(second.folders(), cluster.newest(), 4, 3, 2);
}

// The archive's writer, slow to return from what it has done.
class SlowWriter final : public ArchiveWriter {
 public:
  SlowWriter(std::unique_ptr<ArchiveWriter> inner, std::function<void(uint32_t)> finished)
      : inner_(std::move(inner)), finished_(std::move(finished)) {}
  const std::map<uint32_t, SlotDigest>& durable_at_open() const override {
    return inner_->durable_at_open();
  }
  absl::Status append(BlockBuffer block, uint32_t bytes) override {
    return inner_->append(std::move(block), bytes);
  }
  absl::Status finish_slot(uint32_t slot, const SlotDigest& digest,
                           uint64_t newest_stamp) override {
    const absl::Status status = inner_->finish_slot(slot, digest, newest_stamp);
    finished_(slot);
    return status;
  }
  void drop_slot(uint32_t slot) override { inner_->drop_slot(slot); }
  absl::StatusOr<std::vector<uint32_t>> sync() override { return inner_->sync(); }
  absl::StatusOr<PartManifest> finish() override { return inner_->finish(); }
  uint64_t newest_stamp() const override { return inner_->newest_stamp(); }
  absl::Status commit(const Manifest& manifest) override { return inner_->commit(manifest); }

 private:
  const std::unique_ptr<ArchiveWriter> inner_;
  const std::function<void(uint32_t)> finished_;
};

// A sync may make a slot durable before the thread that finished it has noted that it was received.
TEST(BackupTest, ADurableSlotDoesNotFallBackToReceived) {
  Cluster cluster({});
  fill(cluster, 7, 300, 200);
  cluster.cut();
  Backup backup(cluster, {0});
  Backup::Target& target = backup.targets[0];
  std::mutex mutex;
  std::condition_variable changed;
  std::set<uint32_t> durable;
  target.options.sync_bytes = 1;
  target.options.on_slot_durable = [&](uint32_t slot) {
    const std::lock_guard lock(mutex);
    durable.insert(slot);
    changed.notify_all();
  };
  auto opened = ArchiveWriter::open(target.writer_options);
  ASSERT_TRUE(opened.ok()) << opened.status();
  size_t overtaken = 0;
  target.writer = std::make_unique<SlowWriter>(*std::move(opened), [&](uint32_t slot) {
    std::unique_lock lock(mutex);
    overtaken += changed.wait_for(lock, std::chrono::milliseconds(100),
                                  [&] { return durable.contains(slot); });
  });
  auto started = Consolidation::start(*cluster.node(0).exchange, *target.writer, target.options);
  ASSERT_TRUE(started.ok()) << started.status();
  target.consolidation = *std::move(started);
  ASSERT_TRUE(backup.send().ok());
  ASSERT_TRUE(target.consolidation->wait(20'000).ok());
  EXPECT_GT(overtaken, 0u) << "nothing was tried";
  // Sources that come back learn that there is nothing left to send.
  Cancellation late;
  std::atomic<bool> ended{false};
  std::thread watchdog([&] {
    for (int i = 0; i < 2'000 && !ended; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    late.cancel();
  });
  backup.sent = {};
  backup.cancellation = &late;
  const absl::Status again = backup.send();
  ended = true;
  watchdog.join();
  EXPECT_TRUE(again.ok()) << again;
  EXPECT_EQ(backup.sent.slots, cluster.slots());
  EXPECT_EQ(backup.sent.slots_skipped, cluster.slots());
  backup.commit();
}

TEST(BackupTest, AnOlderAttemptIsRefused) {
  Cluster cluster({});
  fill(cluster, 8, 50, 100);
  cluster.cut();
  Backup backup(cluster, {0}, 2);
  backup.start();
  backup.adjust_send = [](SendCopiesOptions& send) { send.attempt = 1; };
  const absl::Status status = backup.send();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(message_of(status)), testing::HasSubstr("attempt 2"));
}

TEST(BackupTest, AFullDiskEndsThePartCleanlyAndALaterAttemptFinishesIt) {
  Cluster cluster({});
  fill(cluster, 9, 600, 30'000);
  cluster.cut();
  std::atomic<int64_t> room{3 << 20};
  {
    Backup first(cluster, {0}, 1);
    first.targets[0].options.sync_ms = 1;
    first.targets[0].writer_options.write = [&](int fd, const void* bytes, size_t size,
                                                off_t offset) -> ssize_t {
      if (room.fetch_sub(static_cast<int64_t>(size)) < static_cast<int64_t>(size)) {
        errno = ENOSPC;
        return -1;
      }
      return ::pwrite(fd, bytes, size, offset);
    };
    first.start();
    EXPECT_FALSE(first.send().ok());
    const absl::Status ended = first.targets[0].consolidation->wait(10'000);
    EXPECT_EQ(ended.code(), absl::StatusCode::kResourceExhausted) << ended;
    EXPECT_EQ(first.targets[0].consolidation->progress().state, Consolidation::State::kFailed);
  }
  Backup second(cluster, {0}, 2);
  second.start();
  const absl::Status status = second.send();
  ASSERT_TRUE(status.ok()) << status;
  second.commit();
  expect_verifies(cluster, second);
  expect_restores_to(second.folders(), cluster.newest(), 4, 2, 2);
}

// Passes streams on to a consolidation, which ends between its two answers to each of them.
class EndsBeforeItHasTheStream final : public StreamHandler {
 public:
  explicit EndsBeforeItHasTheStream(Consolidation& consolidation)
      : consolidation_(consolidation), handler_(dynamic_cast<StreamHandler&>(consolidation)) {}
  absl::StatusOr<Admission> admit(const Hello& hello) override {
    absl::StatusOr<Admission> admission = handler_.admit(hello);
    consolidation_.cancel();
    return admission;
  }
  void accepted(std::shared_ptr<Stream> stream) override { handler_.accepted(std::move(stream)); }

 private:
  Consolidation& consolidation_;
  StreamHandler& handler_;
};

TEST(BackupTest, AStreamThatOpensWhileItsJobEndsIsToldSo) {
  Cluster cluster({});
  fill(cluster, 13, 100, 1000);
  cluster.cut();
  for (const size_t source : {0, 1}) {  // without a wire, and over one
    Backup backup(cluster, {0}, source + 1);
    backup.start();
    Exchange& target = *cluster.node(0).exchange;
    EndsBeforeItHasTheStream handler(*backup.targets[0].consolidation);
    target.withdraw(StreamKind::kBackupAgreed, kBackup);
    ASSERT_TRUE(target.serve(StreamKind::kBackupAgreed, kBackup, &handler).ok());
    SendCopiesOptions options;
    options.job = kBackup;
    options.attempt = backup.attempt;
    options.target = cluster.node(0).name;
    options.address = target.address();
    options.slot_bits = cluster.options.slot_bits;
    options.agreed = backup.targets[0].agreed[source];
    std::promise<void> ended;
    auto sender = CopySender::start(*cluster.node(source).exchange, *backup.cuts[source], options,
                                    [&ended] { ended.set_value(); });
    ASSERT_TRUE(sender.ok()) << sender.status();
    std::future<void> end = ended.get_future();
    EXPECT_EQ(end.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    (*sender)->cancel();
    end.wait();
    EXPECT_EQ((*sender)->status().code(), absl::StatusCode::kAborted) << (*sender)->status();
    target.withdraw(StreamKind::kBackupAgreed, kBackup);
  }
}

// Ends while it is waited for, after the wait has given up.
class EndsLate final : public Consolidation {
 public:
  explicit EndsLate(absl::Status end) : end_(std::move(end)) {}
  absl::Status wait(int64_t) override {
    ++waits;
    return std::exchange(ended_, true) && waits > 1 ? end_ : deadline_exceeded("still running");
  }
  bool has_ended() const override { return ended_; }
  Progress progress() const override { return {}; }
  void cancel() override { ++cancels; }
  absl::StatusOr<PartManifest> finish() override { return PartManifest(); }

  int waits = 0;
  int cancels = 0;

 private:
  const absl::Status end_;
  bool ended_ = false;
};

TEST(Consolidation, HowItEndedIsWhatItSaysAndNotThatAWaitWasTooShort) {
  for (const absl::Status& end :
       {absl::OkStatus(), resource_exhausted("the disk is full"), deadline_exceeded("idle")}) {
    EndsLate late(end);
    int asked = 0;
    const absl::Status ended = late.wait_to_end(1, [&] { return ++asked > 0; });
    EXPECT_EQ(ended, end);
    EXPECT_EQ(late.waits, 2);
    EXPECT_EQ(late.cancels, 0);
    EXPECT_EQ(asked, 2) << "and once behind the end";
  }
  EndsLate late(cancelled("cancelled"));
  EXPECT_TRUE(absl::IsCancelled(late.wait_to_end(1, [] { return false; })));
  EXPECT_EQ(late.cancels, 1);
}

// The messages of a slot of several blocks, as its source packs them.
std::vector<std::pair<Envelope, BlockBuffer>> messages_of(CutReader& source, uint32_t slot,
                                                          uint32_t slot_bits, BlockPool& pool) {
  std::vector<std::pair<Envelope, BlockBuffer>> messages;
  SlotPacker packer;
  packer.begin(source.scan(slot), slot, slot_bits);
  for (bool last = false; !last;) {
    BlockBuffer buffer = pool.take(1000);
    const auto packed = packer.pack(buffer);
    EXPECT_TRUE(packed.ok()) << packed.status();
    if (!packed.ok()) return messages;
    last = packed->last;
    Envelope envelope;
    envelope.kind = packed->bytes > 0 ? MessageKind::kBlock : MessageKind::kSlotEnd;
    envelope.flags = last && packed->bytes > 0 ? Envelope::kEndOfSlot : 0;
    envelope.slot = slot;
    envelope.attempt = 1;
    envelope.sequence = messages.size();
    envelope.payload_bytes = packed->bytes;
    messages.emplace_back(envelope, std::move(buffer));
  }
  return messages;
}

// Blocks that a source repeats when all is durable stand in its own buffers, on a stream without a
// wire: it waits for them.
TEST(BackupTest, WhatIsRepeatedAfterTheEndGoesBackToItsSource) {
  ClusterOptions options;
  options.nodes = 1;
  options.replicas = 1;
  options.slot_bits = 1;
  Cluster cluster(options);
  fill(cluster, 14, 20, 1000);
  cluster.cut();
  Backup backup(cluster, {0});
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  ASSERT_TRUE(backup.targets[0].consolidation->wait(10'000).ok());

  TestNode& node = cluster.node(0);
  const auto pool = *node.arena->make_pool("test", 4);
  Exchange::ConnectOptions connect;
  connect.address = node.exchange->address();
  connect.kind = StreamKind::kBackupAgreed;
  connect.target = node.name;
  connect.job = kBackup;
  connect.attempt = 1;
  const auto stream = node.exchange->connect(connect);
  ASSERT_TRUE(stream.ok()) << stream.status();
  for (auto& [envelope, buffer] : messages_of(*backup.cuts[0], 0, 1, *pool)) {
    const uint32_t bytes = Envelope::seal(envelope, buffer);
    ASSERT_TRUE((*stream)->send(std::move(buffer), bytes, 1000).ok());
  }
  for (int i = 0; i < 500 && pool->free() < pool->size(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(pool->free(), pool->size());
  EXPECT_GT(backup.targets[0].consolidation->progress().duplicate_blocks, 0);
}

// A stream whose last message arrives, with its end, right after a look found nothing.
class EndsAfterALook final : public Stream {
 public:
  EndsAfterALook(Hello hello, std::vector<std::pair<Envelope, BlockBuffer>> messages)
      : hello_(std::move(hello)), messages_(std::move(messages)) {}
  const Hello& hello() const override { return hello_; }
  const std::string& peer() const override { return hello_.node; }
  uint64_t number() const override { return 1; }
  absl::Status send(BlockBuffer, uint32_t, int64_t) override { return absl::OkStatus(); }
  absl::Status send_control(Envelope, std::string_view, int64_t) override {
    return absl::OkStatus();
  }
  absl::StatusOr<Message> receive(int64_t) override {
    const std::lock_guard lock(mutex_);
    const bool last = next_ + 1 == messages_.size();
    if (last && !closed_) {
      closed_ = true;
      return deadline_exceeded("nothing yet");
    }
    if (next_ == messages_.size()) {
      received_all.set_value();
      return unavailable("closed by peer");
    }
    auto& [envelope, buffer] = messages_[next_++];
    return Message{envelope, std::move(buffer), {}};
  }
  void on_change(std::function<void()> hook) override { hook(); }
  void close(const absl::Status&) override {}
  bool closed() const override {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  absl::Status closed_reason() const override { return unavailable("closed by peer"); }
  Counters counters() const override { return {}; }

  std::promise<void> received_all;

 private:
  const Hello hello_;
  mutable std::mutex mutex_;
  std::vector<std::pair<Envelope, BlockBuffer>> messages_;
  size_t next_ = 0;
  bool closed_ = false;
};

TEST(BackupTest, ABrokenStreamIsNotHeldAgainstItsSlots) {
  ClusterOptions options;
  options.nodes = 1;
  options.replicas = 1;
  options.slot_bits = 1;
  Cluster cluster(options);
  fill(cluster, 15, 20, 1000);
  for (int i = 0; i < 24; ++i) {  // several blocks in each slot
    cluster.put(make_record(fmt::format("large-{}", i), std::string(300'000, 'x'), -1));
  }
  cluster.cut();
  Backup backup(cluster, {0});
  backup.start();
  TestNode& node = cluster.node(0);
  const auto pool = *node.arena->make_pool("test", 16);
  Hello hello;
  hello.node = node.name;
  auto messages = messages_of(*backup.cuts[0], 0, 1, *pool);
  ASSERT_GT(messages.size(), 1);
  const auto stream = std::make_shared<EndsAfterALook>(hello, std::move(messages));
  dynamic_cast<StreamHandler&>(*backup.targets[0].consolidation).accepted(stream);
  ASSERT_EQ(stream->received_all.get_future().wait_for(std::chrono::seconds(20)),
            std::future_status::ready);
  EXPECT_EQ(backup.targets[0].consolidation->progress().slots_refused, 0);
  EXPECT_EQ(backup.targets[0].consolidation->progress().slots_received, 1);
  backup.targets[0].consolidation.reset();
}

TEST(BackupTest, ACopyThatIsNotThePublishedOneFailsTheJobAndIsNamed) {
  Cluster cluster({});
  fill(cluster, 10, 100, 1000);
  cluster.cut();
  Backup backup(cluster, {0});
  ConsolidationSlot& lied_about = backup.targets[0].options.slots[3];
  lied_about.senders[0].digest.records += 1;
  backup.start();
  EXPECT_FALSE(backup.send().ok());
  const absl::Status ended = backup.targets[0].consolidation->wait(10'000);
  EXPECT_EQ(ended.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(message_of(ended)), testing::HasSubstr("slot 3"));
  EXPECT_THAT(std::string(message_of(ended)), testing::HasSubstr(lied_about.senders[0].node));
}

TEST(BackupTest, TheWireCarriesLittleMoreThanTheRecords) {
  ClusterOptions options;
  options.slot_bits = 6;
  Cluster cluster(options);
  Random random(12);
  for (int i = 0; i < 64 * 4; ++i) {  // about 16 KiB for each slot
    cluster.put(make_record(fmt::format("key-{:08}", i), random_value(random, 4096), -1));
  }
  cluster.cut();
  Backup backup(cluster, {0, 1, 2});
  backup.start();
  uint64_t before = 0;
  for (auto& node : cluster.nodes) before += node->exchange->counters().sent_bytes;
  ASSERT_TRUE(backup.send().ok());
  backup.commit();
  const uint64_t record_bytes = backup.manifest.bytes();
  EXPECT_LE(static_cast<double>(backup.sent.wire_bytes), 1.05 * static_cast<double>(record_bytes));
  uint64_t after = 0;
  for (auto& node : cluster.nodes) after += node->exchange->counters().sent_bytes;
  // With framing, credits, hellos and acknowledgements of both directions.
  EXPECT_LE(static_cast<double>(after - before), 1.06 * static_cast<double>(record_bytes));
}

}  // namespace
}  // namespace sluice
