// Restores into other clusters, whole and with nodes down.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "base/status.h"
#include "control/client/cluster_client_impl.h"
#include "control/cluster_block/lease_lock.h"
#include "control/restore/restore_proof.h"
#include "control/restore/restore_runner.h"
#include "control/restore/restore_store.h"
#include "dataplane/archive/reader.h"
#include "tests/control/node/forwarding_block.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> folders_of(const BackupView& backup) {
  std::vector<std::string> folders;
  for (const ArchivePlace& place : backup.archives) folders.push_back(place.path);
  return folders;
}

BackupView fill_and_back_up(ClusterClient& client, int records) {
  const auto import = client.import();
  for (int i = 0; i < records; ++i) {
    EXPECT_TRUE(
        import
            ->put(fmt::format("{}/{:05}", i % 4, i), std::string(static_cast<size_t>(i % 900), 'r'))
            .ok());
  }
  EXPECT_EQ(import->finish().failed, 0u);
  EXPECT_TRUE(client.put("large", std::string(2'500'000, 'L')).ok());
  EXPECT_TRUE(client.erase("1/00001").ok());
  auto backup = client.backup_create({.name = "b", .targets = {}, .dry_run = false}, nullptr);
  EXPECT_TRUE(backup.ok()) << message_of(backup.status());
  if (!backup.ok()) return {};
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  return *std::move(backup);
}

RestoreRequest from_cluster(const TestCluster& cluster) {
  RestoreRequest request;
  request.backup = "b";
  request.source_cluster = cluster.url();
  return request;
}

RestoreRequest from_folders(const BackupView& backup) {
  RestoreRequest request;
  request.archive_folders = folders_of(backup);
  return request;
}

// A restore that lacks the part of a node that is down, and so some of the archive's records.
void begin_without(TestCluster& from, size_t node, ClusterClient& client, uint64_t records) {
  from.stop(node);
  const auto partial = client.restore(from_cluster(from), nullptr);
  ASSERT_TRUE(partial.ok()) << message_of(partial.status());
  ASSERT_EQ(name_of(partial->state), "failed");
  EXPECT_THAT(partial->reason, HasSubstr(fmt::format("n{}", node + 1)));
  ASSERT_GT(partial->written, 0u);
  EXPECT_LT(partial->written, records);
  from.start(node);
}

// The retry lists, and how many records they say remain.
struct Listed {
  std::vector<FailedRecord> entries;
  uint64_t records = 0;
  uint64_t deletions = 0;
  std::set<std::string> keys;
};
Listed list_failed(ClusterClient& client) {
  Listed listed;
  const absl::Status status = client.restore_failed([&](const FailedRecord& record) {
    listed.records += record.records;
    listed.deletions += record.deletions;
    EXPECT_TRUE(record.key.empty() || listed.keys.insert(record.key).second) << record.key;
    listed.entries.push_back(record);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << message_of(status);
  return listed;
}

// Flips a bit in the middle of the archive's first block.
void damage(const std::string& folder) {
  const auto archive = ArchiveReader::open({folder});
  ASSERT_TRUE(archive.ok()) << message_of(archive.status());
  const BlockLocation& block = (*archive)->parts()[0].blocks.front();
  std::fstream file(folder + "/" + segment_file(block.segment),
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(block.offset + block.bytes / 2));
  const char byte = static_cast<char>(file.get() ^ 4);
  file.seekp(static_cast<std::streamoff>(block.offset + block.bytes / 2));
  file.put(byte);
  ASSERT_TRUE(file.good());
}

bool goes_down(ClusterClient& client, size_t node) {
  return eventually(5'000, [&] {
    const auto nodes = client.nodes();
    return nodes.ok() && (*nodes)[node].state == NodeState::kDown;
  });
}

// As another process would.
absl::Status store_restore(ClusterBlock& block, StoredRestore& stored) {
  const auto revision = block.compare_and_swap(restore_head_key(stored.head.id),
                                               encode(stored.head), stored.revision);
  if (revision.ok()) stored.revision = *revision;
  return revision.status();
}

TEST(Restore, IntoAnotherClusterEndsWithProof) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 800);
  TestCluster::Options other;
  other.nodes = 4;
  other.replicas = 2;
  TestCluster to(other);
  const auto client = to.client();
  RestoreRequest request = from_cluster(from);
  request.dry_run = true;
  const auto dry = client->restore(request, nullptr);
  ASSERT_TRUE(dry.ok()) << message_of(dry.status());
  EXPECT_EQ(dry->records, 800u);
  EXPECT_EQ(client->count().value(), 0u);
  request.dry_run = false;
  const auto restored = client->restore(request, nullptr);
  ASSERT_TRUE(restored.ok()) << message_of(restored.status());
  EXPECT_EQ(name_of(restored->state), "completed") << restored->reason;
  EXPECT_EQ(restored->records, 800u);
  EXPECT_EQ(restored->bytes, backup.bytes);
  EXPECT_EQ(restored->written, 800u);
  EXPECT_EQ(restored->kept_newer, 0u);
  EXPECT_EQ(restored->failed, 0u);
  EXPECT_EQ(restored->nodes.size(), 4u);
  EXPECT_TRUE(restored->proof.checked);
  EXPECT_EQ(restored->proof.copies, 128u);
  EXPECT_EQ(restored->proof.equal, 128u);
  EXPECT_EQ(read_cluster(*client), read_cluster(*source));
  // What is written now is newer than what was restored, and stays so when it is restored again.
  ASSERT_TRUE(client->put("0/00000", "newer").ok());
  const auto again = client->restore(request, nullptr);
  ASSERT_TRUE(again.ok()) << message_of(again.status());
  EXPECT_EQ(name_of(again->state), "completed");
  EXPECT_EQ(again->kept_newer, 1u);
  // Both copies have what the archive has, and a newer record.
  EXPECT_EQ(again->proof.newer, 2u);
  EXPECT_EQ(again->proof.differing, 0u);
  EXPECT_EQ(client->get("0/00000").value(), "newer");
}

TEST(Restore, FromFoldersIntoAClusterOfOtherSlotsAndByPrefix) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 400);
  TestCluster::Options other;
  other.slot_bits = 4;
  TestCluster to(other);
  const auto client = to.client();
  RestoreRequest request;
  request.archive_folders = {folders_of(backup)[0]};
  const auto incomplete = client->restore(request, nullptr);
  EXPECT_EQ(incomplete.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(message_of(incomplete.status())), HasSubstr("n2"));
  request.archive_folders = folders_of(backup);
  request.prefix = "2/";
  const auto part = client->restore(request, nullptr);
  ASSERT_TRUE(part.ok()) << message_of(part.status());
  EXPECT_EQ(name_of(part->state), "completed") << part->reason;
  EXPECT_EQ(part->records, 100u);
  EXPECT_EQ(client->count().value(), 100u);
  EXPECT_EQ(part->proof.differing, 0u);
  request.prefix.clear();
  const auto whole = client->restore(request, nullptr);
  ASSERT_TRUE(whole.ok()) << message_of(whole.status());
  EXPECT_EQ(name_of(whole->state), "completed") << whole->reason;
  EXPECT_EQ(whole->records, 400u);
  EXPECT_EQ(whole->kept_newer, 0u);  // the same is not newer
  EXPECT_EQ(whole->proof.differing, 0u);
  EXPECT_EQ(read_cluster(*client), read_cluster(*source));
}

TEST(Restore, WhatADeadNodeMissesIsListedAndDrivenAgain) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 200);
  TestCluster to;
  const auto client = to.client();
  to.stop(2);
  ASSERT_TRUE(goes_down(*client, 2));
  const RestoreRequest request = from_folders(backup);
  const auto partial = client->restore(request, nullptr);
  ASSERT_TRUE(partial.ok()) << message_of(partial.status());
  EXPECT_EQ(name_of(partial->state), "completed_with_failures");
  EXPECT_EQ(partial->failed, 200u);
  EXPECT_EQ(partial->written, 0u);
  EXPECT_EQ(partial->failed_deletions, 1u);
  const Listed failed = list_failed(*client);
  ASSERT_EQ(failed.entries.size(), 201u);  // with the tombstone
  EXPECT_EQ(failed.records, 200u);
  EXPECT_EQ(failed.deletions, 1u);
  EXPECT_EQ(failed.entries[0].node, "n3");
  EXPECT_FALSE(failed.entries[0].reason.empty());
  // The others have it meanwhile; a value of several blocks may wait for its retry.
  EXPECT_GE(client->count().value(), 199u);
  to.start(2);
  const auto retried = client->restore_retry(nullptr);
  ASSERT_TRUE(retried.ok()) << message_of(retried.status());
  EXPECT_EQ(name_of(retried->state), "completed") << retried->reason;
  EXPECT_EQ(retried->failed, 0u);
  EXPECT_TRUE(retried->proof.checked);
  EXPECT_GT(retried->proof.copies, 0u);
  EXPECT_EQ(retried->proof.equal, retried->proof.copies);
  EXPECT_TRUE(list_failed(*client).entries.empty());
  const auto nodes = client->nodes();
  ASSERT_TRUE(nodes.ok());
  for (const NodeView& node : *nodes) EXPECT_EQ(node.records, 200u) << node.name;
  EXPECT_EQ(read_cluster(*client), read_cluster(*source));
}

TEST(Restore, UndoesWhatWasWrittenBeforeItsMoment) {
  TestCluster cluster;
  const auto client = cluster.client();
  const BackupView backup = fill_and_back_up(*client, 200);
  const auto before = read_cluster(*client);
  const std::string changed = before.begin()->first;
  const std::string deleted = before.rbegin()->first;
  ASSERT_TRUE(client->put(changed, "a mistake").ok());
  ASSERT_TRUE(client->erase(deleted).ok());
  ASSERT_TRUE(client->put("zz/extra", "added").ok());
  RestoreRequest request;
  request.backup = backup.backup;
  const auto kept = client->restore(request, nullptr);
  ASSERT_TRUE(kept.ok()) << message_of(kept.status());
  EXPECT_EQ(kept->kept_newer, 1u);
  EXPECT_EQ(kept->kept_deleted, 1u);
  request.on_conflict = OnConflict::kArchive;
  request.delete_extra = true;
  const auto undone = client->restore(request, nullptr);
  ASSERT_TRUE(undone.ok()) << message_of(undone.status());
  EXPECT_EQ(name_of(undone->state), "completed") << undone->reason;
  EXPECT_EQ(undone->restored_over, 2u);
  EXPECT_EQ(undone->deleted_extra, 1u);
  EXPECT_EQ(undone->kept_newer + undone->kept_deleted, 0u);
  EXPECT_EQ(read_cluster(*client), before);
  const auto stored = load_restore(cluster.block(), undone->restore);
  ASSERT_TRUE(stored.ok());
  const Version moment = stored->head.mapping.restamp;
  EXPECT_TRUE(stored->head.mapping.restamps());
  // One that is run again takes a later moment; one that is resumed does not.
  ASSERT_TRUE(client->put(changed, "another mistake").ok());
  StoredRestore cancelled = *stored;
  cancelled.head.state = RestoreState::kCancelled;
  cancelled.head.progress = cancelled.head.attempt;
  ASSERT_TRUE(store_restore(cluster.block(), cancelled).ok());
  const auto resumed = client->restore_resume(undone->restore, nullptr);
  ASSERT_TRUE(resumed.ok()) << message_of(resumed.status());
  EXPECT_EQ(name_of(resumed->state), "completed") << resumed->reason;
  EXPECT_EQ(load_restore(cluster.block(), undone->restore)->head.mapping.restamp, moment);
  EXPECT_EQ(client->get(changed).value(), "another mistake");
  const auto again = client->restore(request, nullptr);
  ASSERT_TRUE(again.ok()) << message_of(again.status());
  EXPECT_GT(load_restore(cluster.block(), undone->restore)->head.mapping.restamp, moment);
  EXPECT_EQ(read_cluster(*client), before);
}

TEST(Restore, AnInterruptedOneGoesOn) {
  TestCluster from;
  const auto source = from.client();
  fill_and_back_up(*source, 300);
  TestCluster to;
  const auto client = to.client();
  ASSERT_NO_FATAL_FAILURE(begin_without(from, 1, *client, 300));
  const auto whole = client->restore(from_cluster(from), nullptr);
  ASSERT_TRUE(whole.ok()) << message_of(whole.status());
  EXPECT_EQ(name_of(whole->state), "completed") << whole->reason;
  EXPECT_EQ(whole->records, 300u);
  EXPECT_EQ(whole->written, 300u);
  EXPECT_EQ(whole->kept_newer, 0u);  // what was there already was not sent again
  EXPECT_EQ(whole->proof.differing, 0u);
  EXPECT_EQ(read_cluster(*client), read_cluster(*source));
}

// As another restore does that runs at the same time.
TEST(Restore, WhatOthersWriteMeanwhileIsNotHeldAgainstIt) {
  TestCluster from;
  const auto source = from.client();
  fill_and_back_up(*source, 100);
  TestCluster to;
  const auto client = to.client();
  ASSERT_NO_FATAL_FAILURE(begin_without(from, 1, *client, 100));
  ASSERT_TRUE(client->put("not of the archive", "x").ok());
  const auto whole = client->restore(from_cluster(from), nullptr);
  ASSERT_TRUE(whole.ok()) << message_of(whole.status());
  EXPECT_EQ(name_of(whole->state), "completed") << whole->reason;
  EXPECT_EQ(whole->failed, 0u);
  EXPECT_EQ(whole->proof.differing, 0u);
  EXPECT_EQ(whole->proof.newer, 3u);
  EXPECT_EQ(whole->proof.equal, whole->proof.copies - 3);
}

TEST(Restore, OnlyWhatCompletedWithFailuresIsRetried) {
  TestCluster cluster;
  const auto client = cluster.client();
  StoredRestore stored;
  stored.head.id = "r";
  stored.head.sources = {{"n1", "n1", "/nowhere"}};
  stored.head.failed = 5;
  for (const RestoreState state : {RestoreState::kCancelled, RestoreState::kFailed}) {
    stored.head.state = state;
    ASSERT_TRUE(store_restore(cluster.block(), stored).ok());
    const auto refused = client->restore_retry(nullptr);
    ASSERT_TRUE(refused.ok()) << message_of(refused.status());
    EXPECT_EQ(refused->state, state);
    EXPECT_EQ(refused->failed, 5u);
    EXPECT_THAT(refused->reason, HasSubstr("run the restore again"));
    EXPECT_EQ(load_restore(cluster.block(), "r")->head.state, state);
  }
  // A list that is gone is not an empty one.
  stored.head.state = RestoreState::kCompletedWithFailures;
  ASSERT_TRUE(store_restore(cluster.block(), stored).ok());
  const auto lost = client->restore_retry(nullptr);
  ASSERT_TRUE(lost.ok()) << message_of(lost.status());
  EXPECT_EQ(name_of(lost->state), "failed");
  EXPECT_TRUE(lost->data_bad);
  EXPECT_EQ(lost->failed, 5u);
  EXPECT_EQ(load_restore(cluster.block(), "r")->head.failed, 5u);
}

TEST(Restore, AnAttemptThatWasOvertakenStoresNothing) {
  TestCluster cluster;
  ClusterBlock& block = cluster.block();
  StoredRestore stored;
  stored.head.id = "r";
  stored.head.state = RestoreState::kRunning;
  stored.head.attempt = stored.head.progress = 1;
  ASSERT_TRUE(store_restore(block, stored).ok());
  const RestoreFence earlier = fence_of(stored);
  StoredRestore overtaken = stored;
  ++stored.head.attempt;
  stored.head.lists = {{"n1", "2-1"}};
  ASSERT_TRUE(store_restore(block, stored).ok());
  const RestoreFence later = fence_of(stored);
  const RestoreUnit unit{"n1", 3, 0, 1, "n2", "down"};
  DurableSlots progress;
  progress.add({7, 1, {4, 1, 0}, {{"n1", "a"}, {"n2", "b"}}});
  ASSERT_TRUE(store_failed_units(block, system_clock(), later, "n1", "2-1", {unit}).ok());
  ASSERT_TRUE(store_progress(block, later, "n1", 0, encode_progress(progress, 0)).ok());
  EXPECT_TRUE(absl::IsAborted(
      store_failed_units(block, system_clock(), earlier, "n1", "2-1", {unit, unit})));
  EXPECT_TRUE(absl::IsAborted(store_progress(block, earlier, "n1", 0, "")));
  // Nor does it end the restore, or erase what the later one has.
  overtaken.head.lists.clear();
  EXPECT_TRUE(absl::IsAborted(erase_unnamed(block, overtaken)));
  overtaken.head.state = RestoreState::kCompleted;
  EXPECT_TRUE(absl::IsAborted(store_restore(block, overtaken)));
  EXPECT_EQ(load_failed_units(block, stored.head, "n1")->size(), 1u);
  const auto loaded = load_progress(block, later, "n1");
  ASSERT_TRUE(loaded.ok()) << message_of(loaded.status());
  ASSERT_EQ(loaded->slots().size(), 1u);
  const DurableSlots::Slot& slot = loaded->slots().at(7);
  EXPECT_EQ(slot.kept, (KeptRecords{4, 1, 0}));
  EXPECT_EQ(loaded->store(slot.holders.at(1)).store, "b");
}

TEST(Restore, NothingIsBegunWhereASlotHasNoLiveReplica) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 20);
  TestCluster::Options single;
  single.replicas = 1;
  TestCluster to(single);
  const auto client = to.client();
  to.stop(0);
  ASSERT_TRUE(goes_down(*client, 0));
  const RestoreRequest request = from_folders(backup);
  const auto refused = client->restore(request, nullptr);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(list_failed(*client).entries.empty());
}

TEST(Restore, ADamagedArchiveWithAReplicaDownListsEveryRecordWithItsCause) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 600);
  damage(backup.archives[0].path);
  TestCluster to;
  const auto client = to.client();
  to.stop(2);
  ASSERT_TRUE(goes_down(*client, 2));
  const RestoreRequest request = from_folders(backup);
  const auto partial = client->restore(request, nullptr);
  ASSERT_TRUE(partial.ok()) << message_of(partial.status());
  EXPECT_EQ(name_of(partial->state), "completed_with_failures");
  EXPECT_EQ(partial->failed, 600u);
  EXPECT_EQ(partial->failed_deletions, 1u);
  ASSERT_EQ(partial->causes.size(), 2u);
  EXPECT_EQ(partial->causes[0].node, "n3");
  EXPECT_TRUE(partial->causes[1].damaged);
  EXPECT_THAT(partial->reason, HasSubstr("n3"));
  EXPECT_THAT(partial->reason, HasSubstr("damaged"));
  const uint64_t unreadable = partial->causes[1].records;
  const uint64_t unreadable_deletions = partial->causes[1].deletions;
  EXPECT_GT(unreadable + unreadable_deletions, 0u);
  const Listed before = list_failed(*client);
  EXPECT_EQ(before.records, 600u);
  EXPECT_EQ(before.deletions, 1u);
  EXPECT_EQ(before.keys.size(), 601 - unreadable - unreadable_deletions);
  to.start(2);
  const auto retried = client->restore_retry(nullptr);
  ASSERT_TRUE(retried.ok()) << message_of(retried.status());
  EXPECT_EQ(name_of(retried->state), "completed_with_failures");
  EXPECT_EQ(retried->failed, unreadable);
  EXPECT_EQ(retried->failed_deletions, unreadable_deletions);
  ASSERT_EQ(retried->causes.size(), 1u);
  const Listed after = list_failed(*client);
  EXPECT_EQ(after.records, unreadable);
  EXPECT_EQ(after.deletions, unreadable_deletions);
  ASSERT_EQ(after.entries.size(), 1u);
  EXPECT_EQ(after.entries[0].key, "");
  EXPECT_THAT(after.entries[0].reason, HasSubstr("segment-00000"));
  EXPECT_EQ(client->count().value(), 600u - unreadable);
}

TEST(Restore, SlotsThatAReplacedStoreLostAreRestoredAgain) {
  TestCluster from;
  const auto source = from.client();
  fill_and_back_up(*source, 300);
  TestCluster to;
  const auto client = to.client();
  ASSERT_NO_FATAL_FAILURE(begin_without(from, 1, *client, 300));
  to.stop(2);
  std::filesystem::remove_all(to.folder() + "/n3/data");
  to.start(2, /*accept_data_loss=*/true);
  const auto whole = client->restore(from_cluster(from), nullptr);
  ASSERT_TRUE(whole.ok()) << message_of(whole.status());
  EXPECT_EQ(name_of(whole->state), "completed") << whole->reason;
  EXPECT_EQ(whole->written, 300u);
  EXPECT_EQ(whole->proof.equal, whole->proof.copies);
  const auto nodes = client->nodes();
  ASSERT_TRUE(nodes.ok());
  for (const NodeView& node : *nodes) EXPECT_EQ(node.records, 300u) << node.name;
}

// The proof asks the replicas themselves: what they lack is found whatever the progress says.
TEST(Restore, RecordsThatALiveReplicaLacksAreNamedAndRestoredByTheNextRun) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 200);
  TestCluster to;
  const auto client = to.client();
  ASSERT_TRUE(client->put("of the cluster's own", "x").ok());  // so it is not empty
  const RestoreRequest request = from_folders(backup);
  const auto first = client->restore(request, nullptr);
  ASSERT_TRUE(first.ok()) << message_of(first.status());
  EXPECT_EQ(name_of(first->state), "completed") << first->reason;
  EXPECT_EQ(first->proof.newer, 3u);
  EXPECT_EQ(first->proof.differing, 0u);
  to.stop(2);
  std::filesystem::remove_all(to.folder() + "/n3/data");
  to.start(2, /*accept_data_loss=*/true);
  // Progress of an attempt that claims all slots for the store that n3 has now.
  StoredRestore stored = load_restore(to.block(), first->restore).value();
  stored.head.state = RestoreState::kRunning;
  stored.head.driven = true;
  stored.head.progress = ++stored.head.attempt;
  ASSERT_TRUE(store_restore(to.block(), stored).ok());
  std::vector<WriteReply::Holder> holders;
  const auto members = list_members(to.block());
  ASSERT_TRUE(members.ok());
  for (const Member& member : *members) {
    holders.push_back({member.info.name, member.info.store_id});
  }
  for (const RestoreSource& part : stored.head.sources) {
    DurableSlots progress;
    for (uint32_t slot = 0; slot < 64; ++slot) progress.add({slot, 1, {}, holders});
    ASSERT_TRUE(
        store_progress(to.block(), fence_of(stored), part.part, 0, encode_progress(progress, 0))
            .ok());
  }
  const auto lacking = client->restore(request, nullptr);
  ASSERT_TRUE(lacking.ok()) << message_of(lacking.status());
  EXPECT_EQ(name_of(lacking->state), "failed");
  EXPECT_GT(lacking->proof.differing, 0u);
  EXPECT_THAT(lacking->reason, HasSubstr("of n3"));
  const auto refilled = client->restore(request, nullptr);
  ASSERT_TRUE(refilled.ok()) << message_of(refilled.status());
  EXPECT_EQ(name_of(refilled->state), "completed") << refilled->reason;
  EXPECT_EQ(refilled->written, 200u);
  EXPECT_EQ(refilled->proof.differing, 0u);
}

// Storage that takes no commits of restores for a while.
class StalledBlock final : public ForwardingBlock {
 public:
  StalledBlock(ClusterBlock& block, int commits) : ForwardingBlock(block), left_(commits) {}
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    for (const ClusterOp& op : ops) {
      if (op.key.starts_with("restore") && op.lease == 0 && left_.fetch_sub(1) > 0) {
        return unavailable("the block is busy");
      }
    }
    return block_.commit(ops);
  }

 private:
  std::atomic<int> left_;
};

TEST(Restore, GoesOnWhenTheClusterBlockTakesNoWritesForAWhile) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 100);
  TestCluster to;
  StalledBlock stalled(to.block(), 12);
  auto client = ClusterClient::open(stalled, to.url());
  ASSERT_TRUE(client.ok()) << message_of(client.status());
  const RestoreRequest request = from_folders(backup);
  const auto restored = (*client)->restore(request, nullptr);
  ASSERT_TRUE(restored.ok()) << message_of(restored.status());
  EXPECT_EQ(name_of(restored->state), "completed") << restored->reason;
}

TEST(Restore, DigestsThatAreLateAreAskedForAgain) {
  TestCluster cluster;
  const auto client = cluster.client();
  cluster.stop(1);
  Patience patience;
  patience.gone_ms = 0;
  const auto connection = ClusterConnection::open(cluster.block(), cluster.url(), {});
  ASSERT_TRUE(connection.ok()) << message_of(connection.status());
  ASSERT_TRUE(goes_down(*client, 1));
  EXPECT_EQ(read_digests(**connection, patience)->size(), 2u);
  patience.gone_ms = 20'000;
  std::thread starter([&] { cluster.start(1); });
  EXPECT_EQ(read_digests(**connection, patience)->size(), 3u);
  starter.join();
}

TEST(Restore, ARetryListIsSwitchedInOneStep) {
  TestCluster cluster;
  ClusterBlock& block = cluster.block();
  StoredRestore stored;
  stored.head.id = "r";
  stored.head.state = RestoreState::kCompletedWithFailures;
  stored.head.attempt = 2;
  stored.head.driven = true;
  stored.head.lists = {{"n1", "1-1"}};
  ASSERT_TRUE(store_restore(block, stored).ok());
  std::vector<RestoreUnit> before;
  for (uint32_t i = 0; i < 2500; ++i) before.push_back({"n1", i, 0, 1, "n2", "down"});
  ASSERT_TRUE(
      store_failed_units(block, system_clock(), fence_of(stored), "n1", "1-1", before).ok());
  // An attempt that ends by a crash here, however far its own list is, leaves the one before.
  ASSERT_TRUE(store_failed_units(block, system_clock(), fence_of(stored), "n1", "2-1",
                                 {{"n1", 3, 0, 1, "n2", "down"}})
                  .ok());
  ASSERT_TRUE(erase_unnamed(block, stored).ok());
  EXPECT_EQ(load_failed_units(block, stored.head, "n1")->size(), 2500u);
  ASSERT_TRUE(store_failed_units(block, system_clock(), fence_of(stored), "n1", "2-2",
                                 {{"n1", 3, 0, 1, "n2", "down"}})
                  .ok());
  stored.head.lists = {{"n1", "2-2"}};
  ASSERT_TRUE(store_restore(block, stored).ok());
  EXPECT_EQ(load_failed_units(block, stored.head, "n1")->size(), 1u);
  ASSERT_TRUE(erase_unnamed(block, stored).ok());
  EXPECT_EQ(block.list("restore/r/")->entries.size(), 1u);
}

