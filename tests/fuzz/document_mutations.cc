#include <limits>

#include "control/backup/documents.h"
#include "control/membership/documents.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

constexpr char kUuid[] = "00000000-0000-4000-8000-000000000000";

Plan some_plan() {
  Plan plan;
  for (const char* name : {"n1", "n2", "n3"}) {
    plan.nodes.push_back({name, 1e9, 2e9});
    plan.loads.push_back({1, 2, 3});
  }
  plan.targets = {0, 2};
  for (uint32_t s = 0; s < 6; ++s) {
    SlotPlan slot;
    slot.slot = s;
    slot.agreed = s % 3 != 0;
    slot.target = s % 2 * 2;
    slot.first_copy = static_cast<uint32_t>(plan.copies.size());
    slot.copies = 2;
    plan.copies.push_back({0, s});
    plan.copies.push_back({1, s});
    if (slot.agreed) slot.expected.records = s;
    ++(slot.agreed ? plan.slots_agreed : plan.slots_divergent);
    plan.slots.push_back(slot);
  }
  return plan;
}

TEST(Fuzz, DecodersOfDocumentsSurviveMutations) {
  BackupHead head;
  head.uuid = kUuid;
  head.name = "nightly";
  NodeProgress progress;
  progress.node = "n1";
  progress.attempt = 3;
  progress.stages = {{"n1", DataStage::kWire, 1, 2, 3, 4}};
  ClusterInfo cluster;
  cluster.uuid = kUuid;
  NodeInfo node;
  node.name = "n1";
  node.number = 1;
  node.rates.link = {1e9, 3};
  std::vector<std::string> inputs = {encode(head),
                                     encode(progress),
                                     encode(cluster),
                                     encode(node),
                                     encode(LiveInfo{"i", "s", 4, 17, "lock"}),
                                     encode(StoreInfo{"s", 1, "t", 2, 3})};
  for (std::string& chunk : encode_plan(some_plan(), kUuid, 1)) inputs.push_back(std::move(chunk));
  run_mutations(inputs, 30'000);
}

}  // namespace
}  // namespace sluice::testing
