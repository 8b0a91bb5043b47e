// The packet port on real DPDK ports, without the layer above it.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/arena.h"
#include "base/file.h"
#include "base/random.h"
#include "base/status.h"
#include "drivers/dpdk/dpdk.h"
#include "drivers/dpdk/frame.h"
#include "drivers/packet/port.h"
#include "tests/dpdk/rig.h"

namespace sluice::dpdk {
namespace {

using packet::InPacket;
using packet::OutPacket;
using packet::PacketPort;
using testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(10);
constexpr int64_t kWaitNs = 1'000'000;

std::unique_ptr<PacketPort> open_rig(size_t index, int udp_port) {
  auto port = open_port(rig_listen(index, udp_port), "");
  EXPECT_TRUE(port.ok()) << port.status();
  return port.ok() ? *std::move(port) : nullptr;
}

std::string error_of(std::string_view listen) {
  const auto port = open_port(listen, "");
  EXPECT_FALSE(port.ok()) << listen;
  return port.ok() ? "" : std::string(message_of(port.status()));
}

uint64_t drops_of(const PacketPort& port, Drop drop) {
  for (const auto& [name, count] : port.counters().drops) {
    if (name == drop_name(drop)) return count;
  }
  return 0;
}

Mac mac_of(const std::string& interface) {
  ifreq request{};
  std::memcpy(request.ifr_name, interface.data(), interface.size());
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(ioctl(fd.get(), SIOCGIFHWADDR, &request), 0);
  Mac mac;
  std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
  return mac;
}

// Receives until `enough` packets came or patience ends.
size_t receive(PacketPort& port, size_t enough, const std::function<void(const InPacket&)>& use) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  size_t count = 0;
  std::array<InPacket, 32> packets;
  while (count < enough && std::chrono::steady_clock::now() < end) {
    const size_t got = port.receive_burst(packets);
    for (size_t i = 0; i < got; ++i) use(packets[i]);
    count += got;
    if (got == 0) port.wait(kWaitNs);
  }
  return count;
}

class DpdkPorts : public testing::Test {
 protected:
  void SetUp() override {
    arena_ = *Arena::create({.bytes = size_t{4} << 20});
    a_ = open_rig(0, 7001);
    b_ = open_rig(1, 7002);
    ASSERT_TRUE(a_ != nullptr && b_ != nullptr);
    ASSERT_TRUE(a_->register_memory(*arena_).ok());
    ASSERT_TRUE(b_->register_memory(*arena_).ok());
    to_b_ = *a_->parse("10.12.0.2:7002");
    to_a_ = *b_->parse("10.12.0.1:7001");
  }

  // Makes both know the other's MAC.
  void acquaint() {
    const uint8_t hello = 'h';
    OutPacket packet;
    packet.to = to_b_;
    packet.header = &hello;
    packet.header_bytes = 1;
    ASSERT_EQ(a_->send_burst({&packet, 1}), 1u);
    // The question, the answer, and the packet that waited for it.
    std::array<InPacket, 4> in;
    const auto end = std::chrono::steady_clock::now() + kPatience;
    bool came = false;
    while (!came && std::chrono::steady_clock::now() < end) {
      came = b_->receive_burst(in) > 0;
      a_->receive_burst(in);
      b_->wait(kWaitNs);
    }
    ASSERT_TRUE(came);
  }

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<PacketPort> a_;
  std::unique_ptr<PacketPort> b_;
  packet::PeerAddress to_b_;
  packet::PeerAddress to_a_;
};

TEST_F(DpdkPorts, HaveTheInterfacesMtuAndAddress) {
  EXPECT_EQ(a_->limits().max_packet_bytes, static_cast<size_t>(kRigMtu) - 28);
  EXPECT_EQ(a_->address(), "10.12.0.1:7001");
  EXPECT_EQ(a_->to_text(to_b_), "10.12.0.2:7002");
  EXPECT_FALSE(a_->parse("10.12.0.2").ok());
}

TEST_F(DpdkPorts, CarryPacketsOfEverySizeFromTheArena) {
  acquaint();
  const size_t largest = a_->limits().max_packet_bytes;
  const std::array<uint8_t, 48> header = {'p', 'a', 'c', 'k', 'e', 't'};
  Random random(7);
  for (size_t i = 0; i < arena_->bytes(); ++i)
    arena_->base()[i] = static_cast<uint8_t>(random.next());
  uint32_t reads = 0;
  for (size_t payload : {size_t{0}, size_t{1}, size_t{100}, size_t{1452}, size_t{4096},
                         size_t{8000}, largest - header.size()}) {
    SCOPED_TRACE(payload);
    OutPacket packet;
    packet.to = to_b_;
    packet.header = header.data();
    packet.header_bytes = header.size();
    packet.payload = arena_->base() + 4096 + payload;
    packet.payload_bytes = static_cast<uint32_t>(payload);
    packet.device_reads = &reads;
    ASSERT_EQ(a_->send_burst({&packet, 1}), 1u);
    const size_t count = receive(*b_, 1, [&](const InPacket& in) {
      EXPECT_EQ(b_->to_text(in.from), "10.12.0.1:7001");
      ASSERT_EQ(in.bytes, header.size() + payload);
      EXPECT_EQ(std::memcmp(in.data, header.data(), header.size()), 0);
      EXPECT_EQ(std::memcmp(in.data + header.size(), packet.payload, payload), 0);
    });
    ASSERT_EQ(count, 1u);
  }
  a_->reclaim();
  EXPECT_EQ(reads, 0u);
}

TEST_F(DpdkPorts, CarryManyPacketsAndLetGoOfEveryPayload) {
  acquaint();
  constexpr size_t kRounds = 400;
  constexpr size_t kBurst = 32;
  uint32_t reads = 0;
  uint64_t accepted = 0;
  uint64_t received = 0;
  uint64_t wrong = 0;
  std::array<OutPacket, kBurst> out;
  std::array<std::array<uint8_t, 16>, kBurst> headers{};
  std::array<InPacket, 64> in;
  for (size_t round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < kBurst; ++i) {
      const size_t offset = (round * kBurst + i) * 64 % (arena_->bytes() - 8192);
      std::memcpy(headers[i].data(), &offset, sizeof offset);
      out[i].to = to_b_;
      out[i].header = headers[i].data();
      out[i].header_bytes = headers[i].size();
      out[i].payload = arena_->base() + offset;
      out[i].payload_bytes = 8192;
      out[i].device_reads = &reads;
    }
    accepted += a_->send_burst(out);
    for (size_t got = b_->receive_burst(in); got > 0; got = b_->receive_burst(in)) {
      received += got;
      for (size_t i = 0; i < got; ++i) {
        size_t offset = 0;
        std::memcpy(&offset, in[i].data, sizeof offset);
        wrong += std::memcmp(in[i].data + 16, arena_->base() + offset, 8192) != 0;
      }
    }
  }
  b_->wait(kWaitNs);
  for (size_t got = b_->receive_burst(in); got > 0; got = b_->receive_burst(in)) received += got;
  a_.reset();
  EXPECT_EQ(reads, 0u) << "the port is gone, the device reads nothing";
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(accepted, kRounds * kBurst);
  // A lossy port, but here nothing is in its way.
  EXPECT_GE(received, accepted * 9 / 10);
  std::printf("  %llu of %llu packets arrived\n", static_cast<unsigned long long>(received),
              static_cast<unsigned long long>(accepted));
}

TEST_F(DpdkPorts, ATooLongPacketAndAnUnknownPeerAreCountedAndHoldNothing) {
  const uint8_t header = 'h';
  uint32_t reads = 0;
  OutPacket packet;
  packet.to = to_b_;
  packet.header = &header;
  packet.header_bytes = 1;
  packet.payload = arena_->base();
  packet.payload_bytes = 9000;
  packet.device_reads = &reads;
  EXPECT_EQ(a_->send_burst({&packet, 1}), 1u);
  EXPECT_EQ(drops_of(*a_, Drop::kTooLong), 1u);
  packet.to = *a_->parse("10.12.0.250:7001");
  packet.payload_bytes = 100;
  EXPECT_EQ(a_->send_burst({&packet, 1}), 1u);
  EXPECT_EQ(drops_of(*a_, Drop::kNoLinkAddress), 1u);
  EXPECT_EQ(reads, 0u);
}

TEST_F(DpdkPorts, APortReachesItselfWithinABound) {
  const std::array<uint8_t, 3> header = {'m', 'e', '!'};
  uint32_t reads = 0;
  std::array<OutPacket, 64> out;
  for (OutPacket& packet : out) {
    packet.to = *a_->parse(a_->address());
    packet.header = header.data();
    packet.header_bytes = header.size();
    packet.payload = arena_->base();
    packet.payload_bytes = 5000;
    packet.device_reads = &reads;
  }
  size_t accepted = 0;
  for (int i = 0; i < 20; ++i) accepted += a_->send_burst(out);
  EXPECT_GT(accepted, 0u);
  EXPECT_LT(accepted, 20u * 64);
  EXPECT_EQ(reads, 0u);
  const size_t count = receive(*a_, accepted, [&](const InPacket& in) {
    EXPECT_EQ(a_->to_text(in.from), a_->address());
    EXPECT_EQ(in.bytes, 5003u);
    EXPECT_EQ(std::memcmp(in.data, header.data(), 3), 0);
  });
  EXPECT_EQ(count, accepted);
  EXPECT_EQ(a_->send_burst(out), out.size());
}

// Somebody else who writes what it likes.
class Stranger {
 public:
  explicit Stranger(const std::string& interface)
      : fd_(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL))) {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex(interface.c_str()));
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  void send(std::span<const uint8_t> frame) {
    EXPECT_EQ(::send(fd_.get(), frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  }

 private:
  UniqueFd fd_;
};

TEST_F(DpdkPorts, GarbageAndSpoofedFramesAreCountedAndOthersGoOn) {
  acquaint();
  // On the wire of b itself: the kernel's bridge may look into IPv4 and drop what is wrong.
  Stranger stranger("b" + rig_interface(1));
  const Mac mac = mac_of(rig_interface(1));
  const Self spoofed{{2, 0, 0, 0, 0, 9}, 0x0a0c0001, 7001};
  std::array<uint8_t, kFramingBytes + 64> good{};
  write_framing(good.data(), spoofed, mac, 0x0a0c0002, 7002, 64, 1, true);
  Random random(11);
  constexpr size_t kFrames = 3000;
  std::array<InPacket, 64> in;
  uint64_t received = 0;
  const auto drain = [&] {
    for (size_t got = b_->receive_burst(in); got > 0; got = b_->receive_burst(in)) {
      received += got;
      for (size_t j = 0; j < got; ++j) EXPECT_LE(in[j].bytes, 64u);
    }
  };
  for (size_t i = 0; i < kFrames; ++i) {
    std::array<uint8_t, kFramingBytes + 64> frame = good;
    const size_t flips = 1 + random.next() % 4;
    for (size_t flip = 0; flip < flips; ++flip) {
      frame[12 + random.next() % (kFramingBytes - 12)] ^=
          static_cast<uint8_t>(1u << random.next() % 8);
    }
    const size_t size = 14 + random.next() % (frame.size() - 13);
    stranger.send({frame.data(), size});
    if (i % 64 == 0) drain();
  }
  for (int i = 0; i < 50; ++i) {
    drain();
    b_->wait(kWaitNs);
  }
  uint64_t dropped = 0;
  for (const auto& [name, count] : b_->counters().drops) {
    std::printf("  %llu %s\n", static_cast<unsigned long long>(count), std::string(name).c_str());
    dropped += count;
  }
  EXPECT_GE(dropped + received, kFrames * 9 / 10);
  EXPECT_GT(drops_of(*b_, Drop::kIpv4Checksum), 0u);
  EXPECT_GT(drops_of(*b_, Drop::kTruncated), 0u);
  EXPECT_TRUE(b_->health().ok());
  acquaint();
}

TEST_F(DpdkPorts, WakeEndsAWait) {
  std::thread waker([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    a_->wake();
  });
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(20))
    a_->wait(5'000'000'000);
  waker.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

TEST(DpdkPort, ErrorsNameTheInputAndWhatToDo) {
  EXPECT_THAT(error_of("10.12.0.1:7001"), HasSubstr("names no device"));
  EXPECT_THAT(error_of("10.12.0.1:7001%net_af_packet0,iface=nope"), HasSubstr("interface nope"));
  EXPECT_THAT(error_of("10.12.0.1:7001%net_af_packet0"), HasSubstr("iface=INTERFACE"));
  EXPECT_THAT(error_of("10.12.0.1:7001%net_none0"), HasSubstr("net_none0"));
  EXPECT_THAT(error_of("10.12.0.1:7001%0000:7f:1f.7"), HasSubstr("0000:7f:1f.7"));
  EXPECT_THAT(error_of("10.12.0.1:7001%net_af_packet0,iface=d0;mtu=9500"),
              HasSubstr("at most 9000"));
  const auto first = open_rig(0, 7001);
  EXPECT_THAT(error_of(rig_listen(0, 7002)), HasSubstr("in use by another endpoint"));
}

}  // namespace
}  // namespace sluice::dpdk
