#include <algorithm>
#include <string>
#include <vector>

#include "drivers/rdma/wire.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

using namespace sluice::rdma;

std::string hello(uint32_t version, uint64_t limit, uint32_t depth) {
  std::string bytes(1 + kHelloBytes, '\0');
  Hello made;
  made.version = version;
  made.max_message_bytes = limit;
  made.receive_depth = depth;
  made.control_qp = 17;
  encode_hello(reinterpret_cast<uint8_t*>(bytes.data()) + 1, made);
  return bytes;
}

std::string refusal(RefusalCode code) {
  std::string bytes(1 + kRefusalBytes, '\1');
  encode_refusal(reinterpret_cast<uint8_t*>(bytes.data()) + 1, code, 65'536);
  return bytes;
}

// Frames as of a peer that takes blocks and gives credits, and closes at the end.
std::string frames(uint64_t step, uint32_t count) {
  std::string bytes(1, '\2');
  for (uint32_t i = 0; i <= count; ++i) {
    Frame frame;
    frame.type = static_cast<uint32_t>(i == count ? FrameType::kClose : FrameType::kUpdate);
    frame.control_received = std::min<uint32_t>(i, 40);
    frame.received = std::min<uint64_t>(i * step, 1000);
    frame.granted = frame.received + 100;
    frame.sent = i == count ? 500 : 0;
    std::string one(1 + kFrameBytes, static_cast<char>(kFrameBytes));
    encode_frame(reinterpret_cast<uint8_t*>(one.data()) + 1, frame);
    bytes += one;
  }
  return bytes;
}

TEST(Fuzz, RdmaWireReadersSurviveMutations) {
  std::vector<std::string> inputs = {hello(1, 1'052'672, 256), hello(2, 1'052'672, 256),
                                     hello(1, 65'536, 256), hello(1, 1'052'672, 0)};
  for (const auto code : {RefusalCode::kNotSluice, RefusalCode::kVersion,
                          RefusalCode::kMessageLimit, RefusalCode::kBusy}) {
    inputs.push_back(refusal(code));
  }
  for (const uint32_t count : {0U, 1U, 3U, 30U}) inputs.push_back(frames(50, count));
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing
