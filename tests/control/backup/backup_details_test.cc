#include "control/backup/backup_details.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_store.h"
#include "control/cluster_block/memory_cluster_block.h"

namespace sluice {
namespace {

class BackupDetailsTest : public testing::Test {
 protected:
  std::unique_ptr<ClusterBlock> block_ = make_memory_cluster_block();
  const std::string uuid_ = make_uuid();
};

TEST_F(BackupDetailsTest, PartsAreReplacedAsASet) {
  const auto store = [&](const std::vector<ArchivePart>& parts) {
    const auto changes = part_changes(*block_, uuid_, parts);
    ASSERT_TRUE(changes.ok()) << changes.status();
    ASSERT_TRUE(block_->commit(*changes).ok());
    EXPECT_EQ(*load_parts(*block_, uuid_), parts);
  };
  store({{"n1", "/a/b"}, {"n2", "/a/c"}});
  store({{"n2", "/a/d"}, {"n3", "/a/e"}});
  EXPECT_FALSE(load_part(*block_, uuid_, "n1")->has_value());
  EXPECT_EQ((*load_part(*block_, uuid_, "n2"))->path, "/a/d");
  ASSERT_TRUE(block_->commit({part_erasure(uuid_, "n2")}).ok());
  EXPECT_EQ(load_parts(*block_, uuid_)->size(), 1u);
  EXPECT_TRUE(load_parts(*block_, make_uuid())->empty());
}

TEST_F(BackupDetailsTest, APartAtTheKeyOfAnotherNodeIsDamage) {
  const auto changes = part_changes(*block_, uuid_, {{"n1", "/a/b"}});
  ASSERT_TRUE(block_->commit(*changes).ok());
  const auto entry = block_->list(backup_folder_key(uuid_))->entries.at(0);
  ASSERT_TRUE(block_->put(backup_folder_key(uuid_) + "parts/n2", entry.value).ok());
  EXPECT_TRUE(absl::IsDataLoss(load_part(*block_, uuid_, "n2").status()));
  EXPECT_TRUE(absl::IsDataLoss(load_parts(*block_, uuid_).status()));
}

// A deletion needs to know who holds parts, not what their documents say.
TEST_F(BackupDetailsTest, ADamagedPartKeepsItsHolder) {
  ASSERT_TRUE(block_->commit(*part_changes(*block_, uuid_, {{"n1", "/a"}, {"n2", "/b"}})).ok());
  ASSERT_TRUE(block_->put(backup_folder_key(uuid_) + "parts/n2", "garbage").ok());
  EXPECT_TRUE(absl::IsDataLoss(load_parts(*block_, uuid_).status()));
  EXPECT_EQ(*load_holders(*block_, uuid_), (std::vector<std::string>{"n1", "n2"}));
  EXPECT_TRUE(*is_holder(*block_, uuid_, "n2"));
  EXPECT_FALSE(*is_holder(*block_, uuid_, "n3"));
}

// Whoever restores or verifies has read the head before its deletion began, and the parts later.
TEST_F(BackupDetailsTest, PartsOfABackupThatIsBeingDeletedAreNotTakenForAll) {
  BackupHead head;
  head.uuid = uuid_;
  head.name = "nightly";
  head.state = BackupState::kCompleted;
  head.parts = 2;
  auto stored = create_backup(*block_, head);
  ASSERT_TRUE(stored.ok()) << stored.status();
  ASSERT_TRUE(block_->commit(*part_changes(*block_, uuid_, {{"n1", "/a"}, {"n2", "/b"}})).ok());
  EXPECT_EQ(load_all_parts(*block_, head)->size(), 2u);
  ASSERT_TRUE(block_->commit({part_erasure(uuid_, "n1")}).ok());
  EXPECT_TRUE(absl::IsDataLoss(load_all_parts(*block_, head).status()));
  ASSERT_TRUE(begin_deletion(*block_, *stored, 0).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(load_all_parts(*block_, head).status()));
}

TEST_F(BackupDetailsTest, TargetsAreStoredWhereTheyAreNamed) {
  EXPECT_TRUE(targets_put(uuid_, {})->empty());
  EXPECT_TRUE(load_targets(*block_, uuid_)->empty());
  const std::vector<std::string> targets = {"n2", "n7"};
  ASSERT_TRUE(block_->commit(*targets_put(uuid_, targets)).ok());
  EXPECT_EQ(*load_targets(*block_, uuid_), targets);
  const std::vector<std::string> many(10'000, std::string(200, 'x'));
  EXPECT_TRUE(absl::IsInvalidArgument(targets_put(uuid_, many).status()));
}

TEST_F(BackupDetailsTest, TheBusiestStagesOfThousandsOfNodesAreKept) {
  std::vector<StageReport> stages;
  for (uint64_t i = 0; i < 10'000; ++i) {
    stages.push_back({"n" + std::to_string(i), DataStage::kDisk, i, i, 10'000 - i});
  }
  ASSERT_TRUE(block_->commit({stages_put(uuid_, stages)}).ok());
  BackupHead head;
  head.uuid = uuid_;
  const auto details = load_details(*block_, head);
  ASSERT_TRUE(details.ok()) << details.status();
  ASSERT_EQ(details->stages.size(), kMaxStagesOfBackup);
  EXPECT_EQ(details->stages.front().node, "n9999");
}

// Every node reads it whenever it changes.
TEST_F(BackupDetailsTest, TheHeadOfABackupOfTenThousandNodesIsSmall) {
  Plan plan;
  for (uint32_t n = 0; n < 10'000; ++n) {
    plan.nodes.push_back({"node-" + std::to_string(n), 1e9, 1e9});
    plan.loads.push_back({1, 2, 3});
    plan.targets.push_back(n);
  }
  BackupHead head;
  head.uuid = uuid_;
  head.name = "nightly";
  const PlanChunks chunks = cut_plan(uuid_, 1, plan);
  for (const ClusterOp& op : chunks.before_head) ASSERT_TRUE(block_->commit({op}).ok());
  head.plan_chunks = chunks.count;
  head.plan_attempt = 1;
  EXPECT_LT(encode(head).size(), 512u);
  const auto details = load_details(*block_, head);
  ASSERT_TRUE(details.ok()) << details.status();
  EXPECT_EQ(details->planned, planned_nodes(plan));
}

}  // namespace
}  // namespace sluice
