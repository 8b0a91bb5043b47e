// The lossy packet port that the packet layer (packet.h) stands on: it carries small packets
// between addresses, and may lose, repeat, reorder, delay and damage them. Implemented by DPDK
// (drivers/dpdk) and by the simulated fabric (drivers/sim).
//
// A port adds and removes its own framing (Ethernet, IPv4, UDP) and has no opinion about what is
// inside. It neither retransmits nor orders, and has no clock: whatever needs time to pass is
// driven by calls.
//
// Confined to one thread, except wake(). No call blocks except wait(). Nothing throws. What comes
// in from the wire is hostile: a frame that is not for this port, or not right, is counted and
// dropped.
#ifndef SLUICE_DRIVERS_PACKET_PORT_H_
#define SLUICE_DRIVERS_PACKET_PORT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"

namespace sluice::packet {

// Every port must take headers of this size; what travels without payload is a header alone.
inline constexpr size_t kMaxHeaderBytes = 256;
// The least that a port's max_packet_bytes may be.
inline constexpr size_t kMinPacketBytes = 512;

// Where a peer is, in the port's own words. Never text inside the layer, since each packet has one.
struct PeerAddress {
  uint64_t key = 0;   // equal for the same peer only, never 0 (IPv4: address and UDP port)
  uint64_t hint = 0;  // for the port alone: what it likes to know again (a MAC, a table index)
  friend bool operator==(const PeerAddress& a, const PeerAddress& b) { return a.key == b.key; }
};

struct OutPacket {
  PeerAddress to;
  const uint8_t* header = nullptr;  // copied before send_burst returns; at most kMaxHeaderBytes
  uint32_t header_bytes = 0;        // at least 1
  uint32_t payload_bytes = 0;       // follows the header in the packet; may be 0
  // In registered memory. The device may still read it after send_burst has returned.
  const uint8_t* payload = nullptr;
  // Counts the packets whose payload the device may still read: raised by one for each accepted
  // packet that has a payload, lowered when the device has let go of it (or at once, when the port
  // copied). The port changes it only within its calls (the destructor included) on its own thread,
  // and it stays where it is until it is 0 or the port is destroyed.
  uint32_t* device_reads = nullptr;
};

struct InPacket {
  PeerAddress from;
  const uint8_t* data = nullptr;
  uint32_t bytes = 0;
};

struct PortLimits {
  size_t max_packet_bytes = 0;  // header and payload of one packet: the MTU less the port's framing
  size_t max_burst = 0;         // packets that one send_burst or receive_burst can move
  bool copies_on_send = false;  // payload bytes are copied before they reach the device
};

struct PortCounters {
  uint64_t sent_packets = 0;
  uint64_t sent_bytes = 0;  // headers and payloads, without the port's framing
  uint64_t received_packets = 0;
  uint64_t received_bytes = 0;
  uint64_t system_calls = 0;
  // What was thrown away, by reason ("not IPv4", "wrong checksum", "no link address yet").
  std::vector<std::pair<std::string_view, uint64_t>> drops;
};

class PacketPort {
 public:
  // After it no device reads payloads any more, and all device_reads have been lowered.
  virtual ~PacketPort() = default;

  virtual PortLimits limits() const = 0;
  // Where peers reach it, with a UDP port that was given as 0 resolved.
  virtual std::string address() const = 0;
  // Reads an address that a user gave. INVALID_ARGUMENT, saying how one looks. Does not ask the
  // network.
  virtual absl::StatusOr<PeerAddress> parse(std::string_view address) const = 0;
  virtual std::string to_text(const PeerAddress& peer) const = 0;

  // Called once, before the first packet with a payload: all payloads will be in this memory, which
  // outlives the port.
  virtual absl::Status register_memory(Arena& arena) = 0;

  // Accepts a prefix and returns its length; 0 when the device's queue is full. Accepted packets
  // may be lost: also where the peer's link address is not known yet (the port begins to ask).
  virtual size_t send_burst(std::span<const OutPacket> packets) = 0;
  // Takes what has arrived. The views are valid until the next receive_burst, wait or destruction.
  virtual size_t receive_burst(std::span<InPacket> packets) = 0;
  // Lowers device_reads for what the device has finished with. send_burst may do so, too.
  virtual void reclaim() = 0;

  // Sleeps until a packet can be received, wake() was called, or the timeout has passed. Never
  // sleeps longer, may sleep shorter.
  virtual void wait(int64_t timeout_ns) = 0;
  // Ends the current or next wait(). The one call that any thread may make.
  virtual void wake() = 0;
  // Not OK once the device has failed or gone: every connection ends with it.
  virtual absl::Status health() const = 0;
  virtual PortCounters counters() const = 0;
};

// Opens a port at `listen`, in the port's own words; empty: any address, to connect from. Fails
// with what to change: address in use, no such device, no permission.
using OpenPort =
    std::function<absl::StatusOr<std::unique_ptr<PacketPort>>(std::string_view listen)>;

}  // namespace sluice::packet

#endif  // SLUICE_DRIVERS_PACKET_PORT_H_
