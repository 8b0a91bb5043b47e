#include "control/restore/restore_parts.h"

#include <gtest/gtest.h>

#include "control/peers/rpc.h"

namespace sluice {
namespace {

v1::RestorePartResult some_result() {
  v1::RestorePartResult result;
  result.set_slot_bits(4);
  auto* slot = result.add_expected();
  slot->set_slot(15);
  slot->set_digest(encode_digests({SlotDigest()}));
  return result;
}

TEST(RestorePartResult, OfPossibleSlotsIsTaken) {
  EXPECT_TRUE(check_result(some_result(), 16).ok());
}

// The slots of an archive are counted up to 2 to the power of it.
TEST(RestorePartResult, OfMoreSlotsThanAnArchiveHasIsRefused) {
  v1::RestorePartResult result = some_result();
  for (const uint32_t bits : {kMaxSlotBits + 1, 31u, 32u, UINT32_MAX}) {
    result.set_slot_bits(bits);
    EXPECT_EQ(check_result(result, 16).code(), absl::StatusCode::kDataLoss) << bits;
  }
}

// A slot whose digest is passed over is not compared at the restore's end.
TEST(RestorePartResult, OfDigestsThatCannotBeComparedIsRefused) {
  v1::RestorePartResult result = some_result();
  result.mutable_expected(0)->set_slot(16);
  EXPECT_EQ(check_result(result, 16).code(), absl::StatusCode::kDataLoss);
  result = some_result();
  result.mutable_expected(0)->mutable_digest()->pop_back();
  EXPECT_EQ(check_result(result, 16).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice
