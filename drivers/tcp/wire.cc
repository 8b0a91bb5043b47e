#include "drivers/tcp/wire.h"

#include "base/bytes.h"
#include "base/status.h"

namespace sluice::tcp {

void encode_preamble(uint8_t* to, uint64_t max_message_bytes) {
  store_le<uint64_t>(to, kMagic);
  store_le<uint32_t>(to + 8, kProtocolVersion);
  store_le<uint32_t>(to + 12, 0);
  store_le<uint64_t>(to + 16, max_message_bytes);
  store_le<uint64_t>(to + 24, 0);
}

absl::Status check_preamble(const uint8_t* from, uint64_t max_message_bytes) {
  if (load_le<uint64_t>(from) != kMagic) {
    return failed_precondition(
        "it does not speak the sluice tcp protocol; check the address and port");
  }
  const uint32_t version = load_le<uint32_t>(from + 8);
  if (version != kProtocolVersion) {
    return failed_precondition(
        "it speaks tcp protocol version {}, this node {}; run the same release on both", version,
        kProtocolVersion);
  }
  if (load_le<uint32_t>(from + 12) != 0 || load_le<uint64_t>(from + 24) != 0) {
    return failed_precondition(
        "it asks for features of the tcp protocol that this node does not know");
  }
  const uint64_t theirs = load_le<uint64_t>(from + 16);
  if (theirs != max_message_bytes) {
    return failed_precondition(
        "its largest message is {} bytes, this node's {}; give both the same arena buffer size",
        theirs, max_message_bytes);
  }
  return absl::OkStatus();
}

void encode_header(uint8_t* to, FrameType type, uint32_t length) {
  store_le<uint32_t>(to, static_cast<uint32_t>(type));
  store_le<uint32_t>(to + 4, length);
}

FrameHeader decode_header(const uint8_t* from) {
  return {load_le<uint32_t>(from), load_le<uint32_t>(from + 4)};
}

absl::Status check_header(const FrameHeader& header, uint64_t max_message_bytes) {
  switch (static_cast<FrameType>(header.type)) {
    case FrameType::kData:
    case FrameType::kHeld:
      if (header.length >= 1 && header.length <= max_message_bytes) return absl::OkStatus();
      return aborted("a message of {} bytes; 1 to {} are allowed", header.length,
                     max_message_bytes);
    case FrameType::kUpdate:
    case FrameType::kClose:
      if (header.length == kTotalsBytes) return absl::OkStatus();
      return aborted("a control frame of {} bytes; {} are allowed", header.length, kTotalsBytes);
  }
  return aborted("a frame of unknown type {}", header.type);
}

void encode_control(uint8_t* to, FrameType type, const Totals& totals) {
  encode_header(to, type, kTotalsBytes);
  store_le<uint64_t>(to + kHeaderBytes, totals.received);
  store_le<uint64_t>(to + kHeaderBytes + 8, totals.granted);
}

Totals decode_totals(const uint8_t* from) {
  return {load_le<uint64_t>(from), load_le<uint64_t>(from + 8)};
}

}  // namespace sluice::tcp
