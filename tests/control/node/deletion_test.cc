// Deleting backups, and what stands in the place of their parts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>
#include <utility>

#include "base/file.h"
#include "base/random.h"
#include "base/status.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/backup/backup_store.h"
#include "control/backup/local_archives.h"
#include "control/cluster_block/memory_cluster_block.h"
#include "control/peers/archive_reference.h"
#include "control/peers/directory.h"
#include "control/peers/peers.h"
#include "control/peers/rpc.h"
#include "tests/control/node/forwarding_block.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string reason_of(const absl::Status& status) { return std::string(message_of(status)); }

class Deletion : public ::testing::Test {
 protected:
  Deletion() : client_(cluster_.client()) {}

  // A backup of `records` records of its own.
  BackupView back_up(const std::string& name, std::vector<std::string> targets = {}) {
    for (int i = 0; i < 40; ++i) {
      EXPECT_TRUE(client_->put(fmt::format("{}{}", name, i), name).ok());
    }
    const auto backup = client_->backup_create(
        {.name = name, .targets = std::move(targets), .dry_run = false}, nullptr);
    EXPECT_TRUE(backup.ok()) << backup.status();
    if (!backup.ok()) return {};
    EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
    return *backup;
  }
  std::string part(size_t node, const std::string& name) {
    return fmt::format("{}/{}/archives/{}", cluster_.folder(), cluster_.name(node), name);
  }
  bool whole(size_t node, const std::string& name) {
    return fs::exists(part(node, name) + "/manifest");
  }
  std::string bad_of(const std::string& name) {
    const auto verified = client_->backup_verify(name, nullptr);
    EXPECT_TRUE(verified.ok()) << verified.status();
    std::string all;
    for (const VerifyProblem& problem : verified->bad) {
      all += problem.file + ": " + problem.reason + "\n";
    }
    return all;
  }

  TestCluster cluster_;
  const std::unique_ptr<ClusterClient> client_;
};

TEST_F(Deletion, SwappedPartsAreNamedAndNothingIsDoneWithThem) {
  const BackupView a = back_up("a");
  const BackupView b = back_up("b");
  // On one node of three.
  fs::rename(part(1, "a"), part(1, "c"));
  fs::rename(part(1, "b"), part(1, "a"));
  fs::rename(part(1, "c"), part(1, "b"));
  EXPECT_THAT(bad_of("a"), HasSubstr("expected a part of backup " + a.uuid));
  EXPECT_THAT(bad_of("b"), HasSubstr("expected a part of backup " + b.uuid));
  RestoreRequest request;
  request.backup = "a";
  const auto restored = client_->restore(request, nullptr);
  EXPECT_EQ(restored.status().code(), absl::StatusCode::kDataLoss) << restored.status();
  EXPECT_THAT(reason_of(restored.status()), HasSubstr("n2: "));
  const absl::Status refused = client_->backup_delete("a");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(reason_of(refused), HasSubstr("n2"));
  EXPECT_EQ(name_of(client_->backup_show("a")->state), "completed");
  for (size_t node = 0; node < 3; ++node) {
    EXPECT_TRUE(whole(node, "a")) << node;
    EXPECT_TRUE(whole(node, "b")) << node;
  }
}

TEST_F(Deletion, ThePartOfAnotherNodeIsNotTakenForOnesOwn) {
  back_up("a");
  fs::rename(part(0, "a"), part(2, "z"));
  fs::rename(part(1, "a"), part(0, "a"));
  fs::rename(part(2, "z"), part(1, "a"));
  EXPECT_THAT(bad_of("a"), HasSubstr("expected that of node n1"));
  EXPECT_EQ(client_->backup_delete("a").code(), absl::StatusCode::kFailedPrecondition);
  for (size_t node = 0; node < 3; ++node) EXPECT_TRUE(whole(node, "a"));
}

