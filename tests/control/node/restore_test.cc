// Restores into other clusters, whole and with nodes down.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "control/client/restore_store.h"
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
  EXPECT_EQ(backup->state, "completed") << backup->reason;
  return *std::move(backup);
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
  RestoreRequest request;
  request.backup = "b";
  request.source_cluster = from.url();
  request.dry_run = true;
  const auto dry = client->restore(request, nullptr);
  ASSERT_TRUE(dry.ok()) << message_of(dry.status());
  EXPECT_EQ(dry->records, 800u);
  EXPECT_EQ(client->count().value(), 0u);
  request.dry_run = false;
  const auto restored = client->restore(request, nullptr);
  ASSERT_TRUE(restored.ok()) << message_of(restored.status());
  EXPECT_EQ(restored->state, "completed") << restored->reason;
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
  EXPECT_EQ(again->state, "completed");
  EXPECT_EQ(again->kept_newer, 1u);
  EXPECT_EQ(again->proof.differing, 2u);
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
  EXPECT_EQ(part->state, "completed") << part->reason;
  EXPECT_EQ(part->records, 100u);
  EXPECT_EQ(client->count().value(), 100u);
  EXPECT_EQ(part->proof.differing, 0u);
  request.prefix.clear();
  const auto whole = client->restore(request, nullptr);
  ASSERT_TRUE(whole.ok()) << message_of(whole.status());
  EXPECT_EQ(whole->state, "completed") << whole->reason;
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
  ASSERT_TRUE(eventually(5'000, [&] {
    const auto nodes = client->nodes();
    return nodes.ok() && (*nodes)[2].state == "down";
  }));
  RestoreRequest request;
  request.archive_folders = folders_of(backup);
  const auto partial = client->restore(request, nullptr);
  ASSERT_TRUE(partial.ok()) << message_of(partial.status());
  EXPECT_EQ(partial->state, "completed_with_failures");
  EXPECT_EQ(partial->failed, 200u);
  EXPECT_EQ(partial->written, 0u);
  const auto failed = client->restore_failed();
  ASSERT_TRUE(failed.ok()) << message_of(failed.status());
  ASSERT_EQ(failed->size(), 201u);  // with the tombstone
  EXPECT_EQ((*failed)[0].node, "n3");
  EXPECT_FALSE((*failed)[0].reason.empty());
  // The others have it meanwhile; a value of several blocks may wait for its retry.
  EXPECT_GE(client->count().value(), 199u);
  to.start(2);
  const auto retried = client->restore_retry(nullptr);
  ASSERT_TRUE(retried.ok()) << message_of(retried.status());
  EXPECT_EQ(retried->state, "completed") << retried->reason;
  EXPECT_EQ(retried->failed, 0u);
  EXPECT_TRUE(retried->proof.checked);
  EXPECT_GT(retried->proof.copies, 0u);
  EXPECT_EQ(retried->proof.equal, retried->proof.copies);
  EXPECT_TRUE(client->restore_failed()->empty());
  const auto nodes = client->nodes();
  ASSERT_TRUE(nodes.ok());
  for (const NodeView& node : *nodes) EXPECT_EQ(node.records, 200u) << node.name;
  EXPECT_EQ(read_cluster(*client), read_cluster(*source));
}

TEST(Restore, AnInterruptedOneGoesOn) {
  TestCluster from;
  const auto source = from.client();
  fill_and_back_up(*source, 300);
  TestCluster to;
  const auto client = to.client();
  from.stop(1);
  RestoreRequest request;
  request.backup = "b";
  request.source_cluster = from.url();
  const auto partial = client->restore(request, nullptr);
  ASSERT_TRUE(partial.ok()) << message_of(partial.status());
  EXPECT_EQ(partial->state, "failed");
  EXPECT_THAT(partial->reason, HasSubstr("n2"));
  EXPECT_GT(partial->written, 0u);
  EXPECT_LT(partial->written, 300u);
  from.start(1);
  const auto whole = client->restore(request, nullptr);
  ASSERT_TRUE(whole.ok()) << message_of(whole.status());
  EXPECT_EQ(whole->state, "completed") << whole->reason;
  EXPECT_EQ(whole->records, 300u);
  EXPECT_EQ(whole->written, 300u);
  EXPECT_EQ(whole->kept_newer, 0u);  // what was there already was not sent again
  EXPECT_EQ(whole->proof.differing, 0u);
  EXPECT_EQ(read_cluster(*client), read_cluster(*source));
}

TEST(Restore, AnEmptyClusterThatDiffersFromTheArchiveAfterwardsHasNotCompleted) {
  TestCluster from;
  const auto source = from.client();
  fill_and_back_up(*source, 100);
  TestCluster to;
  const auto client = to.client();
  from.stop(1);
  RestoreRequest request;
  request.backup = "b";
  request.source_cluster = from.url();
  const auto partial = client->restore(request, nullptr);
  ASSERT_TRUE(partial.ok()) << message_of(partial.status());
  ASSERT_EQ(partial->state, "failed");
  from.start(1);
  ASSERT_TRUE(client->put("not of the archive", "x").ok());
  const auto differs = client->restore(request, nullptr);
  ASSERT_TRUE(differs.ok()) << message_of(differs.status());
  EXPECT_EQ(differs->state, "failed");
  EXPECT_EQ(differs->failed, 0u);
  EXPECT_EQ(differs->proof.differing, 3u);
  EXPECT_THAT(differs->reason, HasSubstr("3 of 192 slot copies differ"));
  // It is begun again in a cluster that is known to hold other records, and sends everything.
  const auto again = client->restore(request, nullptr);
  ASSERT_TRUE(again.ok()) << message_of(again.status());
  EXPECT_EQ(again->state, "completed") << again->reason;
  EXPECT_EQ(again->written, 100u);
}

TEST(Restore, OnlyWhatCompletedWithFailuresIsRetried) {
  TestCluster cluster;
  const auto client = cluster.client();
  StoredRestore stored;
  stored.head.id = "r";
  stored.head.sources = {{"n1", "n1", "/nowhere"}};
  stored.head.failed = 5;
  for (const char* state : {"cancelled", "failed"}) {
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
  stored.head.state = "completed_with_failures";
  ASSERT_TRUE(store_restore(cluster.block(), stored).ok());
  const auto lost = client->restore_retry(nullptr);
  EXPECT_EQ(lost.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(load_restore(cluster.block(), "r")->head.failed, 5u);
}

TEST(Restore, AnAttemptThatWasOvertakenStoresNothing) {
  TestCluster cluster;
  ClusterBlock& block = cluster.block();
  StoredRestore stored;
  stored.head.id = "r";
  stored.head.state = "running";
  ASSERT_TRUE(store_restore(block, stored).ok());
  const RestoreFence earlier{"r", stored.revision};
  ++stored.head.attempt;
  ASSERT_TRUE(store_restore(block, stored).ok());
  const RestoreFence later{"r", stored.revision};
  const RestoreUnit unit{"n1", 3, 0, 1, "n2", "down"};
  ASSERT_TRUE(store_failed_units(block, later, "n1", {unit}).ok());
  ASSERT_TRUE(store_done_slots(block, later, "n1", {7}).ok());
  EXPECT_TRUE(absl::IsAborted(store_failed_units(block, earlier, "n1", {})));
  EXPECT_TRUE(absl::IsAborted(store_done_slots(block, earlier, "n1", {3, 7})));
  EXPECT_EQ(load_failed_units(block, "r", "n1")->size(), 1u);
  EXPECT_EQ(load_done_slots(block, "r", "n1").value(), std::set<uint32_t>{7});
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
  ASSERT_TRUE(eventually(5'000, [&] {
    const auto nodes = client->nodes();
    return nodes.ok() && (*nodes)[0].state == "down";
  }));
  RestoreRequest request;
  request.archive_folders = folders_of(backup);
  const auto refused = client->restore(request, nullptr);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(client->restore_failed()->empty());
}

}  // namespace
}  // namespace sluice
