// The rdma driver's words to its peer, without a device: every field that a peer can get wrong.
#include "drivers/rdma/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "drivers/rdma/connection.h"

namespace sluice::rdma {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMax = 128 << 10;

std::array<uint8_t, 56> hello(const Hello& from) {
  std::array<uint8_t, 56> bytes{};  // as the connection manager pads it
  encode_hello(bytes.data(), from);
  return bytes;
}

Hello good_hello() {
  Hello made;
  made.max_message_bytes = kMax;
  made.receive_depth = 8;
  made.control_qp = 77;
  return made;
}

std::string verdict(std::span<const uint8_t> bytes, RefusalCode expected) {
  RefusalCode code{};
  const auto checked = check_hello(bytes, kMax, &code);
  EXPECT_FALSE(checked.ok());
  EXPECT_EQ(code, expected);
  EXPECT_EQ(checked.status().code(), absl::StatusCode::kFailedPrecondition);
  return std::string(message_of(checked.status()));
}

TEST(RdmaWire, AHelloIsReadBack) {
  RefusalCode code{};
  const auto read = check_hello(hello(good_hello()), kMax, &code);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->max_message_bytes, kMax);
  EXPECT_EQ(read->receive_depth, 8u);
  EXPECT_EQ(read->control_qp, 77u);
}

TEST(RdmaWire, HellosThatDoNotFitAreRefusedWithTheReason) {
  const std::array<uint8_t, 56> nothing{};
  EXPECT_THAT(verdict({}, RefusalCode::kNotSluice), HasSubstr("does not speak"));
  EXPECT_THAT(verdict(nothing, RefusalCode::kNotSluice), HasSubstr("does not speak"));
  const auto good = hello(good_hello());
  EXPECT_THAT(verdict(std::span(good).first(kHelloBytes - 1), RefusalCode::kNotSluice),
              HasSubstr("does not speak"));
  Hello other = good_hello();
  other.version = 2;
  EXPECT_THAT(verdict(hello(other), RefusalCode::kVersion), HasSubstr("protocol version 2"));
  other = good_hello();
  other.flags = 1;
  EXPECT_THAT(verdict(hello(other), RefusalCode::kVersion), HasSubstr("features"));
  auto reserved = good;
  reserved[36] = 1;
  EXPECT_THAT(verdict(reserved, RefusalCode::kVersion), HasSubstr("features"));
  other = good_hello();
  other.max_message_bytes = 4096;
  EXPECT_THAT(verdict(hello(other), RefusalCode::kMessageLimit),
              HasSubstr("same arena buffer size"));
  for (uint32_t depth : {0u, 0xffff'ffffu}) {
    other = good_hello();
    other.receive_depth = depth;
    EXPECT_THAT(verdict(hello(other), RefusalCode::kVersion), HasSubstr("damaged"));
  }
  other = good_hello();
  other.control_depth = 1;
  EXPECT_THAT(verdict(hello(other), RefusalCode::kVersion), HasSubstr("damaged"));
  other = good_hello();
  other.control_qp = 1 << 24;
  EXPECT_THAT(verdict(hello(other), RefusalCode::kVersion), HasSubstr("damaged"));
}

TEST(RdmaWire, ARefusalSaysWhyAndGarbageIsNoSluice) {
  const auto said = [](RefusalCode code, uint64_t limit) {
    std::array<uint8_t, 148> bytes{};
    encode_refusal(bytes.data(), code, limit);
    return describe_refusal(bytes, kMax).ToString();
  };
  EXPECT_THAT(said(RefusalCode::kMessageLimit, 4096), HasSubstr("largest message is 4096"));
  EXPECT_THAT(said(RefusalCode::kBusy, kMax), HasSubstr("as many connections"));
  EXPECT_THAT(said(RefusalCode::kNotSluice, kMax), HasSubstr("hello"));
  EXPECT_THAT(said(RefusalCode{77}, kMax), HasSubstr("hello"));
  std::array<uint8_t, 148> bytes{};
  EXPECT_THAT(describe_refusal(bytes, kMax).ToString(), HasSubstr("does not speak"));
  EXPECT_THAT(describe_refusal({}, kMax).ToString(), HasSubstr("does not speak"));
  encode_refusal(bytes.data(), RefusalCode::kVersion, kMax);
  store_le<uint32_t>(bytes.data() + 8, 9);
  EXPECT_THAT(describe_refusal(bytes, kMax).ToString(), HasSubstr("protocol version 9"));
}

TEST(RdmaWire, FramesAreReadBack) {
  std::array<uint8_t, kFrameBytes> bytes{};
  encode_frame(bytes.data(), {2, 3, 4, 5, 6});
  const Frame frame = decode_frame(bytes.data());
  EXPECT_EQ(frame.type, 2u);
  EXPECT_EQ(frame.control_received, 3u);
  EXPECT_EQ(frame.received, 4u);
  EXPECT_EQ(frame.granted, 5u);
  EXPECT_EQ(frame.sent, 6u);
}

// A peer with a receive depth of 8 that was sent 5 blocks and 3 frames, and sent 2 blocks.
std::string verdict_on(PeerState peer, const Frame& frame, uint32_t length = kFrameBytes) {
  const absl::Status status = peer.take(frame, length, 5, 3, 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  return status.ToString();
}

TEST(RdmaWire, FramesThatCannotBeTrueAreRefused) {
  PeerState peer(8);
  ASSERT_TRUE(peer.take({1, 2, 4, 10, 0}, kFrameBytes, 5, 3, 2).ok());
  EXPECT_EQ(peer.granted(), 10u);
  EXPECT_THAT(verdict_on(peer, {0, 2, 4, 10, 0}), HasSubstr("unknown type 0"));
  EXPECT_THAT(verdict_on(peer, {3, 2, 4, 10, 0}), HasSubstr("unknown type 3"));
  EXPECT_THAT(verdict_on(peer, {1, 2, 4, 10, 0}, 31), HasSubstr("control frame of 31 bytes"));
  EXPECT_THAT(verdict_on(peer, {1, 2, 4, 10, 0}, 33), HasSubstr("control frame of 33 bytes"));
  EXPECT_THAT(verdict_on(peer, {1, 4, 4, 10, 0}), HasSubstr("4 control frames of 3 sent"));
  EXPECT_THAT(verdict_on(peer, {1, 1, 4, 10, 0}), HasSubstr("1 control frames of 3 sent"));
  EXPECT_THAT(verdict_on(peer, {1, 2, 3, 10, 0}), HasSubstr("go back"));
  EXPECT_THAT(verdict_on(peer, {1, 2, 4, 9, 0}), HasSubstr("go back"));
  EXPECT_THAT(verdict_on(peer, {1, 2, 6, 10, 0}), HasSubstr("6 blocks of 5 sent"));
  EXPECT_THAT(verdict_on(peer, {1, 2, 4, 13, 0}), HasSubstr("receive depth is 8"));
  EXPECT_THAT(verdict_on(peer, {1, 2, 4, std::numeric_limits<uint64_t>::max(), 0}),
              HasSubstr("receive depth is 8"));
  EXPECT_THAT(verdict_on(peer, {2, 2, 4, 10, 1}), HasSubstr("with 1 blocks sent; 2 came"));
  ASSERT_TRUE(peer.take({2, 2, 4, 10, 2}, kFrameBytes, 5, 3, 2).ok());
  EXPECT_TRUE(peer.closed());
  EXPECT_THAT(verdict_on(peer, {2, 2, 4, 10, 2}), HasSubstr("second close frame"));
  EXPECT_TRUE(peer.take({1, 3, 5, 10, 0}, kFrameBytes, 5, 3, 2).ok());
}

TEST(RdmaWire, FrameCountsMayWrap) {
  PeerState peer(8);
  uint32_t sent = 0;
  for (uint64_t step = 0; step < 40; ++step) {
    sent += 0x1000'0000u;
    ASSERT_TRUE(peer.take({1, sent, 0, 0, 0}, kFrameBytes, 0, sent, 0).ok()) << step;
  }
}

// Whatever comes, what counts afterwards keeps to what can be true.
TEST(RdmaWire, RandomFramesNeverBreakTheCounts) {
  Random random(7);
  for (int run = 0; run < 200; ++run) {
    PeerState peer(8);
    const uint64_t posted = random.below(20);
    for (int i = 0; i < 50; ++i) {
      const Frame frame{static_cast<uint32_t>(random.below(4)),
                        static_cast<uint32_t>(random.below(6)), random.below(24),
                        random.chance(0.1) ? random.next() : random.below(30), random.below(8)};
      static_cast<void>(peer.take(frame, random.chance(0.9) ? kFrameBytes : 7, posted, 3, 2));
      ASSERT_LE(peer.received(), posted);
      ASSERT_LE(peer.granted(), peer.received() + 8);
      ASSERT_LE(peer.control_received(), 3u);
      ASSERT_TRUE(!peer.closed() || peer.sent() >= 2);
    }
  }
}

TEST(RdmaWire, WorkIdsAreReadBack) {
  for (const WorkId& work :
       {WorkId{WorkKind::kSend, 0, 0, 0},
        WorkId{WorkKind::kControlReceive, kMaxConnections - 1, 0xffff, 0xffff'ffff},
        WorkId{WorkKind::kReceive, 5, 6, 7}}) {
    const WorkId read = WorkId::unpack(work.pack());
    EXPECT_EQ(read.kind, work.kind);
    EXPECT_EQ(read.slot, work.slot);
    EXPECT_EQ(read.life, work.life);
    EXPECT_EQ(read.number, work.number);
  }
}

}  // namespace
}  // namespace sluice::rdma
