#include "control/local/description.h"
#include "tests/control/local/some_description.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

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
