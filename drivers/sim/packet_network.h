// The simulated fabric, seen as a network of packet ports: what is lost, repeated, reordered,
// damaged and queued, from one seed, on the fabric's time. Partitions and crashes of the fabric
// lose what is sent into them.
//
// Every node has one link to a switch, as in a rack: what it sends leaves at the link's rate, what
// is sent to it, by whomever, waits in the switch for its link; a queue that is full drops.
//
// The fabric's mutex guards it all. Addresses are "NODE" or "NODE:SERVICE".
#ifndef SLUICE_DRIVERS_SIM_PACKET_NETWORK_H_
#define SLUICE_DRIVERS_SIM_PACKET_NETWORK_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/random.h"
#include "drivers/packet/port.h"
#include "drivers/ring.h"
#include "drivers/sim/fabric.h"

namespace sluice {

// The fabric's time, to be passed to what runs on it.
class SimClock final : public Clock {
 public:
  explicit SimClock(SimFabric& fabric) : fabric_(fabric) {}
  int64_t wall_ms() const override { return 1'700'000'000'000 + fabric_.now_ns() / 1'000'000; }
  int64_t monotonic_ns() const override { return fabric_.now_ns(); }
  void sleep_ns(int64_t duration) override { fabric_.advance(duration); }

 private:
  SimFabric& fabric_;
};

struct SimPacketOptions {
  uint64_t seed = 1;
  size_t max_packet_bytes = 1472;  // an Ethernet MTU of 1500
  // Of each packet, independently.
  double loss = 0;
  double duplicate = 0;
  double corrupt = 0;  // one to three bits, or the end cut off
  double reorder = 0;  // delayed by up to reorder_ns more
  int64_t reorder_ns = 200'000;
  size_t queue_bytes = 1 << 20;    // of a node's link at the switch
  uint64_t bytes_per_second = 0;   // of each link; 0: the fabric's
  size_t inbox_packets = 4096;     // received, not yet taken
  size_t device_packets = 512;     // accepted, not yet on the wire
  bool device_reads_late = false;  // payloads are read when they leave, as a card does
};

struct SimPacketCounters {
  uint64_t sent = 0;
  uint64_t delivered = 0;
  uint64_t lost = 0;
  uint64_t duplicated = 0;
  uint64_t corrupted = 0;
  uint64_t reordered = 0;
  uint64_t queue_drops = 0;
  uint64_t partition_drops = 0;
  uint64_t inbox_drops = 0;
  uint64_t nobody = 0;
  size_t largest_queue_bytes = 0;
};

namespace sim {
class SimPacketPort;
}

// Outlives its ports and, like them, is outlived by the fabric, whose events name it.
class SimPacketNetwork {
 public:
  SimPacketNetwork(SimFabric& fabric, const SimPacketOptions& options);
  ~SimPacketNetwork();

  // A port of `node`; `listen` empty: at a service of its own making.
  absl::StatusOr<std::unique_ptr<packet::PacketPort>> open(const std::string& node,
                                                           std::string_view listen);
  // What happens to packets from now on; queue, link and MTU stay.
  void set_faults(const SimPacketOptions& options);
  SimPacketCounters counters() const;
  // Hears of every packet that is delivered, with the mutex held.
  using Tap = std::function<void(const std::string& from, const std::string& to,
                                 std::span<const uint8_t> bytes)>;
  void set_tap(Tap tap) { tap_ = std::move(tap); }
  // A packet with a source of one's choosing, for tests: also one that no port has.
  void inject(std::string_view from, std::string_view to, std::string_view bytes);

 private:
  friend class sim::SimPacketPort;
  struct Link {
    int64_t up_free_ns = 0;
    int64_t down_free_ns = 0;
  };
  struct Packet {
    std::vector<uint8_t> bytes;  // of the largest size
    size_t size = 0;
    size_t header_bytes = 0;
    uint64_t from = 0;
    uint64_t to = 0;
    const uint8_t* payload = nullptr;  // still to be read
    sim::SimPacketPort* reader = nullptr;
    uint32_t* device_reads = nullptr;
  };

  uint64_t key_of(const std::string& address);
  const std::string& text_of(uint64_t key) const;
  uint32_t take_packet();
  void free_packet(uint32_t index);
  // With the mutex. Fates are drawn and the packet is put on the wire, or dropped.
  void transmit(uint32_t index);
  void put_on_wire(uint32_t index, int64_t now);
  void queue_for_receiver(uint32_t index);
  void arrive(uint32_t index);
  void read_payload(Packet* packet);
  void damage(Packet* packet);

  SimFabric& fabric_;
  SimPacketOptions options_;
  const double ns_per_byte_;
  Random random_;
  SimPacketCounters counters_;
  std::deque<Packet> packets_;
  std::vector<uint32_t> free_;
  std::map<std::string, uint64_t> keys_;
  std::vector<std::string> texts_;  // by key - 1
  std::vector<std::string> nodes_;  // by key - 1
  std::vector<size_t> link_of_;     // by key - 1
  std::map<std::string, size_t> link_numbers_;
  std::vector<Link> links_;
  std::unordered_map<uint64_t, sim::SimPacketPort*> ports_;
  uint64_t next_service_ = 1;
  Tap tap_;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_SIM_PACKET_NETWORK_H_