TEST(Restore, ARetryListThatLacksAChunkIsNotTakenForAWholeOne) {
  TestCluster cluster;
  ClusterBlock& block = cluster.block();
  StoredRestore stored;
  stored.head.id = "r";
  stored.head.state = RestoreState::kCompletedWithFailures;
  stored.head.attempt = 1;
  stored.head.driven = true;
  stored.head.lists = {{"n1", "1-1"}};
  ASSERT_TRUE(store_restore(block, stored).ok());
  std::vector<RestoreUnit> units;
  for (uint32_t i = 0; i < 2500; ++i) units.push_back({"n1", i, 0, 1, "n2", "down"});
  for (const char* lost : {"000001", "000002"}) {
    ASSERT_TRUE(
        store_failed_units(block, system_clock(), fence_of(stored), "n1", "1-1", units).ok());
    ASSERT_EQ(load_failed_units(block, stored.head, "n1")->size(), 2500u);
    ASSERT_TRUE(block.erase(fmt::format("restore/r/failed/1-1/n1/{}", lost)).ok());
    EXPECT_EQ(load_failed_units(block, stored.head, "n1").status().code(),
              absl::StatusCode::kDataLoss);
  }
}

// Ends a lock's lease, and gives the lock to somebody else, while its holder reads what it is to
// change.
class OvertakingBlock final : public ForwardingBlock {
 public:
  using ForwardingBlock::ForwardingBlock;
  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    auto entry = block_.get(key);
    if (!key.starts_with("restores/") || overtaken_.exchange(true)) return entry;
    const auto locks = block_.list("restore-locks/");
    EXPECT_TRUE(locks.ok() && locks->entries.size() == 1);
    if (!locks.ok() || locks->entries.empty()) return entry;
    EXPECT_TRUE(block_.revoke(locks->entries[0].lease).ok());
    auto taken = LeaseLock::take(block_, locks->entries[0].key, "another process");
    EXPECT_TRUE(taken.ok()) << taken.status();
    if (taken.ok()) lock_ = *std::move(taken);
    return entry;
  }

 private:
  std::atomic<bool> overtaken_{false};
  std::unique_ptr<LeaseLock> lock_;
};

TEST(Restore, WhoWasStoppedBehindTakingTheLockSupersedesNobody) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 50);
  TestCluster to;
  OvertakingBlock block(to.block());
  auto client = ClusterClient::open(block, to.url());
  ASSERT_TRUE(client.ok()) << message_of(client.status());
  const RestoreRequest request = from_folders(backup);
  const auto restored = (*client)->restore(request, nullptr);
  EXPECT_EQ(restored.status().code(), absl::StatusCode::kAborted) << restored.status();
  EXPECT_EQ(load_restore(to.block(), backup.uuid)->revision, 0u);
}

TEST(Restore, APartThatIsAskedForAfterItsAttemptIsOverDoesNothing) {
  TestCluster from;
  const auto source = from.client();
  const BackupView backup = fill_and_back_up(*source, 50);
  TestCluster to;
  const auto client = to.client();
  StoredRestore stored;
  stored.head.id = "r";
  stored.head.state = RestoreState::kRunning;
  stored.head.attempt = 2;
  stored.head.driven = true;
  stored.head.progress = 2;
  ASSERT_TRUE(store_restore(to.block(), stored).ok());
  auto& impl = static_cast<ClusterClientImpl&>(*client);
  Cancellation cancellation;
  RestoreRun run;
  run.peers = &impl.peers();
  const auto archive = ArchiveReader::open({backup.archives[0].path});
  ASSERT_TRUE(archive.ok()) << message_of(archive.status());
  const ArchiveIdentity& identity = (*archive)->manifest().identity;
  run.folders = {backup.archives[0].path};
  run.expected = {identity.cluster, identity.backup, "", (*archive)->manifest_digest()};
  run.id = "r";
  run.attempt = 1;
  run.cancellation = &cancellation;
  EXPECT_TRUE(absl::IsAborted(run_restore(run).status()));
  // Nor at the same attempt, once that has ended.
  stored.head.driven = false;
  ASSERT_TRUE(store_restore(to.block(), stored).ok());
  run.attempt = 2;
  EXPECT_TRUE(absl::IsAborted(run_restore(run).status()));
  EXPECT_EQ(client->count().value(), 0u);
}

}  // namespace
}  // namespace sluice
