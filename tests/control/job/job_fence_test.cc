// Which attempt of a backup a node lets have an effect.
#include "control/job/job_fence.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "base/random.h"
#include "base/status.h"
#include "control/backup/backup_job.h"
#include "control/backup/backup_store.h"
#include "control/cluster_block/memory_cluster_block.h"

namespace sluice {
namespace {

struct JobFenceTest : ::testing::Test {
  JobFenceTest() {
    char path[] = "/tmp/sluice-test-XXXXXX";
    EXPECT_NE(::mkdtemp(path), nullptr);
    folder = path;
    open();
  }
  ~JobFenceTest() override {
    fence.reset();
    store.reset();
    std::error_code error;
    std::filesystem::remove_all(folder, error);
  }
  void open() {
    fence.reset();
    store.reset();
    Store::Options options;
    options.folder = folder + "/data";
    options.cluster = "c";
    options.node = "n1";
    options.slot_bits = 4;
    auto opened = Store::open(options);
    ASSERT_TRUE(opened.ok()) << message_of(opened.status());
    store = *std::move(opened);
    fence = std::make_unique<JobFence>(*store, "backup",
                                       [this](const std::string& job, uint64_t attempt) {
                                         return check_attempt(*block, job, attempt);
                                       });
  }
  // The document of a backup at this attempt.
  void document(uint64_t attempt) {
    BackupHead head;
    head.uuid = uuid;
    head.name = "b";
    head.attempt = attempt;
    head.slot_bits = 4;
    ASSERT_TRUE(block->put(backup_head_key(uuid), encode(head)).ok());
  }
  absl::Status enter(uint64_t attempt) { return fence->enter(uuid, attempt, 0).status(); }

  const std::string uuid = make_uuid();
  std::string folder;
  std::unique_ptr<ClusterBlock> block = make_memory_cluster_block();
  std::unique_ptr<Store> store;
  std::unique_ptr<JobFence> fence;
};

TEST_F(JobFenceTest, RefusesALowerAttemptAlsoAfterARestart) {
  document(1);
  EXPECT_TRUE(enter(1).ok());
  document(3);
  EXPECT_TRUE(enter(3).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(enter(1)));
  EXPECT_TRUE(absl::IsFailedPrecondition(enter(2)));
  EXPECT_TRUE(enter(3).ok());
  open();
  // What is durable counts without the document.
  ASSERT_TRUE(block->erase(backup_head_key(uuid)).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(enter(2)));
  EXPECT_TRUE(enter(3).ok());
}

TEST_F(JobFenceTest, BelievesAHigherAttemptOnlyOfTheDocument) {
  document(2);
  EXPECT_TRUE(absl::IsFailedPrecondition(enter(1))) << "never seen here, but over";
  EXPECT_TRUE(absl::IsFailedPrecondition(enter(3))) << "not begun";
  EXPECT_TRUE(enter(2).ok());
}

TEST_F(JobFenceTest, RefusesWhoeverComesAfterTheBackupWasDeleted) {
  document(2);
  EXPECT_TRUE(enter(2).ok());
  ASSERT_TRUE(block->erase(backup_head_key(uuid)).ok());
  fence->forget_except({});
  EXPECT_TRUE(store->attempts().empty());
  EXPECT_TRUE(absl::IsNotFound(enter(1)));
  EXPECT_TRUE(absl::IsNotFound(enter(2)));
}

TEST_F(JobFenceTest, ADryRunHasTheLockInsteadOfADocument) {
  EXPECT_TRUE(absl::IsNotFound(enter(1)));
  NodeContext context;
  context.name = "n1";
  context.block = block.get();
  context.clock = &system_clock();
  const auto job = take_backup_job(context, uuid, "dry");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(enter(1).ok());
}

// What was admitted has its effect before the next attempt begins, never afterwards.
TEST_F(JobFenceTest, RaisesAnAttemptWhenNothingOfALowerOneIsAtWork) {
  document(1);
  auto first = fence->enter(uuid, 1, 0);
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(enter(1).ok()) << "others of the same attempt work at the same time";
  document(2);
  EXPECT_TRUE(absl::IsUnavailable(enter(2)));
  std::atomic<bool> left{false};
  std::thread waiting([&] {
    const auto second = fence->enter(uuid, 2, 20'000);
    EXPECT_TRUE(second.ok()) << message_of(second.status());
    EXPECT_TRUE(left);
  });
  {
    const JobFence::Pass ending = *std::move(first);
    left = true;
  }
  waiting.join();
  EXPECT_TRUE(absl::IsFailedPrecondition(enter(1)));
}

TEST_F(JobFenceTest, DoesNotForgetWhatIsAtWork) {
  document(1);
  {
    const auto pass = fence->enter(uuid, 1, 0);
    ASSERT_TRUE(pass.ok());
    fence->forget_except({});
    EXPECT_EQ(store->attempts().size(), 1u);
  }
  fence->forget_except({uuid});
  EXPECT_EQ(store->attempts().size(), 1u);
  fence->forget_except({});
  EXPECT_TRUE(store->attempts().empty());
}

}  // namespace
}  // namespace sluice
