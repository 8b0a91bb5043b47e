#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

// The first byte says which reader it is for.
std::string input_of(char reader, std::string_view text) {
  return std::string(1, reader).append(text);
}

TEST(Fuzz, ReadersOfAddressesSurviveMutations) {
  const std::vector<std::string> inputs = {
      input_of(0, "[::1]:7001"),
      input_of(0, "127.0.0.1:7001"),
      input_of(0, "localhost:0"),
      input_of(1, "[fe80::1]:7001%mlx5_0"),
      input_of(2, "10.12.0.1:7001%net_af_packet0,iface=veth1"),
      input_of(2, "10.12.0.1/24:7001%0000:3b:00.0;gateway=10.12.0.254;mtu=9000;poll=busy"),
      input_of(3, "10.12.0.1:7001"),
      input_of(4, "AAECAwQ=")};
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing
