#include "drivers/dpdk/frame.h"

#include <algorithm>
#include <cstring>

namespace sluice::dpdk {
namespace {

constexpr uint16_t kEtherTypeIpv4 = 0x0800;
constexpr uint16_t kEtherTypeArp = 0x0806;
constexpr uint8_t kProtocolUdp = 17;
constexpr uint8_t kTimeToLive = 64;
constexpr uint16_t kDontFragment = 0x4000;
constexpr uint16_t kMoreOrOffset = 0x3fff;
constexpr uint16_t kArpEthernet = 1;
constexpr uint16_t kArpRequest = 1;
constexpr uint16_t kArpReply = 2;

uint16_t get16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }

uint32_t get32(const uint8_t* at) { return static_cast<uint32_t>(get16(at)) << 16 | get16(at + 2); }

void put16(uint8_t* at, size_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}

void put32(uint8_t* at, uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value & 0xffff);
}

Mac get_mac(const uint8_t* at) {
  Mac mac;
  std::memcpy(mac.data(), at, mac.size());
  return mac;
}

bool is_station(const Mac& mac) { return (mac[0] & 1) == 0 && mac != Mac{}; }

Frame dropped(Drop drop) {
  Frame frame;
  frame.drop = drop;
  return frame;
}

Frame parse_arp(std::span<const uint8_t> arp, const Mac& source) {
  if (arp.size() < kArpBytes) return dropped(Drop::kTruncated);
  const uint16_t operation = get16(arp.data() + 6);
  if (get16(arp.data()) != kArpEthernet || get16(arp.data() + 2) != kEtherTypeIpv4 || arp[4] != 6 ||
      arp[5] != 4 || (operation != kArpRequest && operation != kArpReply)) {
    return dropped(Drop::kBadArp);
  }
  Frame frame;
  frame.kind = FrameKind::kArp;
  frame.arp.request = operation == kArpRequest;
  frame.arp.sender_mac = get_mac(arp.data() + 8);
  frame.arp.sender_ip = get32(arp.data() + 14);
  frame.arp.target_ip = get32(arp.data() + 24);
  // A reply on behalf of another station would send this node's blocks to whoever asks for them.
  if (!is_station(frame.arp.sender_mac) || frame.arp.sender_mac != source ||
      !is_host_address(frame.arp.sender_ip)) {
    return dropped(Drop::kBadArp);
  }
  return frame;
}

Frame parse_udp(std::span<const uint8_t> udp, const Self& self, const Mac& source,
                uint32_t source_ip) {
  if (udp.size() < kUdpBytes) return dropped(Drop::kBadUdp);
  const size_t length = get16(udp.data() + 4);
  if (length < kUdpBytes || length > udp.size()) return dropped(Drop::kBadUdp);
  if (get16(udp.data() + 2) != self.udp_port) return dropped(Drop::kOtherPort);
  Frame frame;
  frame.kind = FrameKind::kPacket;
  frame.source_mac = source;
  frame.source_ip = source_ip;
  frame.source_port = get16(udp.data());
  if (frame.source_port == 0) return dropped(Drop::kBadSource);
  frame.payload = udp.subspan(kUdpBytes, length - kUdpBytes);
  return frame;
}

Frame parse_ipv4(std::span<const uint8_t> ip, const Self& self, const Mac& source,
                 Checked checked) {
  if (ip.size() < kIpv4Bytes) return dropped(Drop::kTruncated);
  const size_t header = size_t{ip[0] & 0x0fu} * 4;
  const size_t total = get16(ip.data() + 2);
  if (ip[0] >> 4 != 4 || header < kIpv4Bytes || total < header) return dropped(Drop::kBadIpv4);
  if (total > ip.size()) return dropped(Drop::kTruncated);
  if (get32(ip.data() + 16) != self.ip) return dropped(Drop::kOtherIp);
  if (!checked.ipv4_good && internet_checksum(ip.first(header)) != 0)
    return dropped(Drop::kIpv4Checksum);
  if ((get16(ip.data() + 6) & kMoreOrOffset) != 0) return dropped(Drop::kFragment);
  const uint32_t source_ip = get32(ip.data() + 12);
  if (!is_host_address(source_ip) || source_ip == self.ip) return dropped(Drop::kBadSource);
  if (ip[9] != kProtocolUdp) return dropped(Drop::kOtherProtocol);
  return parse_udp(ip.subspan(header, total - header), self, source, source_ip);
}

}  // namespace

