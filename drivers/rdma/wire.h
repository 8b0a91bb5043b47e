// What two rdma endpoints say to each other besides blocks. All integers are little-endian.
//
// The private data of the connection manager's request and reply is a hello of 40 bytes:
//   0  u64 magic            8  u32 protocol version   12  u32 flags, 0   16  u64 largest message
//   24 u32 receive depth   28  u32 control depth      32  u32 control queue pair   36  u32 0
// (what follows is padding), and that of a refusal says why, in 24 bytes:
//   0  u64 magic            8  u32 protocol version   12  u32 RefusalCode   16  u64 largest message
//
// Messages on the data queue pair are blocks, as they are. Messages on the control queue pair are
// frames of 32 bytes:
//   0  u32 type   4  u32 control frames received   8  u64 blocks received   16  u64 credits granted
//   24 u64 blocks sent, in a close frame; else 0
// All counts are from the connection's start. The first lets the peer send further control frames:
// at most `control depth` of them may be unacknowledged. After its close frame a side sends no
// block.
#ifndef SLUICE_DRIVERS_RDMA_WIRE_H_
#define SLUICE_DRIVERS_RDMA_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::rdma {

inline constexpr uint64_t kMagic = 0x0a31'616d'6472'6c73;         // "slrdma1\n"
inline constexpr uint64_t kRefusalMagic = 0x0a6f'6e61'6d64'6c73;  // "sldmano\n"
inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr size_t kHelloBytes = 40;
inline constexpr size_t kRefusalBytes = 24;
inline constexpr size_t kFrameBytes = 32;
inline constexpr uint32_t kControlDepth = 16;

struct Hello {
  uint32_t version = kProtocolVersion;
  uint32_t flags = 0;
  uint64_t max_message_bytes = 0;
  uint32_t receive_depth = 0;
  uint32_t control_depth = kControlDepth;
  uint32_t control_qp = 0;
};

enum class RefusalCode : uint32_t { kNotSluice = 1, kVersion = 2, kMessageLimit = 3, kBusy = 4 };

void encode_hello(uint8_t* to, const Hello& hello);
// FAILED_PRECONDITION, saying what differs and what to do, for a peer that this side cannot talk
// to; then *code is what to tell it.
absl::StatusOr<Hello> check_hello(std::span<const uint8_t> data, uint64_t max_message_bytes,
                                  RefusalCode* code);

void encode_refusal(uint8_t* to, RefusalCode code, uint64_t max_message_bytes);
// What a refusal's private data says, for the side that was refused.
absl::Status describe_refusal(std::span<const uint8_t> data, uint64_t max_message_bytes);

enum class FrameType : uint32_t { kUpdate = 1, kClose = 2 };

struct Frame {
  uint32_t type = 0;
  uint32_t control_received = 0;
  uint64_t received = 0;
  uint64_t granted = 0;
  uint64_t sent = 0;
};

void encode_frame(uint8_t* to, const Frame& frame);
Frame decode_frame(const uint8_t* from);

// What one side has been told by the other, with every frame checked before it counts.
class PeerState {
 public:
  PeerState() = default;
  explicit PeerState(uint32_t receive_depth) : receive_depth_(receive_depth) {}

  // `posted`: blocks sent to the peer so far; `control_sent`: control frames; `received`: blocks
  // that have come from it. ABORTED, saying what it did, for a frame that cannot be true.
  absl::Status take(const Frame& frame, uint32_t length, uint64_t posted, uint32_t control_sent,
                    uint64_t received);

  uint64_t received() const { return received_; }
  uint64_t granted() const { return granted_; }
  uint32_t control_received() const { return control_received_; }
  bool closed() const { return closed_; }
  // Blocks that it sent in all; known when closed().
  uint64_t sent() const { return sent_; }

 private:
  uint32_t receive_depth_ = 0;
  uint32_t control_received_ = 0;
  uint64_t received_ = 0;
  uint64_t granted_ = 0;
  uint64_t sent_ = 0;
  bool closed_ = false;
};

}  // namespace sluice::rdma

#endif  // SLUICE_DRIVERS_RDMA_WIRE_H_
