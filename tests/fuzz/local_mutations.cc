#include "control/local/description.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

LocalDescription some_description() {
  LocalDescription description;
  description.id = "00000000-0000-4000-8000-000000000001";
  description.made_in = "/tmp/demo";
  description.url = "sqlite:/tmp/demo/cluster.db";
  description.driver = "tcp";
  description.replicas = 2;
  description.slots = 4096;
  description.complete = true;
  description.nodes = {{"n1", 1, 0, "a", "127.0.0.1:7001", "127.0.0.1:7002"},
                       {"n2", 2.5, 1'000'000, "", "127.0.0.1:7003", "127.0.0.1:7004"}};
  return description;
}

TEST(Fuzz, DescriptionsOfLocalClustersSurviveMutations) {
  LocalDescription description = some_description();
  std::vector<std::string> inputs = {to_json(description)};
  description.url = "etcd://127.0.0.1:2379/sluice";
  description.complete = false;
  description.nodes.pop_back();
  inputs.push_back(to_json(description));
  run_mutations(inputs, 50'000);
}

}  // namespace
}  // namespace sluice::testing
