// Ethernet, ARP, IPv4 and UDP as far as the port needs them: what is sent is plain IPv4 without
// options, so that it is routable; what is received is judged byte by byte, because anybody on the
// network can send it. Pure functions of bytes; no DPDK in here.
#ifndef SLUICE_DRIVERS_DPDK_FRAME_H_
#define SLUICE_DRIVERS_DPDK_FRAME_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sluice::dpdk {

using Mac = std::array<uint8_t, 6>;

inline constexpr Mac kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
inline constexpr size_t kEthernetBytes = 14;
inline constexpr size_t kIpv4Bytes = 20;
inline constexpr size_t kUdpBytes = 8;
// In front of every packet.
inline constexpr size_t kFramingBytes = kEthernetBytes + kIpv4Bytes + kUdpBytes;
inline constexpr size_t kArpBytes = 28;
// Frames on Ethernet are at least so long, without the checksum that the device adds.
inline constexpr size_t kMinFrameBytes = 60;

// Who this port is. Addresses and UDP ports are numbers of this machine's byte order everywhere.
struct Self {
  Mac mac{};
  uint32_t ip = 0;
  uint16_t udp_port = 0;
};

// Why a frame was not taken. The order is that of drop_name().
enum class Drop : uint8_t {
  kNone,
  kTruncated,       // shorter than its headers, or than they say
  kOtherMac,        // for another station
  kOtherEtherType,  // neither IPv4 nor ARP
  kBadArp,          // not ARP of IPv4 over Ethernet, or contradicts itself
  kBadIpv4,         // wrong version, header length or total length
  kIpv4Checksum,    // wrong checksum of the IPv4 header
  kFragment,        // fragments are not put together: the MTU of the path is too small
  kOtherIp,         // for another address
  kBadSource,       // a source address that no single host has, or this port's own
  kOtherProtocol,   // not UDP
  kBadUdp,          // the UDP length contradicts the IPv4 length
  kOtherPort,       // for another UDP port
  kUdpChecksum,     // the device found the UDP checksum wrong
  kSegmented,       // larger than one receive buffer
  kNoLinkAddress,   // sent to a peer whose MAC is not known yet
  kNoRoute,         // sent to a peer outside the network without a gateway
  kTooLong,         // sent with more bytes than the MTU
  kDevice,          // the device dropped it, by its own counters
  kCount,
};
inline constexpr size_t kDropReasons = static_cast<size_t>(Drop::kCount);
std::string_view drop_name(Drop drop);

enum class FrameKind : uint8_t { kDropped, kArp, kPacket };

struct ArpMessage {
  bool request = false;
  Mac sender_mac{};
  uint32_t sender_ip = 0;
  uint32_t target_ip = 0;
};

struct Frame {
  FrameKind kind = FrameKind::kDropped;
  Drop drop = Drop::kNone;  // kDropped
  ArpMessage arp;           // kArp: from a single host, not necessarily for this port's address
  // kPacket:
  Mac source_mac{};
  uint32_t source_ip = 0;
  uint16_t source_port = 0;
  std::span<const uint8_t> payload;  // into the frame
};

// What the device has already found about checksums.
struct Checked {
  bool ipv4_good = false;
};

Frame parse_frame(std::span<const uint8_t> frame, const Self& self, Checked checked);

// Writes the framing of a UDP packet of `payload_bytes` bytes. `ipv4_checksum` false: left 0 for
// the device. The UDP checksum is left 0, which in IPv4 means none: the packet layer has a stronger
// one.
void write_framing(uint8_t* out, const Self& self, const Mac& to_mac, uint32_t to_ip,
                   uint16_t to_port, size_t payload_bytes, uint16_t identification,
                   bool ipv4_checksum);
// Writes a whole ARP frame, kMinFrameBytes long.
void write_arp(uint8_t* out, const Self& self, bool request, const Mac& to_mac, uint32_t to_ip);

// The ones' complement sum of RFC 1071, ready to be stored.
uint16_t internet_checksum(std::span<const uint8_t> bytes);

// Whether one host can have it: not 0/8, loopback, multicast or broadcast.
bool is_host_address(uint32_t ip);

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_FRAME_H_
