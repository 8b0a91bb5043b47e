#include "drivers/sim/packet_port.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <mutex>

#include "base/status.h"

namespace sluice::sim {

SimPacketPort::SimPacketPort(SimPacketNetwork& network, std::string node, uint64_t key)
    : network_(network), fabric_(network.fabric_), node_(std::move(node)), key_(key) {}

SimPacketPort::~SimPacketPort() {
  std::lock_guard lock(fabric_.mutex());
  fabric_.detach(this);
  network_.ports_.erase(key_);
  give_back_lent();
  while (!inbox_.empty()) network_.free_packet(inbox_.pop_front());
  for (SimPacketNetwork::Packet& packet : network_.packets_) {
    if (packet.reader == this) network_.read_payload(&packet);
    if (packet.reader == this) packet.reader = nullptr;
  }
  lower_done();
}

packet::PortLimits SimPacketPort::limits() const {
  return {network_.options_.max_packet_bytes, 64, !network_.options_.device_reads_late};
}

std::string SimPacketPort::address() const {
  std::lock_guard lock(fabric_.mutex());
  return network_.text_of(key_);
}

absl::StatusOr<packet::PeerAddress> SimPacketPort::parse(std::string_view address) const {
  if (address.empty() || address.front() == ':') {
    return invalid_argument("address \"{}\": give NODE or NODE:SERVICE", address);
  }
  std::lock_guard lock(fabric_.mutex());
  return packet::PeerAddress{network_.key_of(std::string(address)), 0};
}

std::string SimPacketPort::to_text(const packet::PeerAddress& peer) const {
  std::lock_guard lock(fabric_.mutex());
  return network_.text_of(peer.key);
}

absl::Status SimPacketPort::register_memory(Arena& arena) {
  memory_ = arena.base();
  memory_bytes_ = arena.bytes();
  return absl::OkStatus();
}

size_t SimPacketPort::send_burst(std::span<const packet::OutPacket> packets) {
  std::lock_guard lock(fabric_.mutex());
  lower_done();
  const bool late = network_.options_.device_reads_late;
  size_t sent = 0;
  for (const packet::OutPacket& out : packets) {
    if (late && in_device_ >= network_.options_.device_packets) break;
    ++sent;
    const size_t size = size_t{out.header_bytes} + out.payload_bytes;
    assert(out.header_bytes >= 1 && out.header_bytes <= packet::kMaxHeaderBytes);
    assert(size <= network_.options_.max_packet_bytes);
    ++counters_.sent_packets;
    counters_.sent_bytes += size;
    if (dead_) continue;
    const uint32_t index = network_.take_packet();
    SimPacketNetwork::Packet& packet = network_.packets_[index];
    packet.size = size;
    packet.header_bytes = out.header_bytes;
    packet.from = key_;
    packet.to = out.to.key;
    std::memcpy(packet.bytes.data(), out.header, out.header_bytes);
    if (out.payload_bytes > 0) {
      assert(out.payload >= memory_ && out.payload + out.payload_bytes <= memory_ + memory_bytes_);
      if (late) {
        packet.payload = out.payload;
        packet.device_reads = out.device_reads;
        packet.reader = this;
        ++*out.device_reads;
        ++in_device_;
      } else {
        std::memcpy(packet.bytes.data() + out.header_bytes, out.payload, out.payload_bytes);
      }
    }
    network_.transmit(index);
  }
  return sent;
}

size_t SimPacketPort::receive_burst(std::span<packet::InPacket> packets) {
  std::lock_guard lock(fabric_.mutex());
  give_back_lent();
  lower_done();
  const size_t count = std::min(packets.size(), inbox_.size());
  for (size_t i = 0; i < count; ++i) {
    const uint32_t index = inbox_.pop_front();
    const SimPacketNetwork::Packet& packet = network_.packets_[index];
    packets[i] = {{packet.from, 0}, packet.bytes.data(), static_cast<uint32_t>(packet.size)};
    ++counters_.received_packets;
    counters_.received_bytes += packet.size;
    lent_.push_back(index);
  }
  return count;
}

void SimPacketPort::give_back_lent() {
  for (uint32_t index : lent_) network_.free_packet(index);
  lent_.clear();
}

void SimPacketPort::lower_done() {
  for (uint32_t* device_reads : done_) --*device_reads;
  done_.clear();
}

void SimPacketPort::reclaim() {
  std::lock_guard lock(fabric_.mutex());
  lower_done();
}

void SimPacketPort::wait(int64_t timeout_ns) {
  std::unique_lock lock(fabric_.mutex());
  give_back_lent();
  fabric_.wait(
      lock, something_, [this] { return woken_ || !inbox_.empty(); }, timeout_ns);
  woken_ = false;
}

void SimPacketPort::wake() {
  std::lock_guard lock(fabric_.mutex());
  woken_ = true;
  something_.notify_all();
}

absl::Status SimPacketPort::health() const {
  std::lock_guard lock(fabric_.mutex());
  if (dead_) return unavailable("node {} crashed", node_);
  return absl::OkStatus();
}

packet::PortCounters SimPacketPort::counters() const {
  std::lock_guard lock(fabric_.mutex());
  return counters_;
}

}  // namespace sluice::sim
