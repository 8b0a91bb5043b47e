// What stands on a tcp connection. All integers are little-endian.
//
// Each side first sends a preamble of 32 bytes:
//   0  u64 magic       8  u32 protocol version   12  u32 flags, 0   16  u64 largest message   24
//   u64 reserved, 0
// then frames of {u32 type, u32 length, length bytes}:
//   data    length 1 to the largest message; the sender needs a credit for each
//   held    as data; the sender cannot use its buffer again before it is told that it has arrived
//   update  length 16: {u64 messages received, u64 credits granted}, both counted from the
//           connection's start. Due at once where a held frame has arrived, and where there are as
//           many new credits as the peer has left; otherwise it goes along with the next message
//   close   as update; the sender's last data frame was before it. Updates may follow, which are
//           due at once.
#ifndef SLUICE_DRIVERS_TCP_WIRE_H_
#define SLUICE_DRIVERS_TCP_WIRE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

namespace sluice::tcp {

inline constexpr uint64_t kMagic = 0x0a31'7063'7473'6c73;  // "slstcp1\n"
inline constexpr uint32_t kProtocolVersion = 2;
inline constexpr size_t kPreambleBytes = 32;
inline constexpr size_t kHeaderBytes = 8;
inline constexpr size_t kTotalsBytes = 16;
inline constexpr size_t kControlBytes = kHeaderBytes + kTotalsBytes;

enum class FrameType : uint32_t { kData = 1, kUpdate = 2, kClose = 3, kHeld = 4 };

struct FrameHeader {
  uint32_t type = 0;
  uint32_t length = 0;
  bool is(FrameType wanted) const { return type == static_cast<uint32_t>(wanted); }
};

struct Totals {
  uint64_t received = 0;
  uint64_t granted = 0;
};

void encode_preamble(uint8_t* to, uint64_t max_message_bytes);
// FAILED_PRECONDITION, saying what differs and what to do, for a peer that this side cannot talk
// to.
absl::Status check_preamble(const uint8_t* from, uint64_t max_message_bytes);

void encode_header(uint8_t* to, FrameType type, uint32_t length);
FrameHeader decode_header(const uint8_t* from);
// Whether the type exists and the length fits it; the reason if not.
absl::Status check_header(const FrameHeader& header, uint64_t max_message_bytes);

void encode_control(uint8_t* to, FrameType type, const Totals& totals);
Totals decode_totals(const uint8_t* from);

}  // namespace sluice::tcp

#endif  // SLUICE_DRIVERS_TCP_WIRE_H_
