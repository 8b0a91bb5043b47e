// The packets of the packet layer, to the byte (docs/packet.md has the same as tables). All
// integers are little-endian. Every packet begins with
//   0 u64 check   8 u8 version   9 u8 type   10 u16 flags   12 u32 ack delay, else 0
//   16 u64 connection: the receiver's identifier of it, 0 in a hello
// and what is reserved is 0: a packet where it is not is thrown away.
//
// hello, cookie, welcome: 64 bytes
//   24 u64 the sender's identifier (0 in a cookie)   32 u64 cookie (0 in a first hello)
//   40 u64 largest message   48 u32 receive depth   52 u32 largest packet   56 u64 0
// refusal: 40 bytes
//   24 u32 RefusalCode   28 u32 the refuser's version   32 u64 the refuser's largest message
// control: 72 bytes and up to 23 words
//   24 u64 the sender's identifier   32 u64 packet number; 0: needs no acknowledgement
//   40 u64 credits granted   48 u64 blocks received   56 u64 blocks sent, where closing; else 0
//   64 u64 largest packet number received, 0: none   72 u64 words: word k has bit b set if the
//   number 64 * (largest / 64 - k) + b was received
// data: 54 bytes and the payload
//   24 u64 packet number   32 u64 block   40 u32 offset   44 u32 the block's length   48 48-bit 0,
//   which puts the payload behind Ethernet's, IPv4's and UDP's headers at byte 96: copies of it are
//   aligned
// reset: 40 bytes
//   24 u64 the sender's identifier   32 u32 ResetCode   36 u32 0
#ifndef SLUICE_DRIVERS_PACKET_WIRE_H_
#define SLUICE_DRIVERS_PACKET_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice::packet {

inline constexpr uint8_t kProtocolVersion = 1;
inline constexpr size_t kGreetingBytes = 64;
inline constexpr size_t kRefusalBytes = 40;
inline constexpr size_t kControlBytes = 72;
inline constexpr size_t kDataBytes = 54;
inline constexpr size_t kResetBytes = 40;
inline constexpr size_t kMaxAckWords = 23;
static_assert(kControlBytes + 8 * kMaxAckWords == 256);

// Bytes of a block that a data packet of at most `packet_bytes` carries: whole cache lines where
// these cost little.
constexpr uint32_t fragment_bytes(uint32_t packet_bytes) {
  constexpr uint32_t kLine = 64;
  const uint32_t room = packet_bytes - static_cast<uint32_t>(kDataBytes);
  return room < 64 * kLine ? room : room / kLine * kLine;
}

enum class Type : uint8_t {
  kHello = 1,
  kCookie = 2,
  kWelcome = 3,
  kRefusal = 4,
  kControl = 5,
  kData = 6,
  kReset = 7,
};

inline constexpr uint16_t kAckNow = 1;   // data: the sender waits for the acknowledgement
inline constexpr uint16_t kClosing = 2;  // control: no block follows after `sent`

enum class RefusalCode : uint32_t { kVersion = 1, kMessageLimit = 2, kBusy = 3, kPacketLimit = 4 };
enum class ResetCode : uint32_t { kGone = 1, kUnknown = 2, kBroken = 3, kLost = 4 };

// One packet, taken apart. Only the fields of its type mean anything.
struct Frame {
  Type type = Type::kReset;
  uint16_t flags = 0;
  uint32_t ack_delay_us = 0;
  uint64_t connection = 0;
  uint64_t from = 0;
  uint64_t number = 0;
  // Greetings.
  uint64_t cookie = 0;
  uint64_t max_message_bytes = 0;  // also of a refusal
  uint32_t receive_depth = 0;
  uint32_t max_packet_bytes = 0;
  // Refusals and resets.
  uint32_t code = 0;
  uint32_t version = 0;
  // Control.
  uint64_t granted = 0;
  uint64_t received = 0;
  uint64_t sent = 0;
  uint64_t largest = 0;
  const uint8_t* words = nullptr;
  size_t word_count = 0;
  // Data.
  uint64_t block = 0;
  uint32_t offset = 0;
  uint32_t length = 0;
  std::span<const uint8_t> payload;

  uint64_t word(size_t k) const;
};

enum class ParseResult : uint8_t { kOk, kShort, kCheck, kVersion, kMalformed };

// Reads anything. kVersion (an intact hello of another version) fills type, version and from, so
// that it can be answered; otherwise the frame is filled for kOk alone. Payload and words are views
// into the packet.
ParseResult parse(std::span<const uint8_t> packet, Frame* frame);
// The connection that a packet says it is for, without looking at anything else; 0 if too short.
uint64_t peek_connection(std::span<const uint8_t> packet);

// Writes the check that makes a packet's bytes intact; false if it is too short. For tools that
// make packets by hand.
bool seal(std::span<uint8_t> packet);

// Writes into `to` (256 bytes) and returns the length. The frame's `words` are read for control.
size_t encode(const Frame& frame, uint8_t* to);

}  // namespace sluice::packet

#endif  // SLUICE_DRIVERS_PACKET_WIRE_H_
