// One port of a simulated packet network. Guarded by the fabric's mutex.
#ifndef SLUICE_DRIVERS_SIM_PACKET_PORT_H_
#define SLUICE_DRIVERS_SIM_PACKET_PORT_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "drivers/packet/port.h"
#include "drivers/ring.h"
#include "drivers/sim/fabric.h"
#include "drivers/sim/packet_network.h"

namespace sluice::sim {

class SimPacketPort final : public packet::PacketPort, public SimParticipant {
 public:
  // With the fabric's mutex held.
  SimPacketPort(SimPacketNetwork& network, std::string node, uint64_t key);
  ~SimPacketPort() override;

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
  absl::Status health() const override;
  packet::PortCounters counters() const override;

  void on_cut(const std::string&) override {}  // there is nothing to cut in packets
  void on_crash() override { dead_ = true; }

  const std::string& node() const { return node_; }

 private:
  friend class sluice::SimPacketNetwork;
  void give_back_lent();
  void lower_done();

  SimPacketNetwork& network_;
  SimFabric& fabric_;
  const std::string node_;
  const uint64_t key_;
  bool dead_ = false;
  bool woken_ = false;
  const uint8_t* memory_ = nullptr;
  size_t memory_bytes_ = 0;
  Ring<uint32_t> inbox_;
  std::vector<uint32_t> lent_;
  std::vector<uint32_t*> done_;  // read by the device; lowered in this port's calls
  size_t in_device_ = 0;
  packet::PortCounters counters_;
  std::condition_variable something_;
};

}  // namespace sluice::sim

#endif  // SLUICE_DRIVERS_SIM_PACKET_PORT_H_
