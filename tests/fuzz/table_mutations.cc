#include "control/table/table.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, TableDecoderSurvivesMutations) {
  std::vector<std::string> inputs;
  for (uint32_t nodes = 1; nodes <= 5; ++nodes) {
    TableInput input;
    input.slot_bits = 1 + nodes % 4;
    input.replicas = std::min(nodes, 3u);
    for (uint32_t i = 1; i <= nodes; ++i) {
      input.members.push_back(
          {"n" + std::to_string(i), i, 1.0 + i, i % 2 == 0 ? "r" + std::to_string(i % 4) : ""});
    }
    const auto change = compute_table(nullptr, input);
    ASSERT_TRUE(change.ok());
    inputs.push_back(change->table.encode());
  }
  run_mutations(inputs, 100'000);
}

}  // namespace
}  // namespace sluice::testing
