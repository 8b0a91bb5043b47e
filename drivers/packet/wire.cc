#include "drivers/packet/wire.h"

#include <cassert>
#include <cstring>

#include "base/bytes.h"
#include "base/checksum.h"

namespace sluice::packet {
namespace {

// Apart from protecting against damage, the check tells this protocol from any other.
constexpr uint64_t kMagic = 0x0a31'6b70'6372'6c73;  // "slrcpk1\n"
constexpr size_t kPrefixBytes = 24;
constexpr size_t kCheckBytes = 8;

// Over the header behind the check; a payload counts by its own digest, since the two are in
// different memory.
uint64_t check_of(const uint8_t* header, size_t bytes, std::span<const uint8_t> payload) {
  if (payload.empty()) return xxh3_64(header + kCheckBytes, bytes - kCheckBytes) ^ kMagic;
  assert(bytes == kDataBytes);
  uint8_t together[kDataBytes];
  std::memcpy(together, header + kCheckBytes, kDataBytes - kCheckBytes);
  store_le<uint64_t>(together + kDataBytes - kCheckBytes, xxh3_64(payload.data(), payload.size()));
  return xxh3_64(together, kDataBytes) ^ kMagic;
}

bool parse_greeting(const uint8_t* from, size_t bytes, Frame* frame) {
  if (bytes != kGreetingBytes || frame->flags != 0 || frame->ack_delay_us != 0) return false;
  frame->from = load_le<uint64_t>(from + 24);
  frame->cookie = load_le<uint64_t>(from + 32);
  frame->max_message_bytes = load_le<uint64_t>(from + 40);
  frame->receive_depth = load_le<uint32_t>(from + 48);
  frame->max_packet_bytes = load_le<uint32_t>(from + 52);
  if (load_le<uint64_t>(from + 56) != 0) return false;
  const bool hello = frame->type == Type::kHello;
  const bool cookie = frame->type == Type::kCookie;
  return (frame->connection == 0) == hello && (frame->from == 0) == cookie;
}

bool parse_control(const uint8_t* from, size_t bytes, Frame* frame) {
  if (bytes < kControlBytes || bytes > kControlBytes + 8 * kMaxAckWords || bytes % 8 != 0) {
    return false;
  }
  if ((frame->flags & ~kClosing) != 0) return false;
  frame->from = load_le<uint64_t>(from + 24);
  frame->number = load_le<uint64_t>(from + 32);
  frame->granted = load_le<uint64_t>(from + 40);
  frame->received = load_le<uint64_t>(from + 48);
  frame->sent = load_le<uint64_t>(from + 56);
  frame->largest = load_le<uint64_t>(from + 64);
  frame->words = from + kControlBytes;
  frame->word_count = (bytes - kControlBytes) / 8;
  if (frame->from == 0 || ((frame->flags & kClosing) == 0 && frame->sent != 0)) return false;
  if ((frame->largest == 0) != (frame->word_count == 0)) return false;
  if (frame->word_count == 0) return true;
  // The largest was received, nothing above it, and there is no number 0 nor any below it.
  const uint64_t bit = frame->largest % 64;
  const uint64_t first = frame->word(0);
  if ((first >> bit) != 1) return false;
  const uint64_t words_below = frame->largest / 64;
  if (frame->word_count > words_below + 1) return false;
  return frame->word_count != words_below + 1 || (frame->word(frame->word_count - 1) & 1) == 0;
}

bool parse_data(std::span<const uint8_t> packet, Frame* frame) {
  const uint8_t* const from = packet.data();
  if ((frame->flags & ~kAckNow) != 0 || frame->ack_delay_us != 0) return false;
  frame->number = load_le<uint64_t>(from + 24);
  frame->block = load_le<uint64_t>(from + 32);
  frame->offset = load_le<uint32_t>(from + 40);
  frame->length = load_le<uint32_t>(from + 44);
  if (load_le<uint32_t>(from + 48) != 0 || load_le<uint16_t>(from + 52) != 0) return false;
  frame->payload = packet.subspan(kDataBytes);
  return frame->number != 0 && !frame->payload.empty() && frame->offset < frame->length &&
         frame->payload.size() <= frame->length - frame->offset;
}

bool parse_refusal(const uint8_t* from, size_t bytes, Frame* frame) {
  if (bytes != kRefusalBytes || frame->flags != 0 || frame->ack_delay_us != 0) return false;
  frame->code = load_le<uint32_t>(from + 24);
  frame->version = load_le<uint32_t>(from + 28);
  frame->max_message_bytes = load_le<uint64_t>(from + 32);
  return true;
}

bool parse_reset(const uint8_t* from, size_t bytes, Frame* frame) {
  if (bytes != kResetBytes || frame->flags != 0 || frame->ack_delay_us != 0) return false;
  frame->from = load_le<uint64_t>(from + 24);
  frame->code = load_le<uint32_t>(from + 32);
  return load_le<uint32_t>(from + 36) == 0;
}

}  // namespace

uint64_t Frame::word(size_t k) const { return load_le<uint64_t>(words + 8 * k); }

uint64_t peek_connection(std::span<const uint8_t> packet) {
  return packet.size() < kPrefixBytes ? 0 : load_le<uint64_t>(packet.data() + 16);
}

ParseResult parse(std::span<const uint8_t> packet, Frame* frame) {
  const uint8_t* const from = packet.data();
  if (packet.size() < kResetBytes) return ParseResult::kShort;
  frame->type = static_cast<Type>(from[9]);
  const bool data = frame->type == Type::kData;
  if (data && packet.size() <= kDataBytes) return ParseResult::kShort;
  const size_t header = data ? kDataBytes : packet.size();
  if (!data && header > kControlBytes + 8 * kMaxAckWords) return ParseResult::kMalformed;
  if (load_le<uint64_t>(from) != check_of(from, header, packet.subspan(header))) {
    return ParseResult::kCheck;
  }
  frame->version = from[8];
  frame->flags = load_le<uint16_t>(from + 10);
  frame->ack_delay_us = load_le<uint32_t>(from + 12);
  frame->connection = load_le<uint64_t>(from + 16);
  if (frame->version != kProtocolVersion) {
    frame->from = load_le<uint64_t>(from + 24);
    return frame->type == Type::kHello || frame->type == Type::kRefusal ? ParseResult::kVersion
                                                                        : ParseResult::kMalformed;
  }
  bool good = false;
  switch (frame->type) {
    case Type::kHello:
    case Type::kCookie:
    case Type::kWelcome:
      good = parse_greeting(from, packet.size(), frame);
      break;
    case Type::kRefusal:
      good = parse_refusal(from, packet.size(), frame);
      break;
    case Type::kControl:
      good = parse_control(from, packet.size(), frame);
      break;
    case Type::kData:
      good = parse_data(packet, frame);
      break;
    case Type::kReset:
      good = parse_reset(from, packet.size(), frame);
      break;
  }
  return good ? ParseResult::kOk : ParseResult::kMalformed;
}

bool seal(std::span<uint8_t> packet) {
  if (packet.size() < kResetBytes) return false;
  const bool data = packet[9] == static_cast<uint8_t>(Type::kData);
  if (data && packet.size() < kDataBytes) return false;
  const size_t header = data ? kDataBytes : packet.size();
  store_le<uint64_t>(packet.data(), check_of(packet.data(), header, packet.subspan(header)));
  return true;
}

size_t encode(const Frame& frame, uint8_t* to) {
  size_t bytes = 0;
  to[8] = kProtocolVersion;
  to[9] = static_cast<uint8_t>(frame.type);
  store_le<uint16_t>(to + 10, frame.flags);
  store_le<uint32_t>(to + 12, frame.ack_delay_us);
  store_le<uint64_t>(to + 16, frame.connection);
  switch (frame.type) {
    case Type::kHello:
    case Type::kCookie:
    case Type::kWelcome:
      store_le<uint64_t>(to + 24, frame.from);
      store_le<uint64_t>(to + 32, frame.cookie);
      store_le<uint64_t>(to + 40, frame.max_message_bytes);
      store_le<uint32_t>(to + 48, frame.receive_depth);
      store_le<uint32_t>(to + 52, frame.max_packet_bytes);
      store_le<uint64_t>(to + 56, 0);
      bytes = kGreetingBytes;
      break;
    case Type::kRefusal:
      store_le<uint32_t>(to + 24, frame.code);
      store_le<uint32_t>(to + 28, kProtocolVersion);
      store_le<uint64_t>(to + 32, frame.max_message_bytes);
      bytes = kRefusalBytes;
      break;
    case Type::kControl:
      store_le<uint64_t>(to + 24, frame.from);
      store_le<uint64_t>(to + 32, frame.number);
      store_le<uint64_t>(to + 40, frame.granted);
      store_le<uint64_t>(to + 48, frame.received);
      store_le<uint64_t>(to + 56, frame.sent);
      store_le<uint64_t>(to + 64, frame.largest);
      if (frame.word_count > 0) {
        std::memcpy(to + kControlBytes, frame.words, 8 * frame.word_count);
      }
      bytes = kControlBytes + 8 * frame.word_count;
      break;
    case Type::kData:
      store_le<uint64_t>(to + 24, frame.number);
      store_le<uint64_t>(to + 32, frame.block);
      store_le<uint32_t>(to + 40, frame.offset);
      store_le<uint32_t>(to + 44, frame.length);
      std::memset(to + 48, 0, kDataBytes - 48);
      bytes = kDataBytes;
      break;
    case Type::kReset:
      store_le<uint64_t>(to + 24, frame.from);
      store_le<uint32_t>(to + 32, frame.code);
      store_le<uint32_t>(to + 36, 0);
      bytes = kResetBytes;
      break;
  }
  store_le<uint64_t>(to, check_of(to, bytes, frame.payload));
  return bytes;
}

}  // namespace sluice::packet
