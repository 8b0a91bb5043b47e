#include "control/backup/manifest_check.h"

#include <gtest/gtest.h>

#include <string>

namespace sluice {
namespace {

constexpr uint64_t kCut = 100;

SlotDigest digest_of(uint64_t records) {
  SlotDigest digest;
  digest.records = records;
  digest.bytes = 10 * records;
  return digest;
}

// Slot 1 is agreed, slot 2 is not: of three replicas one alone has a record.
Plan plan_of_two() {
  Plan plan;
  plan.nodes.resize(3);
  plan.targets = {0, 1};
  SlotPlan agreed;
  agreed.slot = 1;
  agreed.agreed = true;
  agreed.copies = 3;
  agreed.expected = digest_of(4);
  SlotPlan divergent;
  divergent.slot = 2;
  divergent.target = 1;
  divergent.first_copy = 3;
  divergent.copies = 3;
  plan.slots = {agreed, divergent};
  const uint64_t bytes = wire_bytes_of(agreed.expected);
  plan.copies = {{0, bytes}, {1, bytes}, {2, bytes},
                 {0, 0},     {1, 0},     {2, wire_bytes_of(digest_of(1))}};
  return plan;
}

Manifest manifest_of(std::vector<SlotSummary> first, std::vector<SlotSummary> second) {
  Manifest manifest;
  manifest.identity.cut = kCut;
  manifest.newest_stamp = kCut;
  manifest.parts.resize(2);
  manifest.parts[0].slots = std::move(first);
  manifest.parts[1].slots = std::move(second);
  return manifest;
}

std::string fault_of(const Plan& plan, const Manifest& manifest) {
  return std::string(check_manifest(plan, manifest).message());
}

TEST(ManifestCheck, EachPlannedSlotIsInOnePart) {
  const Plan plan = plan_of_two();
  const SlotSummary agreed{1, digest_of(4)};
  const SlotSummary merged{2, digest_of(1)};
  EXPECT_EQ(fault_of(plan, manifest_of({agreed}, {merged})), "");
  EXPECT_EQ(fault_of(plan, manifest_of({}, {merged})), "slot 1 is in no target's part");
  EXPECT_EQ(fault_of(plan, manifest_of({agreed}, {})), "slot 2 is in no target's part");
  EXPECT_EQ(fault_of(plan, manifest_of({agreed}, {agreed, merged})),
            "slot 1 is in the parts of two targets");
  EXPECT_EQ(fault_of(plan, manifest_of({agreed}, {merged, {3, digest_of(1)}})),
            "slot 3 is in a part, but not in the plan");
  EXPECT_EQ(fault_of(plan, manifest_of({{1, digest_of(5)}}, {merged})),
            "slot 1 at its target is not what its replicas published");
}

TEST(ManifestCheck, NothingIsStampedAfterTheCut) {
  Manifest manifest = manifest_of({{1, digest_of(4)}}, {{2, digest_of(1)}});
  manifest.newest_stamp = kCut + 1;
  EXPECT_EQ(fault_of(plan_of_two(), manifest), "a record is stamped after the cut");
}

// The replica that had its only record is gone, and the backup was planned without it: before or
// after the slot was merged.
TEST(ManifestCheck, ASlotOfWhichNoRecordIsLeftMayBeInAPart) {
  Plan plan = plan_of_two();
  plan.slots[1].copies = 2;
  EXPECT_EQ(fault_of(plan, manifest_of({{1, digest_of(4)}}, {})), "");
  EXPECT_EQ(fault_of(plan, manifest_of({{1, digest_of(4)}}, {{2, digest_of(1)}})), "");
}

}  // namespace
}  // namespace sluice