std::string_view drop_name(Drop drop) {
  static constexpr std::array<std::string_view, kDropReasons> kNames = {
      "none",
      "truncated",
      "for another station",
      "neither IPv4 nor ARP",
      "wrong ARP",
      "wrong IPv4 header",
      "wrong IPv4 checksum",
      "IPv4 fragment",
      "for another address",
      "impossible source",
      "not UDP",
      "wrong UDP header",
      "for another UDP port",
      "wrong UDP checksum",
      "larger than a receive buffer",
      "no link address yet",
      "no route",
      "longer than the MTU",
      "dropped by the device",
  };
  return kNames[static_cast<size_t>(drop)];
}

bool is_host_address(uint32_t ip) {
  const uint32_t first = ip >> 24;
  return first != 0 && first != 127 && first < 224;
}

uint16_t internet_checksum(std::span<const uint8_t> bytes) {
  uint64_t sum = 0;
  size_t i = 0;
  for (; i + 1 < bytes.size(); i += 2) sum += get16(bytes.data() + i);
  if (i < bytes.size()) sum += static_cast<uint64_t>(bytes[i]) << 8;
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

Frame parse_frame(std::span<const uint8_t> frame, const Self& self, Checked checked) {
  if (frame.size() < kEthernetBytes) return dropped(Drop::kTruncated);
  const Mac to = get_mac(frame.data());
  const Mac source = get_mac(frame.data() + 6);
  const uint16_t type = get16(frame.data() + 12);
  const std::span<const uint8_t> rest = frame.subspan(kEthernetBytes);
  if (to != self.mac && !(to == kBroadcast && type == kEtherTypeArp))
    return dropped(Drop::kOtherMac);
  if (!is_station(source) || source == self.mac) return dropped(Drop::kBadSource);
  if (type == kEtherTypeArp) return parse_arp(rest, source);
  if (type != kEtherTypeIpv4) return dropped(Drop::kOtherEtherType);
  return parse_ipv4(rest, self, source, checked);
}

void write_framing(uint8_t* out, const Self& self, const Mac& to_mac, uint32_t to_ip,
                   uint16_t to_port, size_t payload_bytes, uint16_t identification,
                   bool ipv4_checksum) {
  std::memcpy(out, to_mac.data(), to_mac.size());
  std::memcpy(out + 6, self.mac.data(), self.mac.size());
  put16(out + 12, kEtherTypeIpv4);
  uint8_t* ip = out + kEthernetBytes;
  ip[0] = 0x45;
  ip[1] = 0;
  put16(ip + 2, kIpv4Bytes + kUdpBytes + payload_bytes);
  put16(ip + 4, identification);
  put16(ip + 6, kDontFragment);
  ip[8] = kTimeToLive;
  ip[9] = kProtocolUdp;
  put16(ip + 10, 0);
  put32(ip + 12, self.ip);
  put32(ip + 16, to_ip);
  if (ipv4_checksum) put16(ip + 10, internet_checksum({ip, kIpv4Bytes}));
  uint8_t* udp = ip + kIpv4Bytes;
  put16(udp, self.udp_port);
  put16(udp + 2, to_port);
  put16(udp + 4, kUdpBytes + payload_bytes);
  put16(udp + 6, 0);
}

void write_arp(uint8_t* out, const Self& self, bool request, const Mac& to_mac, uint32_t to_ip) {
  std::memset(out, 0, kMinFrameBytes);
  std::memcpy(out, to_mac.data(), to_mac.size());
  std::memcpy(out + 6, self.mac.data(), self.mac.size());
  put16(out + 12, kEtherTypeArp);
  uint8_t* arp = out + kEthernetBytes;
  put16(arp, kArpEthernet);
  put16(arp + 2, kEtherTypeIpv4);
  arp[4] = 6;
  arp[5] = 4;
  put16(arp + 6, request ? kArpRequest : kArpReply);
  std::memcpy(arp + 8, self.mac.data(), self.mac.size());
  put32(arp + 14, self.ip);
  if (!request) std::memcpy(arp + 18, to_mac.data(), to_mac.size());
  put32(arp + 24, to_ip);
}

}  // namespace sluice::dpdk
