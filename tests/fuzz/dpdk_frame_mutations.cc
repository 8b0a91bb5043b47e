#include "drivers/dpdk/frame.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

using namespace sluice::dpdk;

TEST(Fuzz, DpdkFrameReaderSurvivesMutations) {
  constexpr Self kPeer = {{2, 0, 0, 0, 0, 2}, 0x0a0c0002, 7002};
  constexpr Mac kOurs = {2, 0, 0, 0, 0, 1};
  constexpr uint32_t kOurIp = 0x0a0c0001;
  std::vector<std::string> inputs;
  for (const size_t payload : {size_t{0}, size_t{1}, size_t{64}, size_t{1400}}) {
    std::string& frame = inputs.emplace_back(kFramingBytes + payload, '\7');
    write_framing(reinterpret_cast<uint8_t*>(frame.data()), kPeer, kOurs, kOurIp, 7001, payload, 5,
                  true);
  }
  for (const bool request : {true, false}) {
    std::string& frame = inputs.emplace_back(kMinFrameBytes, '\0');
    write_arp(reinterpret_cast<uint8_t*>(frame.data()), kPeer, request, kOurs, kOurIp);
  }
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing
