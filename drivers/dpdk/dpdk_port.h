// The packet port on a DPDK device: UDP over IPv4 over Ethernet, with ARP.
#ifndef SLUICE_DRIVERS_DPDK_DPDK_PORT_H_
#define SLUICE_DRIVERS_DPDK_DPDK_PORT_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"
#include "drivers/dpdk/device.h"
#include "drivers/dpdk/frame.h"
#include "drivers/dpdk/loopback.h"
#include "drivers/dpdk/neighbours.h"
#include "drivers/dpdk/settings.h"
#include "drivers/packet/port.h"

namespace sluice::dpdk {

class DpdkPort final : public packet::PacketPort {
 public:
  static absl::StatusOr<std::unique_ptr<packet::PacketPort>> open(const PortSettings& settings);
  ~DpdkPort() override;

  packet::PortLimits limits() const override;
  std::string address() const override;
  absl::StatusOr<packet::PeerAddress> parse(std::string_view address) const override;
  std::string to_text(const packet::PeerAddress& peer) const override;
  absl::Status register_memory(Arena& arena) override;
  size_t send_burst(std::span<const packet::OutPacket> packets) override;
  size_t receive_burst(std::span<packet::InPacket> packets) override;
  void reclaim() override;
  void wait(int64_t timeout_ns) override;
  void wake() override;
  absl::Status health() const override { return health_; }
  packet::PortCounters counters() const override;

 private:
  // A packet without payload that waits for its peer's MAC.
  struct Held {
    uint32_t next_hop = 0;  // 0: free
    uint64_t key = 0;
    uint32_t bytes = 0;
    std::array<uint8_t, packet::kMaxHeaderBytes> header{};
  };
  static constexpr size_t kHeld = 32;

  DpdkPort(const PortSettings& settings, std::unique_ptr<Device> device, UniqueFd wake_fd);

  // The MAC to send to, asking for it where it is not known.
  bool resolve(const packet::OutPacket& packet, int64_t now_ns, Mac* mac);
  rte_mbuf* frame_of(const packet::OutPacket& packet, const Mac& mac);
  void hold(const packet::OutPacket& packet, uint32_t next_hop);
  void send_held(uint32_t next_hop, const Mac& mac);
  void send_arp(bool request, const Mac& to_mac, uint32_t to_ip);
  void take_arp(const ArpMessage& arp);
  bool loop_back(const packet::OutPacket& packet);
  // Fills the stash of received frames if it is empty; whether it has any.
  bool fill_stash();
  void release_views();
  void sleep_for(int64_t nanoseconds);
  void look_after_device(int64_t now_ns);
  void count(Drop drop) { ++drops_[static_cast<size_t>(drop)]; }

  const PortSettings settings_;
  const std::unique_ptr<Device> device_;
  const UniqueFd wake_fd_;
  std::atomic<bool> woken_{false};
  Self self_;
  Neighbours neighbours_;
  Loopback loopback_;
  std::array<Held, kHeld> held_;
  size_t next_held_ = 0;
  uint16_t identification_ = 0;

  // Received and not looked at yet: [stash_begin_, stash_end_).
  std::array<Device::Received, kMaxBurst> stash_;
  size_t stash_begin_ = 0;
  size_t stash_end_ = 0;
  // Handed out by the last receive_burst.
  std::array<rte_mbuf*, kMaxBurst> views_;
  size_t views_count_ = 0;

  int64_t checked_ns_ = 0;
  absl::Status health_;
  packet::PortCounters counters_;
  std::array<uint64_t, kDropReasons> drops_{};
};

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_DPDK_PORT_H_
