#include <limits>

#include "control/backup/documents.h"
#include "control/membership/documents.h"
#include "tests/fuzz/mutations.h"
#include "tests/fuzz/stored_documents.h"

namespace sluice::testing {
namespace {

constexpr char kUuid[] = "00000000-0000-4000-8000-000000000000";

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
  std::vector<std::string> inputs = {
      encode(head),
      encode(progress),
      encode(cluster),
      encode(node),
      encode(LiveInfo{"i", "s", 4, 17, "lock"}),
      encode(StoreInfo{"s", 1, "t", 2, 3, "lock", "process", 4, true})};
  for (std::string& chunk : encode_plan(some_plan(), kUuid, 1)) inputs.push_back(std::move(chunk));
  run_mutations(inputs, 30'000);
}

}  // namespace
}  // namespace sluice::testing
