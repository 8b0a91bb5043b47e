#include "dataplane/store/store_format.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, DecodersOfRowsSurviveMutations) {
  const auto summary_of = [](uint64_t bytes, bool tombstone) {
    return RecordSummary{{7, 1}, tombstone, bytes, {1, 2}};
  };
  SlotDigest digest;
  digest.records = 3;
  const std::vector<std::string> inputs = {
      encode_stored_head(summary_of(5, false), false, 0) + "value",
      encode_stored_head(summary_of(0, true), false, 0),
      encode_stored_head(summary_of(1 << 20, false), true, 9),
      encode_u64(77),
      encode_digest(digest),
      encode_cut({"backup", 5, 6, true}),
      encode_found({"joined", "joining", 7}),
      encode_identity({1, "cluster", "n1", 1, 12, "store"})};
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing
