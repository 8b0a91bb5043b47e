#include "drivers/sim/packet_network.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "drivers/sim/packet_port.h"

namespace sluice {
namespace {

std::string node_of(std::string_view address) {
  return std::string(address.substr(0, address.find(':')));
}

}  // namespace

SimPacketNetwork::SimPacketNetwork(SimFabric& fabric, const SimPacketOptions& options)
    : fabric_(fabric),
      options_(options),
      ns_per_byte_(1e9 / static_cast<double>(options.bytes_per_second != 0
                                                 ? options.bytes_per_second
                                                 : fabric.options().bytes_per_second)),
      random_(options.seed) {}

SimPacketNetwork::~SimPacketNetwork() { assert(ports_.empty()); }

absl::StatusOr<std::unique_ptr<packet::PacketPort>> SimPacketNetwork::open(
    const std::string& node, std::string_view listen) {
  std::lock_guard lock(fabric_.mutex());
  if (fabric_.crashed(node)) return unavailable("node {} has crashed", node);
  if (!listen.empty() && node_of(listen) != node) {
    return invalid_argument("listen on \"{}\": give {} or {}:SERVICE", listen, node, node);
  }
  const std::string address =
      listen.empty() ? fmt::format("{}:any{}", node, next_service_++) : std::string(listen);
  const uint64_t key = key_of(address);
  if (ports_.contains(key)) {
    return failed_precondition("listen on {}: another endpoint does", address);
  }
  auto port = std::make_unique<sim::SimPacketPort>(*this, node, key);
  ports_.emplace(key, port.get());
  fabric_.attach(node, port.get());
  return absl::StatusOr<std::unique_ptr<packet::PacketPort>>(std::move(port));
}

void SimPacketNetwork::set_faults(const SimPacketOptions& options) {
  std::lock_guard lock(fabric_.mutex());
  options_.loss = options.loss;
  options_.duplicate = options.duplicate;
  options_.corrupt = options.corrupt;
  options_.reorder = options.reorder;
  options_.reorder_ns = options.reorder_ns;
}

SimPacketCounters SimPacketNetwork::counters() const {
  std::lock_guard lock(fabric_.mutex());
  return counters_;
}

void SimPacketNetwork::inject(std::string_view from, std::string_view to, std::string_view bytes) {
  std::lock_guard lock(fabric_.mutex());
  const uint32_t index = take_packet();
  Packet& packet = packets_[index];
  packet.size = std::min(bytes.size(), packet.bytes.size());
  packet.header_bytes = packet.size;
  packet.from = key_of(std::string(from));
  packet.to = key_of(std::string(to));
  std::memcpy(packet.bytes.data(), bytes.data(), packet.size);
  transmit(index);
}

uint64_t SimPacketNetwork::key_of(const std::string& address) {
  const auto [found, added] = keys_.emplace(address, texts_.size() + 1);
  if (added) {
    texts_.push_back(address);
    nodes_.push_back(node_of(address));
    const auto [link, first] = link_numbers_.emplace(nodes_.back(), links_.size());
    if (first) links_.emplace_back();
    link_of_.push_back(link->second);
  }
  return found->second;
}

const std::string& SimPacketNetwork::text_of(uint64_t key) const { return texts_.at(key - 1); }

uint32_t SimPacketNetwork::take_packet() {
  if (free_.empty()) {
    packets_.emplace_back();
    packets_.back().bytes.resize(options_.max_packet_bytes);
    free_.push_back(static_cast<uint32_t>(packets_.size() - 1));
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  packets_[index].payload = nullptr;
  packets_[index].reader = nullptr;
  return index;
}

void SimPacketNetwork::free_packet(uint32_t index) {
  read_payload(&packets_[index]);
  free_.push_back(index);
}

// What a device does when its turn comes, maybe long after the packet was accepted.
void SimPacketNetwork::read_payload(Packet* packet) {
  if (packet->payload == nullptr) return;
  std::memcpy(packet->bytes.data() + packet->header_bytes, packet->payload,
              packet->size - packet->header_bytes);
  packet->payload = nullptr;
  packet->reader->done_.push_back(packet->device_reads);
  --packet->reader->in_device_;
}

void SimPacketNetwork::transmit(uint32_t index) {
  ++counters_.sent;
  Packet& packet = packets_[index];
  const std::string& from = nodes_[packet.from - 1];
  const std::string& to = nodes_[packet.to - 1];
  if (fabric_.partitioned(from, to) || fabric_.crashed(from)) {
    ++counters_.partition_drops;
    free_packet(index);
    return;
  }
  const int64_t now = fabric_.now_locked();
  if (random_.chance(options_.duplicate)) {
    ++counters_.duplicated;
    const uint32_t second = take_packet();
    Packet& copy = packets_[second];
    const Packet& original = packets_[index];
    copy.size = original.size;
    copy.header_bytes = original.header_bytes;
    copy.from = original.from;
    copy.to = original.to;
    std::memcpy(copy.bytes.data(), original.bytes.data(), original.header_bytes);
    const uint8_t* payload = original.payload != nullptr
                                 ? original.payload
                                 : original.bytes.data() + original.header_bytes;
    std::memcpy(copy.bytes.data() + copy.header_bytes, payload, copy.size - copy.header_bytes);
    put_on_wire(second, now);
  }
  put_on_wire(index, now);
}

void SimPacketNetwork::put_on_wire(uint32_t index, int64_t now) {
  Packet& packet = packets_[index];
  const auto wire_ns = static_cast<int64_t>(static_cast<double>(packet.size) * ns_per_byte_);
  Link& up = links_[link_of_[packet.from - 1]];
  up.up_free_ns = std::max(up.up_free_ns, now) + wire_ns;
  const int64_t at_switch = up.up_free_ns + fabric_.options().delay_ns / 2;
  if (random_.chance(options_.loss)) {
    ++counters_.lost;
    free_packet(index);
    return;
  }
  // Small enough for std::function to hold without allocating.
  fabric_.schedule(at_switch, [this, index] { queue_for_receiver(index); });
}

void SimPacketNetwork::queue_for_receiver(uint32_t index) {
  const Packet& packet = packets_[index];
  const auto wire_ns = static_cast<int64_t>(static_cast<double>(packet.size) * ns_per_byte_);
  const int64_t now = fabric_.now_locked();
  Link& down = links_[link_of_[packet.to - 1]];
  const int64_t queued_ns = std::max<int64_t>(down.down_free_ns - now, 0);
  const auto queued = static_cast<size_t>(static_cast<double>(queued_ns) / ns_per_byte_);
  if (queued + packet.size > options_.queue_bytes) {
    ++counters_.queue_drops;
    free_packet(index);
    return;
  }
  counters_.largest_queue_bytes = std::max(counters_.largest_queue_bytes, queued + packet.size);
  down.down_free_ns = std::max(down.down_free_ns, now) + wire_ns;
  int64_t arrival = down.down_free_ns + fabric_.options().delay_ns / 2;
  if (fabric_.options().jitter_ns > 0) {
    arrival +=
        static_cast<int64_t>(random_.below(static_cast<uint64_t>(fabric_.options().jitter_ns) + 1));
  }
  if (random_.chance(options_.reorder)) {
    ++counters_.reordered;
    arrival += static_cast<int64_t>(random_.below(static_cast<uint64_t>(options_.reorder_ns) + 1));
  }
  fabric_.schedule(arrival, [this, index] { arrive(index); });
}

void SimPacketNetwork::arrive(uint32_t index) {
  Packet& packet = packets_[index];
  const auto found = ports_.find(packet.to);
  sim::SimPacketPort* const port = found == ports_.end() ? nullptr : found->second;
  if (port == nullptr || port->dead_) {
    ++counters_.nobody;
    free_packet(index);
    return;
  }
  if (port->inbox_.size() >= options_.inbox_packets) {
    ++counters_.inbox_drops;
    free_packet(index);
    return;
  }
  read_payload(&packet);
  if (random_.chance(options_.corrupt)) damage(&packet);
  ++counters_.delivered;
  if (tap_) tap_(text_of(packet.from), text_of(packet.to), {packet.bytes.data(), packet.size});
  port->inbox_.push_back(index);
  port->something_.notify_all();
}

void SimPacketNetwork::damage(Packet* packet) {
  ++counters_.corrupted;
  if (random_.chance(0.1)) {
    packet->size = random_.below(packet->size);
    return;
  }
  for (uint64_t flips = 1 + random_.below(3); flips > 0; --flips) {
    const uint64_t bit = random_.below(packet->size * 8);
    packet->bytes[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
  }
}

}  // namespace sluice
