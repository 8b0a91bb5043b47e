#include "drivers/tcp/wire.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

using namespace sluice::tcp;

TEST(Fuzz, TcpWireReadersSurviveMutations) {
  std::vector<std::string> inputs;
  std::string& preamble = inputs.emplace_back(kPreambleBytes, '\0');
  encode_preamble(reinterpret_cast<uint8_t*>(preamble.data()), 1'052'672);
  for (const FrameType type : {FrameType::kUpdate, FrameType::kClose}) {
    std::string& control = inputs.emplace_back(kControlBytes, '\0');
    encode_control(reinterpret_cast<uint8_t*>(control.data()), type, {7, 9});
  }
  for (const FrameType type : {FrameType::kData, FrameType::kHeld}) {
    std::string& header = inputs.emplace_back(kHeaderBytes, '\0');
    encode_header(reinterpret_cast<uint8_t*>(header.data()), type, 4096);
  }
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing
