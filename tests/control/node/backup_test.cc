// Backups of a whole cluster, while it is written to, and while nodes die.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "base/file.h"
#include "base/status.h"
#include "control/backup/backup_store.h"
#include "control/membership/membership.h"
#include "control/peers/directory.h"
#include "dataplane/archive/writer.h"
#include "tests/control/node/forwarding_block.h"
#include "tests/control/node/test_cluster.h"
#include "tests/drivers/real_time.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string text_of(const absl::Status& status) { return std::string(message_of(status)); }

void fill(ClusterClient& client, int records, const std::string& prefix = "k") {
  const auto import = client.import();
  for (int i = 0; i < records; ++i) {
    ASSERT_TRUE(import->put(fmt::format("{}{:05}", prefix, i), std::string(200, 'v')).ok());
  }
  const WriteTotals totals = import->finish();
  ASSERT_EQ(totals.failed, 0u) << totals.failures[0].reason;
}

TestCluster::Options gated(StateGate& gate) {
  TestCluster::Options options;
  options.wrap_block = [&gate](std::unique_ptr<ClusterBlock> block) {
    return std::make_unique<GatedBlock>(std::move(block), gate);
  };
  return options;
}

std::map<std::string, std::string> live_of(const std::map<std::string, Record>& archive) {
  std::map<std::string, std::string> live;
  for (const auto& [key, record] : archive) {
    if (!record.tombstone) live[key] = record.value;
  }
  return live;
}

// What carries calls and blocks makes no difference.
struct Carriers {
  const char* name;
  bool direct;  // calls, not over gRPC
  bool sim;     // blocks, not over TCP
};
class BackupOver : public testing::TestWithParam<Carriers> {};
INSTANTIATE_TEST_SUITE_P(Carriers, BackupOver,
                         testing::Values(Carriers{"GrpcTcp", false, false},
                                         Carriers{"DirectTcp", true, false},
                                         Carriers{"DirectSim", true, true}),
                         [](const auto& carriers) { return std::string(carriers.param.name); });

TEST_P(BackupOver, HoldsEveryRecordOnceAndVerifies) {
  DirectNetwork network;
  RealTime time;
  SimOptions sim;
  sim.time = &time;
  SimFabric fabric(7, sim);
  TestCluster::Options options;
  if (GetParam().direct) options.calls = &network;
  if (GetParam().sim) options.fabric = &fabric;
  TestCluster cluster(options);
  const auto client = cluster.client();
  fill(*client, 1000);
  ASSERT_TRUE(client->put("large", std::string(3'500'000, 'L')).ok());
  ASSERT_TRUE(client->erase("k00007").ok());
  std::set<BackupState> states;
  const auto backup = client->backup_create({.name = "first", .targets = {}, .dry_run = false},
                                            [&](const BackupProgress& progress) {
                                              if (progress.state.has_value())
                                                states.insert(*progress.state);
                                            });
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  ASSERT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(backup->records, 1000u);
  EXPECT_EQ(backup->slots, 64u);
  EXPECT_EQ(backup->slots_agreed, 64u);
  EXPECT_EQ(backup->slots_divergent, 0u);
  EXPECT_EQ(backup->archives.size(), 3u);
  EXPECT_GT(backup->wire_bytes, backup->bytes);
  EXPECT_LT(backup->wire_bytes, backup->bytes * 3 / 2);
  // Every node has every slot, and is a target.
  EXPECT_GT(backup->local_bytes, backup->wire_bytes * 9 / 10);
  EXPECT_LE(backup->local_bytes, backup->wire_bytes);
  EXPECT_GT(backup->plan.makespan_s, 0);
  EXPECT_GE(backup->plan.makespan_s, backup->plan.lower_bound_s);
  EXPECT_TRUE(states.contains(BackupState::kEnabled));
  EXPECT_EQ(live_of(read_archive(backup->archives)), read_cluster(*client));
  const auto verified = client->backup_verify("first", nullptr);
  ASSERT_TRUE(verified.ok()) << message_of(verified.status());
  EXPECT_TRUE(verified->bad.empty()) << verified->bad[0].file << ": " << verified->bad[0].reason;
  EXPECT_GT(verified->blocks, 60u);
  const auto again =
      client->backup_create({.name = "first", .targets = {}, .dry_run = false}, nullptr);
  EXPECT_EQ(again.status().code(), absl::StatusCode::kAlreadyExists);
  const auto schedule = client->schedule_show("first");
  ASSERT_TRUE(schedule.ok());
  EXPECT_EQ(schedule->copies.size(), 64u);
  ASSERT_TRUE(client->backup_delete("first").ok());
  EXPECT_TRUE(client->backup_list()->empty());
  for (const ArchivePlace& place : backup->archives) {
    EXPECT_FALSE(std::filesystem::exists(place.path));
  }
}

// The clocks differ, so that cuts are taken at different moments, and late writes meet replicas
// that have cut already.
TEST(Backup, TakesACutWhileWritersWrite) {
  TestCluster cluster;
  cluster.clock(1).skew(200);
  cluster.clock(2).skew(-200);
  const auto client = cluster.client();
  fill(*client, 200, "before");
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::set<std::string> acknowledged;
  std::vector<std::thread> writers;
  for (int w = 0; w < 3; ++w) {
    writers.emplace_back([&, w] {
      const auto own = cluster.client();
      for (int i = 0; !stop; ++i) {
        const std::string key = fmt::format("w{}-{:06}", w, i);
        if (!own->put(key, key).ok()) continue;
        const std::lock_guard lock(mutex);
        acknowledged.insert(key);
      }
    });
  }
  ASSERT_TRUE(eventually(10'000, [&] {
    const std::lock_guard lock(mutex);
    return acknowledged.size() > 100;
  }));
  std::set<std::string> before;
  {
    const std::lock_guard lock(mutex);
    before = acknowledged;
  }
  const auto first =
      client->backup_create({.name = "busy", .targets = {}, .dry_run = false}, nullptr);
  stop = true;
  for (std::thread& writer : writers) writer.join();
  ASSERT_TRUE(first.ok()) << message_of(first.status());
  ASSERT_EQ(name_of(first->state), "completed") << first->reason;
  const auto second =
      client->backup_create({.name = "quiet", .targets = {}, .dry_run = false}, nullptr);
  ASSERT_TRUE(second.ok()) << message_of(second.status());
  ASSERT_EQ(name_of(second->state), "completed") << second->reason;
  const auto archived = read_archive(first->archives);
  const auto everything = read_archive(second->archives);
  for (const std::string& key : before) EXPECT_TRUE(archived.contains(key)) << key;
  for (const auto& [key, record] : archived) EXPECT_LE(record.version.stamp, first->cut) << key;
  // Of each client's writes, which have their order in their names, all up to some moment.
  size_t after = 0;
  std::string missing = "none";
  for (const std::string& key : acknowledged) {
    ASSERT_TRUE(everything.contains(key)) << key;
    if (!archived.contains(key)) {
      missing = key;
      ++after;
    } else {
      EXPECT_FALSE(key.starts_with(missing.substr(0, 3))) << key << " without " << missing;
    }
  }
  EXPECT_GT(after, 0u) << "no write came after the cut: nothing was tried";
}

TEST(Backup, CountsHowReplicasDiverge) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 300);
  cluster.stop(2);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(client->put(fmt::format("new{}", i), "n").ok());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(client->put(fmt::format("k{:05}", i), "changed").ok());
  cluster.start(2);
  const auto backup =
      client->backup_create({.name = "d", .targets = {"n2"}, .dry_run = false}, nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  ASSERT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(backup->divergence.missing, 20u);
  EXPECT_EQ(backup->divergence.stale, 10u);
  EXPECT_EQ(backup->divergence.conflicting, 0u);
  EXPECT_GT(backup->slots_divergent, 0u);
  EXPECT_EQ(backup->slots_agreed + backup->slots_divergent, 64u);
  EXPECT_EQ(backup->records, 320u);
  ASSERT_EQ(backup->archives.size(), 1u);
  EXPECT_EQ(backup->archives[0].node, "n2");
  EXPECT_EQ(live_of(read_archive(backup->archives)), read_cluster(*client));
}

TEST(Backup, OneAtATimeAndOnlyToMembers) {
  StateGate gate(BackupState::kEnabled);
  TestCluster cluster(gated(gate));
  const auto client = cluster.client();
  fill(*client, 50);
  const auto unknown =
      client->backup_create({.name = "u", .targets = {"n9"}, .dry_run = false}, nullptr);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(text_of(unknown.status()), HasSubstr("n9"));
  absl::StatusOr<BackupView> first;
  std::thread running([&] {
    first =
        cluster.client()->backup_create({.name = "one", .targets = {}, .dry_run = false}, nullptr);
  });
  EXPECT_TRUE(gate.wait_until_held());
  const auto second =
      client->backup_create({.name = "two", .targets = {}, .dry_run = false}, nullptr);
  gate.open();
  running.join();
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(text_of(second.status()), HasSubstr("one"));
  ASSERT_TRUE(first.ok()) << message_of(first.status());
  EXPECT_EQ(name_of(first->state), "completed") << first->reason;
}

TEST(Backup, NamesADeadTarget) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 50);
  cluster.stop(1);
  ASSERT_TRUE(eventually(10'000, [&] {
    const auto nodes = list_members(cluster.block());
    return nodes.ok() && std::any_of(nodes->begin(), nodes->end(), [](const Member& member) {
             return member.info.name == "n2" && !member.live;
           });
  }));
  const auto refused =
      client->backup_create({.name = "t", .targets = {"n1", "n2"}, .dry_run = false}, nullptr);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text_of(refused.status()), HasSubstr("n2"));
  EXPECT_TRUE(client->backup_list()->empty());
}

TEST(Backup, ADryRunLeavesNothingBehind) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 100);
  const auto backup =
      client->backup_create({.name = "dry", .targets = {}, .dry_run = true}, nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "planning");
  EXPECT_EQ(backup->records, 100u);
  EXPECT_EQ(backup->plan.nodes.size(), 3u);
  EXPECT_TRUE(client->backup_list()->empty());
  EXPECT_FALSE(std::filesystem::exists(cluster.folder() + "/n1/archives/dry"));
}

TEST(Backup, GoesOnWhenItsCoordinatorDies) {
  StateGate gate(BackupState::kEnabled);
  TestCluster cluster(gated(gate));
  const auto client = cluster.client();
  fill(*client, 300);
  absl::StatusOr<BackupView> backup;
  std::thread running([&] {
    backup = client->backup_create({.name = "orphan", .targets = {}, .dry_run = false}, nullptr);
  });
  EXPECT_TRUE(gate.wait_until_held());
  EXPECT_EQ(client->backup_show("orphan")->coordinator, "n1");
  gate.fail();
  cluster.stop(0);
  gate.open();
  running.join();
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_NE(backup->coordinator, "n1");
  EXPECT_EQ(backup->records, 300u);
  EXPECT_EQ(live_of(read_archive(backup->archives)).size(), 300u);
}

TEST(Backup, AFailedOneIsResumed) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 300);
  // Something else is where n2's part should go.
  const std::string blocked = cluster.folder() + "/n2/archives/again";
  ASSERT_TRUE(write_file_durably(blocked, "not a folder").ok());
  auto backup = client->backup_create({.name = "again", .targets = {}, .dry_run = false}, nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "failed");
  EXPECT_THAT(backup->reason, HasSubstr("n2"));
  std::filesystem::remove(blocked);
  backup = client->backup_resume("again", nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(backup->archives.size(), 3u);
  EXPECT_EQ(live_of(read_archive(backup->archives)), read_cluster(*client));
}

// Some targets have stored the root manifest, another one cannot: resumed, all of them have it.
TEST(Backup, AFailedCommitIsResumed) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 1000);
  const std::string folder = cluster.folder() + "/n2/archives/again";
  std::atomic<bool> stop{false};
  // A folder where its manifest should go, once its part is begun.
  std::thread blocker([&] {
    while (!stop && !std::filesystem::exists(folder + "/journal")) std::this_thread::yield();
    std::filesystem::create_directories(folder + "/manifest/in the way");
  });
  auto backup = client->backup_create({.name = "again", .targets = {}, .dry_run = false}, nullptr);
  stop = true;
  blocker.join();
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  ASSERT_EQ(name_of(backup->state), "failed");
  EXPECT_THAT(backup->reason, HasSubstr("n2"));
  EXPECT_TRUE(std::filesystem::is_regular_file(cluster.folder() + "/n1/archives/again/manifest"));
  std::filesystem::remove_all(folder + "/manifest");
  backup = client->backup_resume("again", nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(backup->archives.size(), 3u);
  EXPECT_EQ(live_of(read_archive(backup->archives)), read_cluster(*client));
}

struct BlockFaults {
  std::atomic<int> gets{0};     // of a backup's head that fail
  std::atomic<int> commits{0};  // of its head that are made, while their answers are lost
  static bool spend(std::atomic<int>& left) {
    int now = left;
    while (now > 0 && !left.compare_exchange_weak(now, now - 1)) {
    }
    return now > 0;
  }
};

class FaultyBlock final : public ForwardingBlock {
 public:
  FaultyBlock(std::unique_ptr<ClusterBlock> inner, BlockFaults& faults)
      : ForwardingBlock(std::move(inner)), faults_(faults) {}
  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    if (key.starts_with(kBackupsPrefix) && BlockFaults::spend(faults_.gets)) {
      return unavailable("out of reach");
    }
    return block_.get(key);
  }
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    auto revision = block_.commit(ops);
    for (const ClusterOp& op : ops) {
      if (revision.ok() && op.kind == ClusterOp::Kind::kPut && op.key.starts_with(kBackupsPrefix) &&
          BlockFaults::spend(faults_.commits)) {
        return unavailable("the answer was lost");
      }
    }
    return revision;
  }

 private:
  BlockFaults& faults_;
};

TEST(Backup, OutlivesAMomentWithoutTheClusterBlock) {
  BlockFaults faults;
  TestCluster::Options options;
  // Of n1 alone, which coordinates.
  options.wrap_block = [&, first = true](std::unique_ptr<ClusterBlock> block) mutable {
    if (std::exchange(first, false)) {
      block = std::make_unique<FaultyBlock>(std::move(block), faults);
    }
    return block;
  };
  TestCluster cluster(options);
  const auto client = cluster.client();
  fill(*client, 1000);
  bool begun = false;
  const auto backup = client->backup_create({.name = "b", .targets = {}, .dry_run = false},
                                            [&](const BackupProgress& progress) {
                                              if (begun || progress.state != BackupState::kEnabled)
                                                return;
                                              begun = true;
                                              faults.commits = 1;
                                              faults.gets = 10;
                                            });
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(backup->records, 1000u);
  EXPECT_GT(backup->wire_bytes, backup->bytes);
  EXPECT_EQ(faults.commits + faults.gets, 0) << "not all was tried";
}

std::unique_ptr<ArchiveWriter> begin_part(TestCluster& cluster, const std::string& uuid,
                                          const std::string& name) {
  ArchiveWriter::Options options;
  options.folder = cluster.folder() + "/n3/archives/" + name;
  options.identity = {
      Directory::open(cluster.block()).value()->cluster().uuid, uuid, name, 6, 1, 1};
  options.node = "n3";
  auto writer = ArchiveWriter::open(options);
  EXPECT_TRUE(writer.ok()) << message_of(writer.status());
  return writer.ok() ? *std::move(writer) : nullptr;
}

