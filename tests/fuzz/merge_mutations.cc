#include "dataplane/pipeline/merge_lists.h"
#include "tests/dataplane/block/records.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, SummariesAndRunListsSurviveMutations) {
  std::vector<std::string> inputs;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    Random random(seed);
    RecordShape shape;
    shape.count = 1 + seed * 3;
    shape.max_value = 40;
    std::string page(1 << 20, '\0');
    SummaryPageBuilder builder;
    builder.begin({reinterpret_cast<uint8_t*>(page.data()), page.size()});
    for (const Record& record : make_records(random, 1, 1, shape)) {
      ASSERT_TRUE(builder.add(record.key, record.view().summary()));
    }
    page.resize(builder.bytes());
    inputs.push_back(std::move(page));
    RunListBuilder list;
    list.begin(random.below(100));
    for (size_t i = 0; i < 20 * (seed + 1); ++i) list.add(random.chance(0.5));
    list.add(true);
    inputs.push_back(list.encode());
    SummaryRequest request;
    for (uint32_t slot = 0; slot <= seed; ++slot) request.slots.push_back(slot * 77);
    inputs.push_back(request.encode());
    std::string sections;
    for (size_t i = 0; i < 2; ++i) {
      uint8_t header[MergeSection::kHeaderBytes];
      MergeSection::write_header(header, 1, i > 0, static_cast<uint32_t>(inputs[i].size()));
      sections += as_string_view(header);
      sections += inputs[i];
    }
    inputs.push_back(std::move(sections));
  }
  run_mutations(inputs, 60'000);
}

}  // namespace
}  // namespace sluice::testing
