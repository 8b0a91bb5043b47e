#include "drivers/packet/port.h"
#include "drivers/packet/wire.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

using namespace sluice::packet;

std::string packet_of(const Frame& frame) {
  uint8_t header[kMaxHeaderBytes];
  const size_t bytes = encode(frame, header);
  std::string packet(reinterpret_cast<const char*>(header), bytes);
  packet.append(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  return packet;
}

TEST(Fuzz, PacketParserSurvivesMutations) {
  std::vector<std::string> inputs;
  const std::vector<uint8_t> payload(300, 9);
  std::vector<uint64_t> words(kMaxAckWords, ~uint64_t{0});
  words[0] = 0x1ff;
  for (uint8_t type = 1; type <= 7; ++type) {
    for (size_t count : {size_t{0}, size_t{1}, size_t{4}, kMaxAckWords}) {
      Frame frame;
      frame.type = static_cast<Type>(type);
      frame.connection = frame.type == Type::kHello ? 0 : 0x1234'5678'9abc;
      frame.from = frame.type == Type::kCookie ? 0 : 77;
      frame.number = 5;
      frame.length = 300;
      frame.max_message_bytes = 1 << 20;
      frame.receive_depth = 256;
      frame.max_packet_bytes = 1472;
      frame.granted = 9;
      frame.received = 3;
      if (frame.type == Type::kData) frame.payload = payload;
      if (frame.type == Type::kControl && count > 0) {
        frame.largest = 64 * 100 + 8;
        frame.words = reinterpret_cast<const uint8_t*>(words.data());
        frame.word_count = count;
      }
      inputs.push_back(packet_of(frame));
      Frame back;
      ASSERT_EQ(
          parse({reinterpret_cast<const uint8_t*>(inputs.back().data()), inputs.back().size()},
                &back),
          ParseResult::kOk)
          << int{type};
    }
  }
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing
