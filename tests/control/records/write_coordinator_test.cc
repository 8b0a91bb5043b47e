#include "control/records/write_coordinator.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(ApplyResult, IsWhatTheReplicaAnswered) {
  v1::ApplyReply::Result from;
  EXPECT_EQ(apply_result_of(from)->outcome, ApplyResult::Outcome::kApplied);
  from.set_outcome(v1::ApplyReply::SUPERSEDED);
  from.mutable_newer()->set_stamp(7);
  EXPECT_EQ(apply_result_of(from)->outcome, ApplyResult::Outcome::kSuperseded);
  EXPECT_EQ(apply_result_of(from)->newer.stamp, 7u);
}

// A number on the wire may be any. One that nobody knows is not a durable copy.
TEST(ApplyResult, OfAnUnknownOutcomeIsNone) {
  v1::ApplyReply::Result from;
  for (const int outcome : {-1, 3, 1 << 20}) {
    from.set_outcome(static_cast<v1::ApplyReply::Outcome>(outcome));
    EXPECT_FALSE(apply_result_of(from).has_value()) << outcome;
  }
}

}  // namespace
}  // namespace sluice
