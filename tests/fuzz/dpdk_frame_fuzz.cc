// Feeds the reader of Ethernet frames anything: as it is, and once more as a frame that is for this
// port, with a right IPv4 checksum.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "drivers/dpdk/frame.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice::dpdk;
using sluice::testing::require;

constexpr Self kSelf = {{2, 0, 0, 0, 0, 1}, 0x0a0c0001, 7001};

void read_frame(std::span<const uint8_t> bytes, Checked checked) {
  const Frame frame = parse_frame(bytes, kSelf, checked);
  if (frame.kind == FrameKind::kDropped) {
    require(frame.drop != Drop::kNone && frame.drop < Drop::kCount);
    require(!drop_name(frame.drop).empty() && frame.payload.empty());
    return;
  }
  require(frame.drop == Drop::kNone && bytes.size() >= kEthernetBytes);
  if (frame.kind == FrameKind::kArp) {
    require(is_host_address(frame.arp.sender_ip) && bytes.size() >= kEthernetBytes + kArpBytes);
    return;
  }
  require(is_host_address(frame.source_ip) && frame.source_ip != kSelf.ip &&
          frame.source_port != 0);
  // Inside the frame.
  require(frame.payload.data() >= bytes.data() + kFramingBytes &&
          frame.payload.data() + frame.payload.size() <= bytes.data() + bytes.size());
}

void address_to_self(std::vector<uint8_t>& frame) {
  std::copy(kSelf.mac.begin(), kSelf.mac.end(), frame.begin());
  uint8_t* const ip = frame.data() + kEthernetBytes;
  for (int i = 0; i < 4; ++i) ip[16 + i] = static_cast<uint8_t>(kSelf.ip >> (24 - 8 * i));
  const size_t header = std::min<size_t>(size_t{ip[0] & 0xfu} * 4, frame.size() - kEthernetBytes);
  if (header < kIpv4Bytes) return;
  ip[10] = ip[11] = 0;
  const uint16_t checksum = internet_checksum({ip, header});
  ip[10] = static_cast<uint8_t>(checksum >> 8);
  ip[11] = static_cast<uint8_t>(checksum);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Of its own length, so that a byte read behind it is noticed.
  std::vector<uint8_t> frame(data, data + size);
  read_frame(frame, {});
  if (size < kFramingBytes) return 0;
  read_frame(frame, {.ipv4_good = true});
  address_to_self(frame);
  read_frame(frame, {});
  return 0;
}
