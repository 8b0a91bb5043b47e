#include "drivers/dpdk/device.h"

#include <net/if.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/status.h"
#include "drivers/dpdk/eal.h"

namespace sluice::dpdk {
namespace {

constexpr uint16_t kReceiveDescriptors = 1024;
constexpr uint16_t kTransmitDescriptors = 1024;
constexpr unsigned kReceiveSpare = 2 * kMaxBurst + 64;
// Headers that can wait in the transmit queue, and those being made.
constexpr unsigned kHeaders = kTransmitDescriptors + 4 * kMaxBurst;
constexpr size_t kHeaderRoom = 512;
constexpr uint16_t kDefaultMtu = 1500;
// What memif is given when nobody says: jumbo frames.
constexpr uint16_t kMemifMtu = 9000;
// 256 frames, a millisecond at 20 Gbit/s: a larger ring is in no cache when its turn comes again.
constexpr size_t kMemifRingLog = 8;
// Room in an af_packet ring frame before the data: the ring's header, aligned.
constexpr size_t kRingHeader = 96;
constexpr size_t kRingBytes = size_t{4} << 20;

// Behind each payload mbuf: what DPDK calls when the device has let go.
struct PayloadNote {
  rte_mbuf_ext_shared_info shared;
  uint32_t* device_reads;
};

void payload_freed(void*, void* note) { --*static_cast<PayloadNote*>(note)->device_reads; }

absl::StatusOr<int> interface_mtu(const std::string& interface) {
  ifreq request{};
  if (interface.empty() || interface.size() >= sizeof request.ifr_name)
    return invalid_argument("dpdk: net_af_packet needs iface=INTERFACE");
  std::memcpy(request.ifr_name, interface.data(), interface.size());
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return errno_status(errno, "dpdk: socket");
  if (ioctl(fd.get(), SIOCGIFMTU, &request) != 0) {
    return not_found("dpdk: interface {}: {}; 'ip link' lists the interfaces", interface,
                     std::strerror(errno));
  }
  return request.ifr_mtu;
}

// One pool for a queue that one thread feeds and drains. A stack: the buffer that was used last is
// still in the processor's cache, the one that was used first is not.
absl::StatusOr<rte_mempool*> make_pool(std::string_view what, uint16_t port, unsigned count,
                                       size_t room, size_t note) {
  static std::atomic<uint32_t> made{0};
  const std::string name = fmt::format("sluice{}{}{}", what, port, made++);
  rte_mempool* pool =
      rte_pktmbuf_pool_create_by_ops(name.c_str(), count, 0, static_cast<uint16_t>(note),
                                     static_cast<uint16_t>(room), SOCKET_ID_ANY, "stack");
  if (pool == nullptr) {
    return resource_exhausted(
        "dpdk: no memory for {} buffers of {} bytes: {}; {}", count, room, rte_strerror(rte_errno),
        eal_has_huge_pages() ? "reserve more huge pages: 'sysctl vm.nr_hugepages=1024'"
                             : "reserve huge pages, or add -m MEGABYTES to SLUICE_DPDK_EAL");
  }
  return pool;
}

absl::Status device_error(std::string_view what, const std::string& name, int result) {
  return failed_precondition("dpdk: device {}: {}: {} ({})", name, what, rte_strerror(-result),
                             take_last_complaint());
}

}  // namespace

absl::StatusOr<std::string> completed_arguments(const PortSettings& settings) {
  std::string arguments = settings.arguments;
  const auto add = [&arguments](std::string_view name, size_t value) {
    if (!argument_of(arguments, name).empty()) return;
    arguments += fmt::format("{}{}={}", arguments.empty() ? "" : ",", name, value);
  };
  if (settings.device.rfind("net_af_packet", 0) == 0) {
    SLUICE_ASSIGN_OR_RETURN(const int mtu,
                            interface_mtu(std::string(argument_of(arguments, "iface"))));
    // A block of the ring is whole pages and whole frames.
    size_t frame = 2048;
    while (frame < static_cast<size_t>(mtu) + kEthernetBytes + kRingHeader)
      frame += frame < 4096 ? 2048 : 1024;
    const size_t block = frame <= 4096 ? 4096 : frame * 4;
    if (!argument_of(arguments, "framesz").empty()) return arguments;
    add("framesz", frame);
    add("blocksz", block);
    add("framecnt", kRingBytes / frame / (block / frame) * (block / frame));
    add("qdisc_bypass", 1);
  } else if (settings.device.rfind("net_memif", 0) == 0) {
    add("bsize", settings.mtu != 0 ? settings.mtu + 216u : 9216u);
    add("rsize", kMemifRingLog);
  }
  return arguments;
}

Device::Device(uint16_t port, std::string name, bool is_virtual)
    : port_(port), name_(std::move(name)), virtual_(is_virtual) {}

Device::~Device() {
  if (mapped_) {
    rte_eth_dev_info info{};
    rte_eth_dev_stop(port_);
    if (rte_eth_dev_info_get(port_, &info) == 0) {
      rte_dev_dma_unmap(info.device, arena_->base(), reinterpret_cast<uint64_t>(arena_->base()),
                        arena_->bytes());
    }
  }
  give_back_device(port_);
  rte_mempool_free(received_);
  rte_mempool_free(headers_);
  rte_mempool_free(payloads_);
  if (arena_ != nullptr) forget_memory(*arena_);
}

absl::StatusOr<std::unique_ptr<Device>> Device::open(const PortSettings& settings) {
  SLUICE_RETURN_IF_ERROR(begin_eal());
  SLUICE_ASSIGN_OR_RETURN(const std::string arguments, completed_arguments(settings));
  SLUICE_ASSIGN_OR_RETURN(const uint16_t port, take_device(settings.device, arguments));
  std::unique_ptr<Device> device(
      new Device(port, settings.device, is_virtual_device(settings.device)));
  PortSettings completed = settings;
  completed.arguments = arguments;
  SLUICE_RETURN_IF_ERROR(device->set_up(completed));
  return device;
}

absl::Status Device::find_mtu(uint16_t wanted, uint16_t largest) {
  uint16_t mtu = kDefaultMtu;
  if (interface_ != 0) {
    char interface[IF_NAMESIZE] = {};
    if (if_indextoname(static_cast<unsigned>(interface_), interface) != nullptr) {
      SLUICE_ASSIGN_OR_RETURN(const int found, interface_mtu(interface));
      mtu = static_cast<uint16_t>(std::min(found, 9600));
    }
  } else if (driver_name_ == "net_memif") {
    mtu = kMemifMtu;
  }
  if (wanted != 0) {
    const uint16_t most = interface_ != 0 ? mtu : (virtual_ ? wanted : largest);
    if (wanted > most) {
      return invalid_argument(
          "dpdk: mtu={}: device {} takes at most {}{}", wanted, name_, most,
          interface_ != 0 ? "; 'ip link set INTERFACE mtu BYTES' changes it" : "");
    }
    mtu = wanted;
  }
  mtu_ = mtu;
  return absl::OkStatus();
}

absl::Status Device::make_pools(size_t frame_bytes, size_t header_bytes) {
  frame_room_ = RTE_PKTMBUF_HEADROOM + (frame_bytes + 1023) / 1024 * 1024;
  SLUICE_ASSIGN_OR_RETURN(
      received_, make_pool("r", port_, kReceiveDescriptors + kReceiveSpare, frame_room_, 0));
  SLUICE_ASSIGN_OR_RETURN(headers_, make_pool("h", port_, kHeaders, header_bytes, 0));
  SLUICE_ASSIGN_OR_RETURN(
      payloads_,
      make_pool("p", port_, kHeaders, 0, RTE_ALIGN(sizeof(PayloadNote), RTE_MBUF_PRIV_ALIGN)));
  return absl::OkStatus();
}

absl::Status Device::set_up(const PortSettings& settings) {
  rte_eth_dev_info info{};
  if (const int result = rte_eth_dev_info_get(port_, &info); result != 0)
    return device_error("its capabilities", name_, result);
  interface_ = static_cast<int>(info.if_index);
  driver_name_ = info.driver_name;
  SLUICE_RETURN_IF_ERROR(find_mtu(settings.mtu, info.max_mtu));
  if ((info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) == 0 && !virtual_) {
    return failed_precondition(
        "dpdk: device {} cannot send a frame from two places in memory, which blocks need", name_);
  }
  rte_eth_conf conf{};
  if (!virtual_) {
    conf.rxmode.mtu = static_cast<uint32_t>(mtu_);
    conf.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
  }
  conf.txmode.offloads =
      info.tx_offload_capa & (RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
  sums_ipv4_ = (conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0;
  checks_ = (conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) != 0;
  if (const int result = rte_eth_dev_configure(port_, 1, 1, &conf); result != 0)
    return device_error("one queue each way", name_, result);

  size_t frame = mtu_ + kEthernetBytes + 8;
  size_t header = RTE_PKTMBUF_HEADROOM + kHeaderRoom;
  for (const char* argument : {"framesz", "bsize"}) {
    const std::string text(argument_of(settings.arguments, argument));
    frame = std::max(frame, static_cast<size_t>(std::atol(text.c_str())));
  }
  // memif copies a frame segment by segment into buffers of bsize, without looking at their length,
  // unless the first segment's buffer could hold more than bsize.
  if (driver_name_ == "net_memif") header = RTE_PKTMBUF_HEADROOM + frame + 1024;
  SLUICE_RETURN_IF_ERROR(make_pools(frame, header));

  uint16_t receive = kReceiveDescriptors;
  uint16_t transmit = kTransmitDescriptors;
  rte_eth_dev_adjust_nb_rx_tx_desc(port_, &receive, &transmit);
  receive = std::min(receive, kReceiveDescriptors);
  rte_eth_txconf transmit_conf = info.default_txconf;
  transmit_conf.offloads = conf.txmode.offloads;
  int result = rte_eth_rx_queue_setup(port_, 0, receive, SOCKET_ID_ANY, nullptr, received_);
  if (result != 0) return device_error("its receive queue", name_, result);
  result = rte_eth_tx_queue_setup(port_, 0, transmit, SOCKET_ID_ANY, &transmit_conf);
  if (result != 0) return device_error("its transmit queue", name_, result);
  return start();
}

absl::Status Device::start() {
  if (const int result = rte_eth_dev_start(port_); result != 0)
    return device_error("cannot start", name_, result);
  rte_ether_addr mac{};
  if (const int result = rte_eth_macaddr_get(port_, &mac); result != 0)
    return device_error("its MAC", name_, result);
  std::memcpy(mac_.data(), mac.addr_bytes, mac_.size());
  return absl::OkStatus();
}

absl::Status Device::register_memory(Arena& arena) {
  assert(arena_ == nullptr);
  SLUICE_RETURN_IF_ERROR(know_memory(arena));
  arena_ = &arena;
  if (virtual_) return absl::OkStatus();
  // A card reads by the addresses of its IOMMU, which are the program's own.
  if (rte_eal_iova_mode() != RTE_IOVA_VA) {
    return failed_precondition(
        "dpdk: device {} cannot reach the arena without an IOMMU: switch it on (intel_iommu=on or "
        "amd_iommu=on on the kernel's command line) and bind the card to vfio-pci",
        name_);
  }
  rte_eth_dev_info info{};
  rte_eth_dev_info_get(port_, &info);
  const uint64_t base = reinterpret_cast<uint64_t>(arena.base());
  if (rte_dev_dma_map(info.device, arena.base(), base, arena.bytes()) != 0) {
    return failed_precondition(
        "dpdk: device {}: the arena cannot be mapped: {}; raise the limit of locked memory "
        "('ulimit -l unlimited')",
        name_, rte_strerror(rte_errno));
  }
  mapped_ = true;
  return absl::OkStatus();
}

rte_mbuf* Device::make_frame(size_t bytes, uint8_t** room) {
  assert(bytes <= kHeaderRoom);
  rte_mbuf* frame = rte_pktmbuf_alloc(headers_);
  if (frame == nullptr) return nullptr;
  *room = reinterpret_cast<uint8_t*>(rte_pktmbuf_append(frame, static_cast<uint16_t>(bytes)));
  if (sums_ipv4_) {
    frame->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    frame->l2_len = kEthernetBytes;
    frame->l3_len = kIpv4Bytes;
  }
  return frame;
}

bool Device::append_payload(rte_mbuf* frame, const uint8_t* payload, size_t bytes,
                            uint32_t* device_reads) {
  rte_mbuf* segment = rte_pktmbuf_alloc(payloads_);
  if (segment == nullptr) return false;
  auto* note = static_cast<PayloadNote*>(rte_mbuf_to_priv(segment));
  note->device_reads = device_reads;
  note->shared.free_cb = payload_freed;
  note->shared.fcb_opaque = note;
  rte_mbuf_ext_refcnt_set(&note->shared, 1);
  auto* data = const_cast<uint8_t*>(payload);  // DPDK has no read-only buffers; devices only read
  rte_pktmbuf_attach_extbuf(segment, data, reinterpret_cast<rte_iova_t>(data),
                            static_cast<uint16_t>(bytes), &note->shared);
  segment->data_off = 0;
  segment->data_len = static_cast<uint16_t>(bytes);
  segment->pkt_len = static_cast<uint32_t>(bytes);
  ++*device_reads;
  frame->next = segment;
  frame->nb_segs = 2;
  frame->pkt_len += static_cast<uint32_t>(bytes);
  return true;
}

void Device::drop(rte_mbuf* frame) { rte_pktmbuf_free(frame); }

size_t Device::send(std::span<rte_mbuf*> frames) {
  return rte_eth_tx_burst(port_, 0, frames.data(), static_cast<uint16_t>(frames.size()));
}

void Device::reclaim() { rte_eth_tx_done_cleanup(port_, 0, 0); }

size_t Device::receive(std::span<Received> frames) {
  rte_mbuf* mbufs[kMaxBurst];
  const size_t most = std::min(frames.size(), kMaxBurst);
  const size_t count = rte_eth_rx_burst(port_, 0, mbufs, static_cast<uint16_t>(most));
  for (size_t i = 0; i < count; ++i) {
    rte_mbuf* mbuf = mbufs[i];
    Received& frame = frames[i];
    frame.owner = mbuf;
    frame.bytes = {};
    // A length that the buffer does not have must not be believed, whoever wrote it.
    if (mbuf->nb_segs == 1 && mbuf->data_len <= frame_room_ - RTE_PKTMBUF_HEADROOM)
      frame.bytes = {rte_pktmbuf_mtod(mbuf, const uint8_t*), mbuf->data_len};
    const uint64_t ipv4 = mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
    frame.ipv4_good = checks_ && ipv4 == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
    frame.checksum_bad = checks_ && ipv4 == RTE_MBUF_F_RX_IP_CKSUM_BAD;
  }
  return count;
}

absl::Status Device::check() const {
  if (interface_ != 0) {
    char interface[IF_NAMESIZE] = {};
    if (if_indextoname(static_cast<unsigned>(interface_), interface) == nullptr)
      return unavailable("dpdk: the interface of device {} is gone", name_);
  }
  if (!virtual_ && rte_eth_dev_is_removed(port_) != 0)
    return unavailable("dpdk: device {} was removed", name_);
  return absl::OkStatus();
}

uint64_t Device::missed() const {
  rte_eth_stats stats{};
  if (rte_eth_stats_get(port_, &stats) != 0) return 0;
  return stats.imissed + stats.ierrors + stats.rx_nombuf;
}

}  // namespace sluice::dpdk
