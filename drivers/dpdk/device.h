// One DPDK port, set up from what it can do: one receive and one transmit queue, its buffers, the
// bursts. Knows frames only as bytes. Confined to one thread.
#ifndef SLUICE_DRIVERS_DPDK_DEVICE_H_
#define SLUICE_DRIVERS_DPDK_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "drivers/dpdk/frame.h"
#include "drivers/dpdk/settings.h"

struct rte_mbuf;
struct rte_mempool;

namespace sluice::dpdk {

inline constexpr size_t kMaxBurst = 64;

class Device {
 public:
  static absl::StatusOr<std::unique_ptr<Device>> open(const PortSettings& settings);
  // Lowers the counters of all payloads that it still had.
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Mac& mac() const { return mac_; }
  // The largest IPv4 packet.
  size_t mtu() const { return mtu_; }
  bool is_virtual() const { return virtual_; }
  // The device writes the checksum of the IPv4 header itself.
  bool sums_ipv4() const { return sums_ipv4_; }

  // Payloads of this arena can be sent from now on.
  absl::Status register_memory(Arena& arena);

  // A frame to be sent: room for `bytes` bytes to be written, null when there is none left. It is
  // given up with drop(), or sent.
  rte_mbuf* make_frame(size_t bytes, uint8_t** room);
  // Puts a payload behind it, read from where it is. Raises the counter, which is lowered when the
  // device has let go. False, and nothing changed, when there is no room left.
  bool append_payload(rte_mbuf* frame, const uint8_t* payload, size_t bytes,
                      uint32_t* device_reads);
  void drop(rte_mbuf* frame);
  // How many of them the device took; the rest stay the caller's.
  size_t send(std::span<rte_mbuf*> frames);
  // Lets the device give back what it has sent.
  void reclaim();

  struct Received {
    rte_mbuf* owner = nullptr;
    std::span<const uint8_t> bytes;  // empty: in several pieces
    bool ipv4_good = false;          // the device checked the sum of the IPv4 header
    bool checksum_bad = false;       // the device found a sum wrong
  };
  size_t receive(std::span<Received> frames);

  // Not OK once the device is gone.
  absl::Status check() const;
  // Frames that the device itself could not take in.
  uint64_t missed() const;

 private:
  Device(uint16_t port, std::string name, bool is_virtual);
  absl::Status set_up(const PortSettings& settings);
  absl::Status make_pools(size_t frame_bytes, size_t header_bytes);
  absl::Status start();
  absl::Status find_mtu(uint16_t wanted, uint16_t largest);

  const uint16_t port_;
  const std::string name_;
  const bool virtual_;
  int interface_ = 0;        // of the kernel, 0: none
  std::string driver_name_;  // "net_af_packet"
  Mac mac_{};
  size_t mtu_ = 0;
  size_t frame_room_ = 0;  // of a receive buffer
  bool sums_ipv4_ = false;
  bool checks_ = false;
  Arena* arena_ = nullptr;
  bool mapped_ = false;  // for the device's own reads
  rte_mempool* received_ = nullptr;
  rte_mempool* headers_ = nullptr;
  rte_mempool* payloads_ = nullptr;
};

// What DPDK needs to be told about a device beyond what the user says: for net_af_packet frames of
// the interface's MTU, for net_memif likewise.
absl::StatusOr<std::string> completed_arguments(const PortSettings& settings);

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_DEVICE_H_
