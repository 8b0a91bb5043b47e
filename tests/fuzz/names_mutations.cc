#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

// The first byte says which reader it is for.
std::string input_of(char reader, std::string_view text) {
  return std::string(1, reader).append(text);
}

TEST(Fuzz, ReadersOfNamesAndAmountsSurviveMutations) {
  const std::vector<std::string> inputs = {input_of(0, "sqlite:/var/lib/c.db"),
                                           input_of(0, "etcd://h1:2379,[::1]:2379/a/b"),
                                           input_of(0, "etcd://user@h1:2379/a"),
                                           input_of(1, "node-1.a"),
                                           input_of(1, "nightly_2024"),
                                           input_of(2, "2.5"),
                                           input_of(2, "1.5 GiB/s"),
                                           input_of(2, "n1=25MB/s")};
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing
