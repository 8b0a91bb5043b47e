#include "drivers/rdma/wire.h"

#include "base/bytes.h"
#include "base/status.h"

namespace sluice::rdma {
namespace {

// A peer that says it can have more blocks posted than this is broken: no endpoint posts so many.
constexpr uint32_t kMaxDepth = 1 << 20;
constexpr uint32_t kMaxQueuePair = (1 << 24) - 1;

absl::Status version_differs(uint32_t theirs) {
  return failed_precondition(
      "it speaks rdma protocol version {}, this node {}; run the same release on both", theirs,
      kProtocolVersion);
}

absl::Status limit_differs(uint64_t theirs, uint64_t ours) {
  return failed_precondition(
      "its largest message is {} bytes, this node's {}; give both the same arena buffer size",
      theirs, ours);
}

}  // namespace

void encode_hello(uint8_t* to, const Hello& hello) {
  store_le<uint64_t>(to, kMagic);
  store_le<uint32_t>(to + 8, hello.version);
  store_le<uint32_t>(to + 12, hello.flags);
  store_le<uint64_t>(to + 16, hello.max_message_bytes);
  store_le<uint32_t>(to + 24, hello.receive_depth);
  store_le<uint32_t>(to + 28, hello.control_depth);
  store_le<uint32_t>(to + 32, hello.control_qp);
  store_le<uint32_t>(to + 36, 0);
}

absl::StatusOr<Hello> check_hello(std::span<const uint8_t> data, uint64_t max_message_bytes,
                                  RefusalCode* code) {
  *code = RefusalCode::kNotSluice;
  if (data.size() < kHelloBytes || load_le<uint64_t>(data.data()) != kMagic) {
    return failed_precondition(
        "it does not speak the sluice rdma protocol; check the address and port");
  }
  Hello hello;
  hello.version = load_le<uint32_t>(data.data() + 8);
  hello.flags = load_le<uint32_t>(data.data() + 12);
  hello.max_message_bytes = load_le<uint64_t>(data.data() + 16);
  hello.receive_depth = load_le<uint32_t>(data.data() + 24);
  hello.control_depth = load_le<uint32_t>(data.data() + 28);
  hello.control_qp = load_le<uint32_t>(data.data() + 32);
  *code = RefusalCode::kVersion;
  if (hello.version != kProtocolVersion) return version_differs(hello.version);
  if (hello.flags != 0 || load_le<uint32_t>(data.data() + 36) != 0) {
    return failed_precondition(
        "it asks for features of the rdma protocol that this node does not know");
  }
  if (hello.control_depth != kControlDepth || hello.receive_depth == 0 ||
      hello.receive_depth > kMaxDepth || hello.control_qp > kMaxQueuePair) {
    return failed_precondition(
        "its hello is damaged: receive depth {}, control depth {}, control queue pair {}",
        hello.receive_depth, hello.control_depth, hello.control_qp);
  }
  *code = RefusalCode::kMessageLimit;
  if (hello.max_message_bytes != max_message_bytes) {
    return limit_differs(hello.max_message_bytes, max_message_bytes);
  }
  return hello;
}

void encode_refusal(uint8_t* to, RefusalCode code, uint64_t max_message_bytes) {
  store_le<uint64_t>(to, kRefusalMagic);
  store_le<uint32_t>(to + 8, kProtocolVersion);
  store_le<uint32_t>(to + 12, static_cast<uint32_t>(code));
  store_le<uint64_t>(to + 16, max_message_bytes);
}

absl::Status describe_refusal(std::span<const uint8_t> data, uint64_t max_message_bytes) {
  if (data.size() < kRefusalBytes || load_le<uint64_t>(data.data()) != kRefusalMagic) {
    return failed_precondition(
        "it does not speak the sluice rdma protocol; check the address and port");
  }
  const uint32_t version = load_le<uint32_t>(data.data() + 8);
  const uint64_t limit = load_le<uint64_t>(data.data() + 16);
  switch (static_cast<RefusalCode>(load_le<uint32_t>(data.data() + 12))) {
    case RefusalCode::kVersion:
      if (version != kProtocolVersion) return version_differs(version);
      break;
    case RefusalCode::kMessageLimit:
      return limit_differs(limit, max_message_bytes);
    case RefusalCode::kBusy:
      return resource_exhausted("it has as many connections as it allows");
    case RefusalCode::kNotSluice:
      break;
  }
  return failed_precondition(
      "it could not read this node's hello; run the same release on both nodes");
}

void encode_frame(uint8_t* to, const Frame& frame) {
  store_le<uint32_t>(to, frame.type);
  store_le<uint32_t>(to + 4, frame.control_received);
  store_le<uint64_t>(to + 8, frame.received);
  store_le<uint64_t>(to + 16, frame.granted);
  store_le<uint64_t>(to + 24, frame.sent);
}

Frame decode_frame(const uint8_t* from) {
  return {load_le<uint32_t>(from), load_le<uint32_t>(from + 4), load_le<uint64_t>(from + 8),
          load_le<uint64_t>(from + 16), load_le<uint64_t>(from + 24)};
}

absl::Status PeerState::take(const Frame& frame, uint32_t length, uint64_t posted,
                             uint32_t control_sent, uint64_t received) {
  if (length != kFrameBytes) {
    return aborted("a control frame of {} bytes; {} are allowed", length, kFrameBytes);
  }
  const bool close = frame.type == static_cast<uint32_t>(FrameType::kClose);
  if (!close && frame.type != static_cast<uint32_t>(FrameType::kUpdate)) {
    return aborted("a control frame of unknown type {}", frame.type);
  }
  // As a distance, since the count may wrap.
  if (frame.control_received - control_received_ > control_sent - control_received_) {
    return aborted("it says it has {} control frames of {} sent", frame.control_received,
                   control_sent);
  }
  if (frame.received < received_ || frame.granted < granted_) {
    return aborted("its totals go back: {} blocks and {} credits after {} and {}", frame.received,
                   frame.granted, received_, granted_);
  }
  if (frame.received > posted) {
    return aborted("it says it has {} blocks of {} sent", frame.received, posted);
  }
  if (frame.granted < frame.received || frame.granted - frame.received > receive_depth_) {
    return aborted("it grants {} credits with {} blocks received; its receive depth is {}",
                   frame.granted, frame.received, receive_depth_);
  }
  if (close && closed_) return aborted("a second close frame");
  if (close && frame.sent < received) {
    return aborted("it closes with {} blocks sent; {} came", frame.sent, received);
  }
  control_received_ = frame.control_received;
  received_ = frame.received;
  granted_ = frame.granted;
  if (close) {
    closed_ = true;
    sent_ = frame.sent;
  }
  return absl::OkStatus();
}

}  // namespace sluice::rdma
