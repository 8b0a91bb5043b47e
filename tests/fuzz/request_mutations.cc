#include "dataplane/archive/manifest.h"
#include "tests/dataplane/block/records.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, RequestSplitterSurvivesMutations) {
  std::vector<std::string> inputs;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    Random random(seed);
    std::string& request = inputs.emplace_back();
    for (uint32_t slot = 0; slot <= seed % 4; ++slot) {
      RecordShape shape;
      shape.count = 1 + seed;
      for (const std::string& block :
           pack(make_records(random, slot, 4, shape), slot, 4, BlockBuilder::kMinMemory)) {
        request.resize(padded(request.size()));
        request += block;
      }
    }
  }
  run_mutations(inputs, 60'000);
}

}  // namespace
}  // namespace sluice::testing
