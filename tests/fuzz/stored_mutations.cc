#include "control/proto/documents.pb.h"
#include "tests/fuzz/mutations.h"
#include "tests/fuzz/stored_documents.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, ReadersOfTheClusterBlockSurviveMutations) {
  const auto block = make_stored_documents();
  const auto listing = block->list("");
  ASSERT_TRUE(listing.ok());
  std::vector<std::string> inputs;
  for (size_t i = 0; i < listing->entries.size(); ++i) {
    const std::string& document = listing->entries[i].value;
    inputs.push_back(std::string(1, static_cast<char>(i)) + document);
    v1::StoredDocument stored;
    if (stored.ParseFromString(document)) {
      inputs.push_back(std::string(1, static_cast<char>(i)) + stored.body());
    }
  }
  run_mutations(inputs, 20'000);
}

}  // namespace
}  // namespace sluice::testing