TEST_F(Deletion, AManifestOfAnotherBackupIsNotBelieved) {
  back_up("a");
  back_up("b");
  fs::copy_file(part(0, "b") + "/manifest", part(0, "a") + "/manifest",
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(bad_of("a"), HasSubstr("of backup b ("));
  EXPECT_FALSE(client_->backup_delete("a").ok());
  EXPECT_TRUE(whole(0, "a"));
  EXPECT_TRUE(client_->backup_delete("b").ok());
  EXPECT_TRUE(whole(0, "a"));
}

// A copy, a shared archive directory, a dead node's disk: each is a part of a completed backup that
// its node does not hold.
TEST_F(Deletion, PartsOfOtherNodesAreLeftAlone) {
  back_up("x", {"n1"});
  cluster_.stop(1);
  fs::copy(part(0, "x"), part(1, "x"), fs::copy_options::recursive);
  cluster_.start(1);
  // It has seen the backup's document once the cut of a later one is gone again.
  back_up("later", {"n2"});
  EXPECT_TRUE(whole(1, "x"));
  ASSERT_TRUE(client_->backup_delete("x").ok());
  EXPECT_FALSE(fs::exists(part(0, "x")));
  EXPECT_TRUE(whole(1, "x"));
}

// Finished parts of backups that the cluster block does not know go by nobody's tidying.
TEST_F(Deletion, AFinishedPartOutlivesItsDocument) {
  const BackupView backup = back_up("x");
  ASSERT_TRUE(erase_backup(cluster_.block(), backup.uuid).ok());
  cluster_.stop(1);
  cluster_.start(1);
  back_up("later", {"n2"});
  for (size_t node = 0; node < 3; ++node) EXPECT_TRUE(whole(node, "x"));
}

TEST_F(Deletion, ANodeThatWasAwayRemovesItsPartWhenItReturns) {
  back_up("x");
  cluster_.stop(2);
  const absl::Status unfinished = client_->backup_delete("x");
  EXPECT_EQ(unfinished.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(reason_of(unfinished), HasSubstr("n3: "));
  const auto shown = client_->backup_show("x");
  ASSERT_TRUE(shown.ok()) << shown.status();
  EXPECT_EQ(name_of(shown->state), "cancelled");
  EXPECT_TRUE(shown->deleting);
  EXPECT_THAT(shown->reason, HasSubstr("unfinished"));
  EXPECT_THAT(shown->reason, HasSubstr("n3"));
  ASSERT_EQ(shown->archives.size(), 1u);
  EXPECT_FALSE(fs::exists(part(0, "x")));
  EXPECT_TRUE(whole(2, "x"));
  // Meanwhile nothing is done with what remains, and its name is taken.
  EXPECT_THAT(reason_of(client_->backup_verify("x", nullptr).status()), HasSubstr("being deleted"));
  RestoreRequest request;
  request.backup = "x";
  EXPECT_THAT(reason_of(client_->restore(request, nullptr).status()), HasSubstr("being deleted"));
  EXPECT_FALSE(client_->backup_resume("x", nullptr).ok());
  const auto again =
      client_->backup_create({.name = "x", .targets = {"n1"}, .dry_run = false}, nullptr);
  EXPECT_EQ(again.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(reason_of(again.status()), HasSubstr("n3"));
  EXPECT_EQ(client_->backup_delete("x").code(), absl::StatusCode::kAborted);
  cluster_.start(2);
  EXPECT_TRUE(
      eventually(20'000, [&] { return absl::IsNotFound(client_->backup_show("x").status()); }));
  EXPECT_FALSE(fs::exists(part(2, "x")));
  back_up("x");
}

// Whoever deleted it is gone: the nodes finish it among themselves.
TEST_F(Deletion, GoesOnWithoutTheOneWhoBeganIt) {
  back_up("x");
  auto stored = load_backup(cluster_.block(), "x");
  ASSERT_TRUE(stored.ok());
  ASSERT_TRUE(begin_deletion(cluster_.block(), *stored, 1).ok());
  EXPECT_TRUE(
      eventually(20'000, [&] { return absl::IsNotFound(client_->backup_show("x").status()); }));
  for (size_t node = 0; node < 3; ++node) EXPECT_FALSE(fs::exists(part(node, "x")));
}

TEST_F(Deletion, OneThatCannotRemoveItsPartSaysWhyAndTriesAgain) {
  back_up("x");
  // Its holders are told, and then one finds something else in the place.
  auto stored = load_backup(cluster_.block(), "x");
  fs::rename(part(1, "x"), part(1, "kept"));
  back_up("other", {"n2"});
  fs::rename(part(1, "other"), part(1, "x"));
  ASSERT_TRUE(stored.ok());
  ASSERT_TRUE(begin_deletion(cluster_.block(), *stored, 1).ok());
  const absl::Status unfinished = client_->backup_delete("x");
  EXPECT_EQ(unfinished.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(reason_of(unfinished), HasSubstr("holds the part of node n2 of backup other ("));
  EXPECT_TRUE(whole(1, "x"));
  fs::rename(part(1, "x"), part(1, "other"));
  fs::rename(part(1, "kept"), part(1, "x"));
  EXPECT_TRUE(
      eventually(20'000, [&] { return absl::IsNotFound(client_->backup_show("x").status()); }));
  EXPECT_FALSE(fs::exists(part(1, "x")));
  EXPECT_TRUE(whole(1, "other"));
}

TEST_F(Deletion, TwiceAtOnceIsOnce) {
  back_up("x");
  absl::Status first;
  std::thread other([&] { first = cluster_.client()->backup_delete("x"); });
  const absl::Status second = client_->backup_delete("x");
  other.join();
  for (const absl::Status& status : {first, second}) {
    EXPECT_TRUE(status.ok() || absl::IsNotFound(status)) << status;
  }
  EXPECT_TRUE(first.ok() || second.ok());
  EXPECT_TRUE(client_->backup_list()->empty());
  for (size_t node = 0; node < 3; ++node) EXPECT_FALSE(fs::exists(part(node, "x")));
}

TEST_F(Deletion, LinksAndMissingPartsAreNoObstacle) {
  back_up("x");
  fs::rename(part(1, "x"), cluster_.folder() + "/elsewhere");
  fs::create_directory_symlink(cluster_.folder() + "/elsewhere", part(1, "x"));
  EXPECT_EQ(bad_of("x"), "");
  fs::remove_all(part(2, "x"));
  EXPECT_TRUE(client_->backup_delete("x").ok());
  EXPECT_FALSE(fs::exists(cluster_.folder() + "/elsewhere"));
  EXPECT_FALSE(fs::is_symlink(part(1, "x")));
  EXPECT_TRUE(client_->backup_list()->empty());
}

// While its caller erases a backup, others erase it, and somebody makes another one of its name.
class ReusedNameBlock final : public ForwardingBlock {
 public:
  ReusedNameBlock(ClusterBlock& block, std::string uuid, BackupHead next)
      : ForwardingBlock(block), uuid_(std::move(uuid)), next_(std::move(next)) {}
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override {
    auto listing = block_.list(prefix);
    if (prefix == kBackupNamesPrefix && !std::exchange(reused_, true)) {
      EXPECT_TRUE(erase_backup(block_, uuid_).ok());
      EXPECT_TRUE(create_backup(block_, next_).ok());
    }
    return listing;
  }

 private:
  const std::string uuid_;
  const BackupHead next_;
  bool reused_ = false;
};

TEST(DeletionRace, OneThatWasStoppedLeavesTheNextBackupOfItsNameAlone) {
  const auto block = make_memory_cluster_block();
  BackupHead head;
  head.name = "nightly";
  head.uuid = make_uuid();
  ASSERT_TRUE(create_backup(*block, head).ok());
  BackupHead next = head;
  next.uuid = make_uuid();
  ReusedNameBlock reused(*block, head.uuid, next);
  EXPECT_TRUE(absl::IsNotFound(erase_backup(reused, head.uuid)));
  const auto found = load_backup(*block, "nightly");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->head.uuid, next.uuid);
}

// Neither is gone: a link to a disk that is not mounted, and a part in the archive directory that
// the node had before.
TEST_F(Deletion, APartThatStandsElsewhereIsNotTakenForRemoved) {
  back_up("x");
  const std::string elsewhere = cluster_.folder() + "/elsewhere";
  fs::create_directory_symlink(elsewhere, part(1, "moved"));
  fs::rename(part(1, "x"), cluster_.folder() + "/kept");
  fs::rename(part(1, "moved"), part(1, "x"));
  cluster_.stop(2);
  fs::rename(cluster_.folder() + "/n3/archives", cluster_.folder() + "/n3/before");
  fs::create_directories(cluster_.folder() + "/n3/archives");
  auto stored = load_backup(cluster_.block(), "x");
  ASSERT_TRUE(stored.ok());
  auto parts = load_parts(cluster_.block(), stored->head.uuid);
  ASSERT_TRUE(parts.ok()) << parts.status();
  for (ArchivePart& held : *parts) {
    if (held.node == "n3") held.path = cluster_.folder() + "/n3/before/x";
  }
  const auto changes = part_changes(cluster_.block(), stored->head.uuid, *parts);
  ASSERT_TRUE(changes.ok());
  ASSERT_TRUE(cluster_.block().commit(*changes).ok());
  cluster_.start(2);
  // Until n3 serves, it is only a node that does not answer.
  absl::Status unfinished;
  EXPECT_TRUE(eventually(20'000, [&] {
    unfinished = client_->backup_delete("x");
    return reason_of(unfinished).find("/n3/before/x") != std::string::npos;
  })) << unfinished;
  EXPECT_EQ(unfinished.code(), absl::StatusCode::kAborted) << unfinished;
  EXPECT_THAT(reason_of(unfinished), HasSubstr("a link that leads nowhere"));
  EXPECT_EQ(client_->backup_show("x")->archives.size(), 2u);
  // Both go once they are back.
  fs::rename(cluster_.folder() + "/kept", elsewhere);
  fs::rename(cluster_.folder() + "/n3/before/x", part(2, "x"));
  EXPECT_TRUE(eventually(20'000, [&] { return client_->backup_list()->empty(); }));
  EXPECT_FALSE(fs::exists(elsewhere));
  EXPECT_FALSE(fs::exists(part(2, "x")));
}

// Whoever reads has begun before the deletion, which waits for them.
TEST_F(Deletion, APartThatIsBeingReadIsNotRemoved) {
  const BackupView backup = back_up("x");
  const auto stored = load_backup(cluster_.block(), "x");
  ASSERT_TRUE(stored.ok());
  const auto directory = Directory::open(cluster_.block());
  ASSERT_TRUE(directory.ok());
  NodeContext context;
  context.name = "n2";
  context.archive_folder = fs::path(part(1, "x")).parent_path().string();
  context.directory = directory->get();
  LocalArchives archives(context);
  const ArchivePartId id{(*directory)->cluster().uuid, backup.uuid, "n2",
                         stored->head.manifest_digest};
  const v1::ArchiveReference reference = make_reference(id, "x");
  auto first = archives.read(reference, "a restore");
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = archives.read(reference, "a verification");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_THAT(reason_of(archives.check(reference).status()), HasSubstr("for a restore"));
  EXPECT_EQ(archives.remove("x", id, Removable::kAny).code(),
            absl::StatusCode::kFailedPrecondition);
  first->reset();
  EXPECT_THAT(reason_of(archives.check(reference).status()), HasSubstr("for a verification"));
  second->reset();
  EXPECT_TRUE(archives.check(reference).value());
  // Nobody else's part is opened through this node.
  ArchivePartId other = id;
  other.node = "n1";
  EXPECT_FALSE(archives.read(make_reference(other, "x"), "a restore").ok());
  other = id;
  other.cluster = "another";
  EXPECT_FALSE(archives.read(make_reference(other, "x"), "a restore").ok());
  EXPECT_FALSE(archives.read(make_reference(id, "../x"), "a restore").ok());
  EXPECT_TRUE(archives.remove("x", id, Removable::kAny).ok());
  EXPECT_FALSE(archives.check(reference).value());
}

TEST_F(Deletion, ADamagedBackupCanBeDeleted) {
  back_up("x");
  fs::resize_file(part(0, "x") + "/manifest", 40);
  EXPECT_NE(bad_of("x"), "");
  EXPECT_TRUE(client_->backup_delete("x").ok());
  EXPECT_FALSE(fs::exists(part(0, "x")));
}

TEST_F(Deletion, ANodeRemovesOnlyWhatTheDocumentSaysIsBeingDeleted) {
  const BackupView backup = back_up("x");
  const auto stored = load_backup(cluster_.block(), "x");
  ASSERT_TRUE(stored.ok());
  const auto directory = Directory::open(cluster_.block());
  Peers peers(**directory, system_clock());
  const auto ask = [&](const ArchivePartId& id) {
    const auto peer = peers.find("n1");
    EXPECT_TRUE(peer.ok());
    grpc::ClientContext call;
    set_timeout(call, 10'000);
    v1::Empty reply;
    return from_grpc((*peer)->peer().DeleteArchive(&call, make_reference(id, "x"), &reply));
  };
  const ArchivePartId id{(*directory)->cluster().uuid, backup.uuid, "n1",
                         stored->head.manifest_digest};
  EXPECT_EQ(ask(id).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(whole(0, "x"));
}

}  // namespace
}  // namespace sluice
