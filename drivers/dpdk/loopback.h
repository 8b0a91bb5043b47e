// Packets that a port sends to itself: a node is also its own peer, and no switch sends a frame
// back to where it came from. A bounded queue of copies. Confined to one thread.
#ifndef SLUICE_DRIVERS_DPDK_LOOPBACK_H_
#define SLUICE_DRIVERS_DPDK_LOOPBACK_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace sluice::dpdk {

class Loopback {
 public:
  static constexpr size_t kSlots = 256;

  // No memory is taken before the first push().
  explicit Loopback(size_t max_packet_bytes) : slot_bytes_(max_packet_bytes) {}

  bool empty() const { return taken_ == pushed_; }
  // False when the queue is full. Both parts together fit a packet.
  bool push(std::span<const uint8_t> header, std::span<const uint8_t> payload) {
    if (pushed_ - released_ == kSlots) return false;
    if (memory_.empty()) memory_.resize(kSlots * slot_bytes_);
    uint8_t* slot = memory_.data() + pushed_ % kSlots * slot_bytes_;
    std::memcpy(slot, header.data(), header.size());
    if (!payload.empty()) std::memcpy(slot + header.size(), payload.data(), payload.size());
    lengths_[pushed_++ % kSlots] = header.size() + payload.size();
    return true;
  }
  // The oldest packet, valid until release_taken(); not to be called when empty.
  std::span<const uint8_t> take() {
    const size_t slot = taken_++ % kSlots;
    return {memory_.data() + slot * slot_bytes_, lengths_[slot]};
  }
  void release_taken() { released_ = taken_; }

 private:
  const size_t slot_bytes_;
  std::vector<uint8_t> memory_;
  std::vector<size_t> lengths_ = std::vector<size_t>(kSlots);
  // Ever: pushed_ >= taken_ >= released_ >= pushed_ - kSlots.
  uint64_t pushed_ = 0;
  uint64_t taken_ = 0;
  uint64_t released_ = 0;
};

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_LOOPBACK_H_
