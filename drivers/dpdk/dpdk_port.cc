#include "drivers/dpdk/dpdk_port.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/status.h"

namespace sluice::dpdk {
namespace {

// An idle port looks for packets without a pause for so long, then once in so long, then once in
// twice so long...
constexpr int64_t kSpin = 20'000;
constexpr int64_t kFirstNap = 20'000;
// ...and never later than this: what a first packet after silence may wait.
constexpr int64_t kLongestNap = 1'000'000;
constexpr unsigned long kTimerSlack = 1'000;
constexpr int64_t kCheckEvery = 1'000'000'000;
constexpr uint16_t kFirstDynamicPort = 49152;

int64_t now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

int64_t exact_now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

uint32_t ip_of(uint64_t key) { return static_cast<uint32_t>(key >> 16); }
uint16_t port_of(uint64_t key) { return static_cast<uint16_t>(key); }
uint64_t key_of(uint32_t ip, uint16_t port) { return static_cast<uint64_t>(ip) << 16 | port; }

// A MAC in a peer's hint; 0 is no MAC.
uint64_t hint_of(const Mac& mac) {
  uint64_t hint = 0;
  for (uint8_t byte : mac) hint = hint << 8 | byte;
  return hint;
}

Mac mac_of(uint64_t hint) {
  Mac mac;
  for (size_t i = 0; i < mac.size(); ++i) mac[i] = static_cast<uint8_t>(hint >> (40 - 8 * i));
  return mac;
}

uint16_t random16() {
  uint16_t value = 0;
  // With a few bytes it cannot fail once the system is up.
  if (getrandom(&value, sizeof value, 0) != sizeof value) value = static_cast<uint16_t>(getpid());
  return value;
}

}  // namespace

absl::StatusOr<std::unique_ptr<packet::PacketPort>> DpdkPort::open(const PortSettings& settings) {
  UniqueFd wake_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_fd) return errno_status(errno, "dpdk: eventfd");
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, Device::open(settings));
  if (device->mtu() < kIpv4Bytes + kUdpBytes + packet::kMinPacketBytes) {
    return failed_precondition("dpdk: device {}: an MTU of {} bytes is too small", settings.device,
                               device->mtu());
  }
  return std::unique_ptr<packet::PacketPort>(
      new DpdkPort(settings, std::move(device), std::move(wake_fd)));
}

DpdkPort::DpdkPort(const PortSettings& settings, std::unique_ptr<Device> device, UniqueFd wake_fd)
    : settings_(settings),
      device_(std::move(device)),
      wake_fd_(std::move(wake_fd)),
      loopback_(device_->mtu()) {
  self_.mac = device_->mac();
  self_.ip = settings.ip;
  self_.udp_port = settings.udp_port;
  // The device is this endpoint's alone, so any port is free; a fresh one keeps what an earlier
  // endpoint was sent away from this one.
  if (self_.udp_port == 0)
    self_.udp_port = static_cast<uint16_t>(kFirstDynamicPort + random16() % 16384);
  identification_ = random16();
  // Announces this station: switches learn where it is, and peers' questions are answered sooner.
  send_arp(true, kBroadcast, self_.ip);
}

DpdkPort::~DpdkPort() {
  release_views();
  for (size_t i = stash_begin_; i < stash_end_; ++i) device_->drop(stash_[i].owner);
}

packet::PortLimits DpdkPort::limits() const {
  packet::PortLimits limits;
  limits.max_packet_bytes = device_->mtu() - kIpv4Bytes - kUdpBytes;
  limits.max_burst = kMaxBurst;
  // Virtual devices are memory of another program or of the kernel: DPDK copies into it.
  limits.copies_on_send = device_->is_virtual();
  return limits;
}

std::string DpdkPort::address() const { return address_text(self_.ip, self_.udp_port); }

absl::StatusOr<packet::PeerAddress> DpdkPort::parse(std::string_view address) const {
  SLUICE_ASSIGN_OR_RETURN(const Ipv4Port peer, parse_address(address, /*any_port=*/false));
  return packet::PeerAddress{key_of(peer.ip, peer.port), 0};
}

std::string DpdkPort::to_text(const packet::PeerAddress& peer) const {
  return address_text(ip_of(peer.key), port_of(peer.key));
}

absl::Status DpdkPort::register_memory(Arena& arena) { return device_->register_memory(arena); }

bool DpdkPort::resolve(const packet::OutPacket& packet, int64_t now_ns, Mac* mac) {
  const uint32_t ip = ip_of(packet.to.key);
  uint32_t next_hop = ip;
  if (settings_.prefix != 0) {
    const uint32_t mask = ~uint32_t{0} << (32 - settings_.prefix);
    if ((ip & mask) != (self_.ip & mask)) next_hop = settings_.gateway;
  }
  if (next_hop == 0) {
    count(Drop::kNoRoute);
    return false;
  }
  const Neighbours::Answer answer = neighbours_.find(next_hop, now_ns);
  if (answer.ask) send_arp(true, kBroadcast, next_hop);
  if (answer.mac) {
    *mac = *answer.mac;
    return true;
  }
  // Until it answers, a peer is where its own packet came from.
  if (packet.to.hint != 0) {
    *mac = mac_of(packet.to.hint);
    return true;
  }
  if (packet.payload_bytes == 0) {
    hold(packet, next_hop);
  } else {
    count(Drop::kNoLinkAddress);
  }
  return false;
}

void DpdkPort::hold(const packet::OutPacket& packet, uint32_t next_hop) {
  Held& held = held_[next_held_];
  next_held_ = (next_held_ + 1) % held_.size();
  if (held.next_hop != 0) count(Drop::kNoLinkAddress);
  held.next_hop = next_hop;
  held.key = packet.to.key;
  held.bytes = packet.header_bytes;
  std::memcpy(held.header.data(), packet.header, packet.header_bytes);
}

void DpdkPort::send_held(uint32_t next_hop, const Mac& mac) {
  for (Held& held : held_) {
    if (held.next_hop != next_hop) continue;
    held.next_hop = 0;
    packet::OutPacket packet;
    packet.to.key = held.key;
    packet.header = held.header.data();
    packet.header_bytes = held.bytes;
    rte_mbuf* frame = frame_of(packet, mac);
    if (frame == nullptr || device_->send({&frame, 1}) == 0) {
      if (frame != nullptr) device_->drop(frame);
      count(Drop::kNoLinkAddress);
    }
  }
}

rte_mbuf* DpdkPort::frame_of(const packet::OutPacket& packet, const Mac& mac) {
  uint8_t* room = nullptr;
  rte_mbuf* frame = device_->make_frame(kFramingBytes + packet.header_bytes, &room);
  if (frame == nullptr) return nullptr;
  write_framing(room, self_, mac, ip_of(packet.to.key), port_of(packet.to.key),
                size_t{packet.header_bytes} + packet.payload_bytes, identification_++,
                !device_->sums_ipv4());
  std::memcpy(room + kFramingBytes, packet.header, packet.header_bytes);
  if (packet.payload_bytes > 0 &&
      !device_->append_payload(frame, packet.payload, packet.payload_bytes, packet.device_reads)) {
    device_->drop(frame);
    return nullptr;
  }
  return frame;
}

size_t DpdkPort::send_burst(std::span<const packet::OutPacket> packets) {
  const size_t most = std::min(packets.size(), kMaxBurst);
  const size_t largest = device_->mtu() - kIpv4Bytes - kUdpBytes;
  const int64_t now_ns = now();
  std::array<rte_mbuf*, kMaxBurst> frames;
  std::array<size_t, kMaxBurst> origin;
  size_t made = 0;
  size_t taken = 0;
  for (; taken < most; ++taken) {
    const packet::OutPacket& packet = packets[taken];
    assert(packet.header_bytes > 0 && packet.header_bytes <= packet::kMaxHeaderBytes);
    Mac mac;
    if (size_t{packet.header_bytes} + packet.payload_bytes > largest) {
      count(Drop::kTooLong);
      continue;
    }
    if (ip_of(packet.to.key) == self_.ip) {
      if (!loop_back(packet)) break;
      continue;
    }
    if (!resolve(packet, now_ns, &mac)) continue;
    rte_mbuf* frame = frame_of(packet, mac);
    if (frame == nullptr) break;
    frames[made] = frame;
    origin[made++] = taken;
  }
  const size_t sent = made == 0 ? 0 : device_->send({frames.data(), made});
  for (size_t i = sent; i < made; ++i) device_->drop(frames[i]);
  if (sent < made) taken = origin[sent];
  for (size_t i = 0; i < sent; ++i) {
    ++counters_.sent_packets;
    counters_.sent_bytes +=
        size_t{packets[origin[i]].header_bytes} + packets[origin[i]].payload_bytes;
  }
  return taken;
}

// False when it has to be sent again later. Where the device then refuses a packet before it in the
// same burst it is repeated, as packets may be.
bool DpdkPort::loop_back(const packet::OutPacket& packet) {
  if (port_of(packet.to.key) != self_.udp_port) {
    count(Drop::kOtherPort);
    return true;
  }
  if (!loopback_.push({packet.header, packet.header_bytes}, {packet.payload, packet.payload_bytes}))
    return false;
  ++counters_.sent_packets;
  counters_.sent_bytes += size_t{packet.header_bytes} + packet.payload_bytes;
  return true;
}

void DpdkPort::send_arp(bool request, const Mac& to_mac, uint32_t to_ip) {
  uint8_t* room = nullptr;
  rte_mbuf* frame = device_->make_frame(kMinFrameBytes, &room);
  if (frame == nullptr) return;
  write_arp(room, self_, request, to_mac, to_ip);
  if (device_->send({&frame, 1}) == 0) device_->drop(frame);
}

void DpdkPort::take_arp(const ArpMessage& arp) {
  if (arp.sender_ip == self_.ip || (arp.request && arp.target_ip != self_.ip)) {
    count(Drop::kOtherIp);
    return;
  }
  const int64_t now_ns = now();
  if (arp.request) {
    neighbours_.asked_us(arp.sender_ip, arp.sender_mac, now_ns);
    send_arp(false, arp.sender_mac, arp.sender_ip);
  } else if (!neighbours_.answered(arp.sender_ip, arp.sender_mac, now_ns)) {
    count(Drop::kBadArp);
    return;
  }
  send_held(arp.sender_ip, arp.sender_mac);
}

void DpdkPort::release_views() {
  for (size_t i = 0; i < views_count_; ++i) device_->drop(views_[i]);
  views_count_ = 0;
  loopback_.release_taken();
}

bool DpdkPort::fill_stash() {
  if (stash_begin_ < stash_end_) return true;
  stash_begin_ = 0;
  stash_end_ = device_->receive(stash_);
  return stash_end_ > 0;
}

size_t DpdkPort::receive_burst(std::span<packet::InPacket> packets) {
  release_views();
  look_after_device(now());
  const size_t most = std::min(packets.size(), kMaxBurst);
  size_t taken = 0;
  const packet::PeerAddress self{key_of(self_.ip, self_.udp_port), 0};
  // At most half of a burst, so that neither way waits for the other.
  for (; !loopback_.empty() && taken < (most + 1) / 2; ++taken) {
    const std::span<const uint8_t> bytes = loopback_.take();
    packets[taken] = {self, bytes.data(), static_cast<uint32_t>(bytes.size())};
    ++counters_.received_packets;
    counters_.received_bytes += bytes.size();
  }
  if (!fill_stash()) return taken;
  for (; stash_begin_ < stash_end_ && taken < most; ++stash_begin_) {
    const Device::Received& received = stash_[stash_begin_];
    Frame frame;
    frame.drop = received.bytes.empty()  ? Drop::kSegmented
                 : received.checksum_bad ? Drop::kIpv4Checksum
                                         : Drop::kNone;
    if (frame.drop == Drop::kNone)
      frame = parse_frame(received.bytes, self_, {.ipv4_good = received.ipv4_good});
    if (frame.kind == FrameKind::kPacket) {
      packet::InPacket& packet = packets[taken];
      packet.from = {key_of(frame.source_ip, frame.source_port), hint_of(frame.source_mac)};
      packet.data = frame.payload.data();
      packet.bytes = static_cast<uint32_t>(frame.payload.size());
      ++counters_.received_packets;
      counters_.received_bytes += frame.payload.size();
      views_[views_count_++] = received.owner;
      ++taken;
      continue;
    }
    if (frame.kind == FrameKind::kArp) {
      take_arp(frame.arp);
    } else {
      count(frame.drop);
    }
    device_->drop(received.owner);
  }
  return taken;
}

void DpdkPort::reclaim() { device_->reclaim(); }

void DpdkPort::wait(int64_t timeout_ns) {
  release_views();
  const int64_t begin = exact_now();
  int64_t nap = kFirstNap;
  while (loopback_.empty() && !fill_stash()) {
    if (woken_.exchange(false, std::memory_order_acquire)) return;
    const int64_t now_ns = exact_now();
    const int64_t left = timeout_ns - (now_ns - begin);
    if (left <= 0) return;
    if (settings_.polling == Polling::kBusy) continue;
    if (now_ns - begin < kSpin) {
      // The peer may be on this very core.
      sched_yield();
      continue;
    }
    sleep_for(std::min(nap, left));
    nap = std::min(nap * 2, kLongestNap);
  }
}

void DpdkPort::sleep_for(int64_t nanoseconds) {
  // Without it the kernel makes a sleep of 20 us one of 70. It is the thread's own.
  thread_local const int precise = prctl(PR_SET_TIMERSLACK, kTimerSlack, 0, 0, 0);
  (void)precise;
  pollfd woken{wake_fd_.get(), POLLIN, 0};
  const timespec time{nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  ++counters_.system_calls;
  if (ppoll(&woken, 1, &time, nullptr) <= 0) return;
  uint64_t value = 0;
  if (read(wake_fd_.get(), &value, sizeof value) < 0 && errno != EAGAIN)
    health_ = errno_status(errno, "dpdk: eventfd");
}

void DpdkPort::wake() {
  woken_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  // Fails only when it is already full of wakes.
  [[maybe_unused]] const ssize_t written = write(wake_fd_.get(), &one, sizeof one);
}

void DpdkPort::look_after_device(int64_t now_ns) {
  if (now_ns - checked_ns_ < kCheckEvery) return;
  checked_ns_ = now_ns;
  ++counters_.system_calls;
  if (health_.ok()) health_ = device_->check();
}

packet::PortCounters DpdkPort::counters() const {
  packet::PortCounters result = counters_;
  for (size_t i = 1; i < kDropReasons; ++i) {
    uint64_t value = drops_[i];
    if (static_cast<Drop>(i) == Drop::kDevice) value = device_->missed();
    if (value > 0) result.drops.emplace_back(drop_name(static_cast<Drop>(i)), value);
  }
  return result;
}

}  // namespace sluice::dpdk
