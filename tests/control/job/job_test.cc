#include "control/job/job.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "control/cluster_block/memory_cluster_block.h"
#include "tests/control/job/loses_answers.h"

namespace sluice {
namespace {

constexpr char kHead[] = "jobs/1";

class CountingClock final : public Clock {
 public:
  int64_t wall_ms() const override { return system_clock().wall_ms(); }
  int64_t monotonic_ns() const override {
    ++readings_;
    return system_clock().monotonic_ns();
  }
  void sleep_ns(int64_t duration) override { system_clock().sleep_ns(duration); }
  int readings() const { return readings_; }

 private:
  mutable std::atomic<int> readings_{0};
};

class JobTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Job>> take(const std::vector<ClusterOp>& with = {}) {
    return Job::take(block_, {"job one", kHead, "lock"}, "holder",
                     {"worker", &system_clock(), 2000, 2000}, with);
  }
  std::unique_ptr<Job> begun() {
    auto job = take({ClusterOp::put(kHead, "created", 0)});
    EXPECT_TRUE(job.ok()) << job.status();
    (*job)->adopt((*job)->taken_at(), 1);
    return *std::move(job);
  }
  // Others end its lease, and take it themselves.
  std::unique_ptr<Job> take_over() {
    for (int i = 0; i < 1000; ++i) {
      const auto entry = memory_->get("lock");
      if (entry.ok() && entry->has_value()) memory_->revoke((*entry)->lease).IgnoreError();
      auto other = take();
      if (other.ok()) return *std::move(other);
    }
    ADD_FAILURE() << "the lock could not be taken over";
    return nullptr;
  }
  std::string stored() { return (*memory_->get(kHead))->value; }

  std::unique_ptr<ClusterBlock> memory_ = make_memory_cluster_block();
  LosesAnswers block_{*memory_};
};

TEST_F(JobTest, OneProcessWorksOnItAtATime) {
  auto job = begun();
  EXPECT_TRUE(absl::IsAborted(take().status()));
  job.reset();
  EXPECT_TRUE(take().ok());
}

TEST_F(JobTest, ItsLeaseRunsOnItsClock) {
  CountingClock clock;
  const auto job =
      Job::take(block_, {"job one", kHead, "lock"}, "holder", {"worker", &clock, 2000, 2000});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_GT(clock.readings(), 0);
}

TEST_F(JobTest, EachHeadGoesOverTheOneBefore) {
  const auto job = begun();
  ASSERT_TRUE(job->store({"first", 1}).ok());
  ASSERT_TRUE(job->store({"second", 2}).ok());
  EXPECT_EQ(stored(), "second");
  EXPECT_TRUE(job->check_unchanged().ok());
  EXPECT_TRUE(absl::IsInvalidArgument(job->store({"older", 1})));
  EXPECT_EQ(stored(), "second");
}

TEST_F(JobTest, WhoeverWasOvertakenStoresNothingMore) {
  const auto job = begun();
  ASSERT_TRUE(memory_->put(kHead, "cancelled elsewhere").ok());
  EXPECT_TRUE(absl::IsAborted(job->commit({ClusterOp::put("progress", "late")})));
  EXPECT_TRUE(absl::IsAborted(job->stop_status()));
  EXPECT_TRUE(absl::IsAborted(job->store({"late", 9})));
  EXPECT_TRUE(absl::IsAborted(job->hold()));
  EXPECT_FALSE(memory_->get("progress")->has_value());
  EXPECT_EQ(stored(), "cancelled elsewhere");
  // Whoever loads it again under the lock works on it again.
  job->adopt((*memory_->get(kHead))->revision, 9);
  EXPECT_TRUE(job->store({"later", 10}).ok());
}

TEST_F(JobTest, SeesAChangeOfItsHead) {
  const auto job = begun();
  const auto watch = job->watch(kHead);
  ASSERT_TRUE(watch.ok());
  ASSERT_TRUE(memory_->erase(kHead).ok());
  EXPECT_TRUE(job->wait(10'000));
  EXPECT_TRUE(absl::IsAborted(job->check_unchanged()));
}

TEST_F(JobTest, NothingIsStoredOnceAnotherProcessHasTheLock) {
  const auto job = begun();
  const auto other = take_over();
  EXPECT_TRUE(absl::IsAborted(job->store({"late", 2})));
  EXPECT_TRUE(absl::IsAborted(job->commit({ClusterOp::put("progress", "late")})));
  EXPECT_EQ(stored(), "created");
  other->adopt((*memory_->get(kHead))->revision, 1);
  EXPECT_TRUE(other->store({"taken over", 2}).ok());
}

TEST_F(JobTest, ACancelledJobStoresItsEnd) {
  const auto job = begun();
  std::thread([&] { job->cancel(); }).join();
  EXPECT_TRUE(job->wait(10'000));
  EXPECT_TRUE(absl::IsCancelled(job->stop_status()));
  EXPECT_TRUE(job->store_last({"cancelled", 1}).ok());
  EXPECT_EQ(stored(), "cancelled");
}

TEST_F(JobTest, AnAbandonedJobStaysAsItIs) {
  const auto job = begun();
  job->abandon();
  EXPECT_TRUE(absl::IsAborted(job->stop_status()));
  EXPECT_TRUE(absl::IsAborted(job->store({"late", 1})));
  EXPECT_EQ(stored(), "created");
}

TEST_F(JobTest, TheLastHeadReleasesTheLock) {
  const auto job = begun();
  ASSERT_TRUE(job->store_last({"completed", 1}).ok());
  EXPECT_TRUE(job->has_released());
  EXPECT_TRUE(take().ok());
}

TEST_F(JobTest, ABusyBlockIsAskedAgain) {
  const auto job = begun();
  block_.refused = 3;
  EXPECT_TRUE(job->store({"stored", 1}).ok());
  block_.refused = 3;
  EXPECT_TRUE(job->commit({ClusterOp::put("progress", "stored")}).ok());
  EXPECT_EQ(stored(), "stored");
  block_.refused = 1 << 20;
  EXPECT_TRUE(absl::IsUnavailable(job->store({"not stored", 1})));
  EXPECT_EQ(stored(), "stored");
  block_.refused = 0;
  EXPECT_TRUE(job->store({"stored later", 1}).ok());
}

TEST_F(JobTest, ALostAnswerIsNotATakeover) {
  const auto job = begun();
  block_.lost = 1;
  EXPECT_TRUE(job->store({"stored", 1}).ok());
  block_.lost = 1;
  EXPECT_TRUE(job->store_last({"completed", 1}).ok());
  EXPECT_EQ(stored(), "completed");
}

TEST_F(JobTest, ABusyBlockIsAskedAgainForAsLongAsItsPatience) {
  ManualClock clock;
  const auto job = Job::take(block_, {"job one", kHead, "lock"}, "holder",
                             {"worker", &clock, 400, 2000}, {ClusterOp::put(kHead, "created", 0)});
  ASSERT_TRUE(job.ok()) << job.status();
  (*job)->adopt((*job)->taken_at(), 1);
  block_.commits = 0;
  block_.refused = 2;
  EXPECT_TRUE((*job)->store({"first", 1}).ok());
  EXPECT_EQ(block_.commits, 3);
  block_.refused = 100;
  EXPECT_TRUE(absl::IsUnavailable((*job)->store({"second", 1})));
  EXPECT_EQ(block_.commits, 6);
  EXPECT_EQ(stored(), "first");
}

TEST_F(JobTest, TheHeadGoesOverTheRevisionThatWasAdopted) {
  const auto job = begun();
  const Revision first = job->head();
  block_.commits = 0;
  ASSERT_TRUE(job->store({"second", 1}).ok());
  EXPECT_EQ((*memory_->get(kHead))->revision, job->head());
  job->adopt(first, 1);
  EXPECT_TRUE(absl::IsAborted(job->store({"third", 1})));
  EXPECT_EQ(stored(), "second");
  EXPECT_EQ(block_.commits, 2);
}

TEST_F(JobTest, AHeadWhoseAnswerWasLostIsFound) {
  const auto job = begun();
  block_.lost = 1;
  ASSERT_TRUE(job->store({"first", 1}).ok());
  EXPECT_EQ((*memory_->get(kHead))->revision, job->head());
}

TEST_F(JobTest, AHeadWhoseAnswerWasLostAndThatSomebodyReplacedIsATakeover) {
  const auto job = begun();
  block_.lost = 1;
  block_.meanwhile = [&] { ASSERT_TRUE(memory_->put(kHead, "another's").ok()); };
  EXPECT_TRUE(absl::IsAborted(job->store({"first", 1})));
  EXPECT_EQ(stored(), "another's");
}

TEST_F(JobTest, WhatGoesWithAHeadIsPartOfTheCommit) {
  const auto job = begun();
  const auto fence = memory_->put("fence", "1");
  ASSERT_TRUE(fence.ok());
  const std::vector<ClusterOp> check{ClusterOp::check("fence", *fence)};
  ASSERT_TRUE(job->store({"first", 1}, check).ok());
  ASSERT_TRUE(memory_->put("fence", "2").ok());
  EXPECT_TRUE(absl::IsAborted(job->store({"second", 1}, check)));
  EXPECT_EQ(stored(), "first");
}

// The block stays away for longer than anybody waits; what was made then is this process's own.
TEST_F(JobTest, ACommitWhoseAnswerStayedLostIsNotATakeover) {
  const auto job = begun();
  block_.lost = 1;
  block_.meanwhile = [&] { block_.refused = 1 << 20; };
  EXPECT_TRUE(absl::IsUnavailable(job->store({"made", 2})));
  EXPECT_EQ(stored(), "made");
  block_.refused = 0;
  EXPECT_TRUE(job->check_unchanged().ok());
  EXPECT_TRUE(job->commit({ClusterOp::put("progress", "stored")}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(job->store({"older", 1})));
  EXPECT_TRUE(job->store({"next", 3}).ok());
  EXPECT_EQ(stored(), "next");
}

TEST_F(JobTest, ManyChangesAreMadeInSeveralCommits) {
  const auto job = begun();
  std::vector<ClusterOp> changes;
  for (size_t i = 0; i < 3 * ClusterBlock::kMaxOps; ++i) {
    changes.push_back(ClusterOp::put(fmt::format("progress/{}", i), "x"));
  }
  EXPECT_TRUE(job->commit(changes).ok());
  EXPECT_EQ(memory_->list("progress/")->entries.size(), changes.size());
}

}  // namespace
}  // namespace sluice
