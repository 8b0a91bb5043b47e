#include "drivers/dpdk/frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/random.h"

namespace sluice::dpdk {
namespace {

constexpr Self kHere{{2, 0, 0, 0, 0, 1}, 0x0a0c0001, 7001};
constexpr Self kThere{{2, 0, 0, 0, 0, 2}, 0x0a0c0002, 7002};

std::vector<uint8_t> packet_for_here(size_t payload) {
  std::vector<uint8_t> frame(kFramingBytes + payload);
  write_framing(frame.data(), kThere, kHere.mac, kHere.ip, kHere.udp_port, payload, 9, true);
  for (size_t i = 0; i < payload; ++i) frame[kFramingBytes + i] = static_cast<uint8_t>(i);
  return frame;
}

Drop drop_of(const std::vector<uint8_t>& frame) {
  const Frame parsed = parse_frame(frame, kHere, {});
  EXPECT_EQ(parsed.kind == FrameKind::kDropped, parsed.drop != Drop::kNone);
  return parsed.drop;
}

// Changes a byte of the IPv4 header and makes its checksum right again.
Drop drop_of_ip(std::vector<uint8_t> frame, size_t at, uint8_t value) {
  uint8_t* ip = frame.data() + kEthernetBytes;
  ip[at] = value;
  ip[10] = ip[11] = 0;
  const uint16_t sum = internet_checksum({ip, kIpv4Bytes});
  ip[10] = static_cast<uint8_t>(sum >> 8);
  ip[11] = static_cast<uint8_t>(sum);
  return drop_of(frame);
}

TEST(DpdkFrame, WhatIsWrittenIsReadBack) {
  for (size_t payload : {0, 1, 17, 18, 1472, 8972}) {
    const std::vector<uint8_t> bytes = packet_for_here(payload);
    const Frame frame = parse_frame(bytes, kHere, {});
    ASSERT_EQ(frame.kind, FrameKind::kPacket) << payload;
    EXPECT_EQ(frame.source_mac, kThere.mac);
    EXPECT_EQ(frame.source_ip, kThere.ip);
    EXPECT_EQ(frame.source_port, kThere.udp_port);
    EXPECT_EQ(frame.payload.size(), payload);
    EXPECT_EQ(frame.payload.data(), bytes.data() + kFramingBytes);
  }
}

TEST(DpdkFrame, TheChecksumIsThatOfTheExampleInRfc1071) {
  const uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(internet_checksum(bytes), static_cast<uint16_t>(~0xddf2));
}

TEST(DpdkFrame, PaddingOfShortFramesIsNoPayload) {
  std::vector<uint8_t> frame = packet_for_here(3);
  frame.resize(kMinFrameBytes, 0xee);
  EXPECT_EQ(parse_frame(frame, kHere, {}).payload.size(), 3u);
}

TEST(DpdkFrame, EachWrongFrameHasItsReason) {
  const std::vector<uint8_t> good = packet_for_here(100);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(drop_of({good.begin(), good.begin() + static_cast<ptrdiff_t>(size)}),
              Drop::kTruncated);
  }
  std::vector<uint8_t> frame = good;
  frame[5] = 7;
  EXPECT_EQ(drop_of(frame), Drop::kOtherMac);
  std::memset(frame.data(), 0xff, 6);
  EXPECT_EQ(drop_of(frame), Drop::kOtherMac) << "a broadcast packet";
  frame = good;
  frame[6] |= 1;
  EXPECT_EQ(drop_of(frame), Drop::kBadSource) << "from a group";
  frame = good;
  frame[13] = 0xdd;
  EXPECT_EQ(drop_of(frame), Drop::kOtherEtherType);
  frame = good;
  frame[kEthernetBytes + 8] ^= 1;
  EXPECT_EQ(drop_of(frame), Drop::kIpv4Checksum);
  EXPECT_EQ(parse_frame(frame, kHere, {.ipv4_good = true}).kind, FrameKind::kPacket);
  EXPECT_EQ(drop_of_ip(good, 0, 0x65), Drop::kBadIpv4);
  EXPECT_EQ(drop_of_ip(good, 0, 0x44), Drop::kBadIpv4);
  EXPECT_EQ(drop_of_ip(good, 3, 19), Drop::kBadIpv4);
  EXPECT_EQ(drop_of_ip(good, 2, 0xff), Drop::kTruncated);
  EXPECT_EQ(drop_of_ip(good, 6, 0x20), Drop::kFragment);
  EXPECT_EQ(drop_of_ip(good, 7, 0x01), Drop::kFragment);
  EXPECT_EQ(drop_of_ip(good, 9, 6), Drop::kOtherProtocol);
  EXPECT_EQ(drop_of_ip(good, 12, 224), Drop::kBadSource);
  EXPECT_EQ(drop_of_ip(good, 15, 1), Drop::kBadSource) << "this port's own address";
  EXPECT_EQ(drop_of_ip(good, 19, 3), Drop::kOtherIp);
  frame = good;
  frame[kEthernetBytes + kIpv4Bytes + 3] ^= 1;
  EXPECT_EQ(drop_of(frame), Drop::kOtherPort);
  frame = good;
  frame[kEthernetBytes + kIpv4Bytes + 4] = 0xff;
  EXPECT_EQ(drop_of(frame), Drop::kBadUdp);
  frame = good;
  frame[kEthernetBytes + kIpv4Bytes] = frame[kEthernetBytes + kIpv4Bytes + 1] = 0;
  EXPECT_EQ(drop_of(frame), Drop::kBadSource) << "UDP port 0";
}

TEST(DpdkFrame, ArpIsWrittenAndReadAndMustAgreeWithItself) {
  std::vector<uint8_t> bytes(kMinFrameBytes);
  write_arp(bytes.data(), kThere, true, kBroadcast, kHere.ip);
  Frame frame = parse_frame(bytes, kHere, {});
  ASSERT_EQ(frame.kind, FrameKind::kArp);
  EXPECT_TRUE(frame.arp.request);
  EXPECT_EQ(frame.arp.sender_mac, kThere.mac);
  EXPECT_EQ(frame.arp.sender_ip, kThere.ip);
  EXPECT_EQ(frame.arp.target_ip, kHere.ip);
  write_arp(bytes.data(), kThere, false, kHere.mac, kHere.ip);
  frame = parse_frame(bytes, kHere, {});
  ASSERT_EQ(frame.kind, FrameKind::kArp);
  EXPECT_FALSE(frame.arp.request);
  std::vector<uint8_t> wrong = bytes;
  wrong[kEthernetBytes + 8 + 5] = 9;  // says another station's MAC
  EXPECT_EQ(drop_of(wrong), Drop::kBadArp);
  wrong = bytes;
  wrong[kEthernetBytes + 7] = 3;
  EXPECT_EQ(drop_of(wrong), Drop::kBadArp);
  wrong = bytes;
  wrong.resize(kEthernetBytes + kArpBytes - 1);
  EXPECT_EQ(drop_of(wrong), Drop::kTruncated);
}

// With an address sanitizer this also finds a read outside the frame.
TEST(DpdkFrame, AnyBytesAreReadWithinTheirBounds) {
  Random random(5);
  size_t packets = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::vector<uint8_t> frame = packet_for_here(random.next() % 40);
    for (uint64_t flips = random.next() % 5; flips > 0; --flips)
      frame[random.next() % frame.size()] = static_cast<uint8_t>(random.next());
    frame.resize(random.next() % (frame.size() + 1));
    frame.shrink_to_fit();
    const Frame parsed = parse_frame(frame, kHere, {});
    if (parsed.kind != FrameKind::kPacket) continue;
    ++packets;
    ASSERT_GE(parsed.payload.data(), frame.data() + kFramingBytes);
    ASSERT_LE(parsed.payload.data() + parsed.payload.size(), frame.data() + frame.size());
  }
  EXPECT_GT(packets, 0u);
}

}  // namespace
}  // namespace sluice::dpdk
