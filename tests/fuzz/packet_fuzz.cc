// Feeds the packet parser anything: once as it is, and once with the right check written into it.
// What it takes must keep the format's promises, and be what the encoder would write.
#include <cstdint>
#include <cstring>
#include <string>

#include "drivers/packet/port.h"
#include "drivers/packet/wire.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice::packet;
using sluice::testing::require;

void read_packet(const std::string& input) {
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(input.data()),
                                       input.size());
  (void)peek_connection(bytes);
  Frame frame;
  const ParseResult result = parse(bytes, &frame);
  if (result != ParseResult::kOk) return;
  require(frame.type != Type::kData ||
          (!frame.payload.empty() && frame.number != 0 &&
           uint64_t{frame.offset} + frame.payload.size() <= frame.length));
  for (size_t k = 0; k < frame.word_count; ++k) (void)frame.word(k);
  require(frame.word_count <= kMaxAckWords && (frame.word_count > 0) == (frame.largest > 0));
  uint8_t header[kMaxHeaderBytes];
  const size_t size = encode(frame, header);
  if (frame.type == Type::kRefusal) return;  // it tells the version of who writes it
  require(size + frame.payload.size() == input.size() &&
          std::memcmp(header, input.data(), size) == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string input(reinterpret_cast<const char*>(data), size);
  read_packet(input);
  if (seal({reinterpret_cast<uint8_t*>(input.data()), input.size()})) read_packet(input);
  return 0;
}
