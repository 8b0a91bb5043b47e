#include "tests/dataplane/block/records.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, BlockReaderSurvivesMutations) {
  std::vector<std::string> inputs;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    Random random(seed);
    RecordShape shape;
    shape.count = 1 + seed * 2;
    shape.max_value = seed % 3 == 0 ? 12'000 : 60;
    for (std::string& block :
         pack(make_records(random, 1, 2, shape), 1, 2, BlockBuilder::kMinMemory)) {
      inputs.push_back(std::move(block));
    }
  }
  run_mutations(inputs, 60'000);
}

}  // namespace
}  // namespace sluice::testing
