#include "control/job/document_swap.h"

#include <gtest/gtest.h>

#include "control/cluster_block/memory_cluster_block.h"
#include "tests/control/job/loses_answers.h"

namespace sluice {
namespace {

class DocumentSwapTest : public testing::Test {
 protected:
  absl::StatusOr<Revision> swap(const std::string& document, Revision before,
                                std::vector<ClusterOp> with = {}) {
    return swap_document(block_, {"job", document, before, std::move(with)},
                         [this] { return tries_left_-- > 0; });
  }
  std::string stored() { return (*memory_->get("job"))->value; }

  std::unique_ptr<ClusterBlock> memory_ = make_memory_cluster_block();
  LosesAnswers block_{*memory_};
  int tries_left_ = 5;
};

TEST_F(DocumentSwapTest, TakesThePlaceOfWhatWasLoaded) {
  const auto first = swap("first", 0);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = swap("second", *first);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*memory_->get("job"))->revision, *second);
  EXPECT_TRUE(absl::IsAborted(swap("third", *first).status()));
  EXPECT_EQ(stored(), "second");
  EXPECT_EQ(block_.commits, 3);
}

TEST_F(DocumentSwapTest, IsAskedAgainWhileTheBlockIsBusyAndNoLonger) {
  block_.refused = 3;
  EXPECT_TRUE(swap("first", 0).ok());
  EXPECT_EQ(block_.commits, 4);
  block_.refused = 100;
  tries_left_ = 2;
  EXPECT_TRUE(absl::IsUnavailable(swap("second", (*memory_->get("job"))->revision).status()));
  EXPECT_EQ(block_.commits, 7);
  EXPECT_EQ(stored(), "first");
}

TEST_F(DocumentSwapTest, OneWhoseAnswerWasLostIsFound) {
  block_.lost = 1;
  const auto revision = swap("first", 0);
  ASSERT_TRUE(revision.ok()) << revision.status();
  EXPECT_EQ((*memory_->get("job"))->revision, *revision);
}

TEST_F(DocumentSwapTest, OneThatSomebodyElseHasReplacedSinceIsNot) {
  block_.lost = 1;
  block_.meanwhile = [&] { ASSERT_TRUE(memory_->put("job", "another's").ok()); };
  EXPECT_TRUE(absl::IsAborted(swap("first", 0).status()));
  EXPECT_EQ(stored(), "another's");
}

TEST_F(DocumentSwapTest, WhatGoesWithItIsPartOfTheCommit) {
  const auto fence = memory_->put("fence", "1");
  ASSERT_TRUE(fence.ok());
  const auto first = swap("first", 0, {ClusterOp::check("fence", *fence)});
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(memory_->put("fence", "2").ok());
  EXPECT_TRUE(
      absl::IsAborted(swap("second", *first, {ClusterOp::check("fence", *fence)}).status()));
  EXPECT_EQ(stored(), "first");
}

}  // namespace
}  // namespace sluice