// Its backup was deleted while the node was down: nothing tells it any more.
TEST(Backup, APartOfADeletedBackupIsRemoved) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 50);
  cluster.stop(2);
  begin_part(cluster, "no-more", "left").reset();
  cluster.start(2);
  EXPECT_TRUE(eventually(
      10'000, [&] { return !std::filesystem::exists(cluster.folder() + "/n3/archives/left"); }));
  const auto backup =
      client->backup_create({.name = "left", .targets = {}, .dry_run = false}, nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
}

// An archive of that name that belongs to another backup outlives a backup that failed over it.
TEST(Backup, CancellingRemovesNoOtherArchive) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 50);
  const auto part = begin_part(cluster, "another", "taken");
  ASSERT_NE(part, nullptr);
  ASSERT_TRUE(part->finish().ok());
  Manifest manifest;
  manifest.identity = {
      Directory::open(cluster.block()).value()->cluster().uuid, "another", "taken", 6, 1, 1};
  manifest.parts.push_back(*part->finish());
  ASSERT_TRUE(part->commit(manifest).ok());
  const auto backup =
      client->backup_create({.name = "taken", .targets = {}, .dry_run = false}, nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "failed");
  EXPECT_EQ(name_of(client->backup_cancel("taken")->state), "cancelled");
  EXPECT_FALSE(std::filesystem::exists(cluster.folder() + "/n1/archives/taken"));
  EXPECT_TRUE(std::filesystem::exists(cluster.folder() + "/n3/archives/taken/manifest"));
}

class CancelledBackup : public ::testing::TestWithParam<BackupState> {};

TEST_P(CancelledBackup, LeavesNoArchive) {
  StateGate gate(GetParam());
  TestCluster cluster(gated(gate));
  const auto client = cluster.client();
  fill(*client, 50);
  absl::StatusOr<BackupView> backup;
  std::thread running([&] {
    backup =
        cluster.client()->backup_create({.name = "c", .targets = {}, .dry_run = false}, nullptr);
  });
  EXPECT_TRUE(gate.wait_until_held());
  absl::StatusOr<BackupView> cancelled;
  std::thread cancelling([&] { cancelled = cluster.client()->backup_cancel("c"); });
  // The coordinator knows of it before its commit comes back.
  EXPECT_TRUE(eventually(5'000, [&] {
    gate.fail();
    return client->backup_show("c")->state == BackupState::kCancelled;
  }));
  gate.open();
  cancelling.join();
  running.join();
  ASSERT_TRUE(cancelled.ok()) << message_of(cancelled.status());
  EXPECT_EQ(name_of(cancelled->state), "cancelled");
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "cancelled");
  EXPECT_FALSE(std::filesystem::exists(cluster.folder() + "/n1/archives/c"));
  EXPECT_EQ(
      name_of(
          client->backup_create({.name = "d", .targets = {}, .dry_run = false}, nullptr)->state),
      "completed");
}

INSTANTIATE_TEST_SUITE_P(Before, CancelledBackup,
                         ::testing::Values(BackupState::kEnabled, BackupState::kConsolidated),
                         [](const auto& test) { return std::string(name_of(test.param)); });

TEST(Backup, OutlivesANodeThatRestartsWhileItSends) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 2000);
  std::atomic<bool> enabled{false};
  absl::StatusOr<BackupView> backup;
  std::thread running([&] {
    backup = cluster.client()->backup_create({.name = "r", .targets = {}, .dry_run = false},
                                             [&](const BackupProgress& progress) {
                                               if (progress.state == BackupState::kEnabled)
                                                 enabled = true;
                                             });
  });
  EXPECT_TRUE(eventually(10'000, [&] { return enabled.load(); }));
  cluster.stop(2);
  cluster.start(2);
  running.join();
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(live_of(read_archive(backup->archives)), read_cluster(*client));
}

TEST(Backup, GoesToOtherTargetsWhenOneDies) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 2000);
  std::atomic<bool> enabled{false};
  absl::StatusOr<BackupView> backup;
  std::thread running([&] {
    backup = cluster.client()->backup_create({.name = "t", .targets = {}, .dry_run = false},
                                             [&](const BackupProgress& progress) {
                                               if (progress.state == BackupState::kEnabled)
                                                 enabled = true;
                                             });
  });
  EXPECT_TRUE(eventually(10'000, [&] { return enabled.load(); }));
  cluster.stop(2);
  running.join();
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(backup->records, 2000u);
  EXPECT_EQ(live_of(read_archive(backup->archives)), read_cluster(*client));
  // What it had begun is removed when it comes back.
  if (backup->archives.size() == 3) return;
  cluster.start(2);
  EXPECT_TRUE(eventually(
      10'000, [&] { return !std::filesystem::exists(cluster.folder() + "/n3/archives/t"); }));
}

// What it had sent stays with it in the plan; that is no reason to plan again and again.
TEST(Backup, ASourceThatIsGoneForGoodIsPlannedWithoutOnce) {
  TestCluster::Options options;
  options.backup.max_replans = 1;
  options.adjust = [](size_t i, NodeOptions& node) {
    if (i == 0) node.config.bytes_per_second = 1 << 20;
  };
  TestCluster cluster(options);
  const auto client = cluster.client();
  fill(*client, 40'000);
  std::atomic<uint64_t> done{0};
  absl::StatusOr<BackupView> backup;
  std::thread running([&] {
    backup = cluster.client()->backup_create(
        {.name = "g", .targets = {"n1"}, .dry_run = false},
        [&](const BackupProgress& progress) { done = progress.bytes_done; });
  });
  EXPECT_TRUE(eventually(30'000, [&] { return done > 2'000'000; }));
  cluster.stop(2);
  running.join();
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(backup->records, 40'000u);
}

TEST(Backup, ACutOutlivesARestart) {
  StateGate gate(BackupState::kEnabled);
  TestCluster cluster(gated(gate));
  const auto client = cluster.client();
  fill(*client, 100);
  absl::StatusOr<BackupView> backup;
  std::thread running([&] {
    backup = cluster.client()->backup_create({.name = "c", .targets = {"n1"}, .dry_run = false},
                                             nullptr);
  });
  EXPECT_TRUE(gate.wait_until_held());
  cluster.stop(2);
  cluster.start(2);
  ASSERT_TRUE(client->put("later", "than the cut").ok());
  gate.open();
  running.join();
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  const auto archived = read_archive(backup->archives);
  EXPECT_EQ(archived.size(), 100u);
}

// A clock that runs ahead between being read and being armed has missed the cut; a later one is
// found.
TEST(Backup, AMissedCutIsTriedLater) {
  TestCluster::Options options;
  options.backup.cut_margin_ms = 1;
  TestCluster cluster(options);
  const auto client = cluster.client();
  fill(*client, 100);
  const auto backup =
      client->backup_create({.name = "m", .targets = {}, .dry_run = false}, nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(live_of(read_archive(backup->archives)).size(), 100u);
}

TEST(Backup, GarbageInTheClusterBlockIsNamedAndLived) {
  TestCluster cluster;
  const auto client = cluster.client();
  fill(*client, 50);
  ASSERT_TRUE(cluster.block().put(backup_head_key("garbage"), "{\"uuid\": [").ok());
  const auto backup =
      client->backup_create({.name = "ok", .targets = {}, .dry_run = false}, nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  const auto list = client->backup_list();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 2u);
  EXPECT_THAT((*list)[1].reason, HasSubstr("garbage"));
}

}  // namespace
}  // namespace sluice
