#include "drivers/rdma/device.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "drivers/rdma/probe.h"

namespace sluice::rdma {
namespace {

// Room for many connections in one queue, which is polled as one.
constexpr size_t kQueueEntries = 16'384;

// Events are acknowledged in batches, since each batch takes a lock.
constexpr unsigned kAcknowledgeAt = 64;

absl::Status set_nonblocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return errno_status(errno, "rdma: fcntl");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> Device::open(ibv_device* device, const RdmaOptions& options,
                                                     const Arena& arena,
                                                     std::span<uint8_t> control) {
  std::unique_ptr<Device> made(new Device(device));
  SLUICE_RETURN_IF_ERROR(made->set_up(device, options, arena, control));
  return absl::StatusOr<std::unique_ptr<Device>>(std::move(made));
}

absl::Status Device::set_up(ibv_device* device, const RdmaOptions& options, const Arena& arena,
                            std::span<uint8_t> control) {
  context_.reset(ibv_open_device(device));
  if (context_ == nullptr) {
    return errno_status(errno,
                        fmt::format("rdma: open device {} (/dev/infiniband/uverbs*)", name_));
  }
  if (ibv_query_device(context_.get(), &attributes_) != 0) {
    return errno_status(errno, fmt::format("rdma: query device {}", name_));
  }
  const size_t depth = std::max(options.receive_depth, options.send_depth);
  if (static_cast<size_t>(attributes_.max_qp_wr) < depth) {
    return failed_precondition("rdma: device {} allows a queue depth of {}; {} are asked for",
                               name_, attributes_.max_qp_wr, depth);
  }
  domain_.reset(ibv_alloc_pd(context_.get()));
  if (domain_ == nullptr) {
    return errno_status(errno, fmt::format("rdma: protection domain on {}", name_));
  }
  SLUICE_ASSIGN_OR_RETURN(arena_region_, register_memory(arena.base(), arena.bytes()));
  SLUICE_ASSIGN_OR_RETURN(control_region_, register_memory(control.data(), control.size()));
  channel_.reset(ibv_create_comp_channel(context_.get()));
  if (channel_ == nullptr) {
    return errno_status(errno, fmt::format("rdma: completion channel on {}", name_));
  }
  SLUICE_RETURN_IF_ERROR(set_nonblocking(channel_->fd));
  return set_nonblocking(context_->async_fd);
}

absl::StatusOr<UniqueRegion> Device::register_memory(void* data, size_t bytes) const {
  constexpr int kAccess = IBV_ACCESS_LOCAL_WRITE;  // nothing for peers
  UniqueRegion region(ibv_reg_mr(domain_.get(), data, bytes, kAccess));
  if (region != nullptr) return absl::StatusOr<UniqueRegion>(std::move(region));
  if (errno == ENOMEM || errno == EAGAIN || errno == EPERM) {
    return resource_exhausted(
        "rdma: device {} cannot pin {} KiB of the arena: the limit on locked memory is {}; raise "
        "it with 'ulimit -l unlimited' or LimitMEMLOCK=infinity in the service, or make the arena "
        "smaller",
        name_, (bytes + 1023) / 1024, memlock_text());
  }
  return errno_status(errno, fmt::format("rdma: register {} bytes with {}", bytes, name_));
}

absl::Status Device::check_port(uint8_t port) const {
  ibv_port_attr state{};
  if (ibv_query_port(context_.get(), port, &state) != 0) {
    return errno_status(errno, fmt::format("rdma: query port {} of {}", port, name_));
  }
  if (state.state == IBV_PORT_ACTIVE) return absl::OkStatus();
  return unavailable(
      "RDMA device {1}: port {0} is {2}; bring its interface up ('ip link set INTERFACE up') and "
      "check cable and switch",
      port, name_, ibv_port_state_str(state.state));
}

absl::StatusOr<CompletionQueue*> Device::reserve(size_t entries) {
  for (const auto& queue : queues_) {
    if (queue->capacity - queue->reserved < entries) continue;
    queue->reserved += entries;
    return queue.get();
  }
  const auto most = static_cast<size_t>(std::max(attributes_.max_cqe, 0));
  const size_t size = std::min(std::max(entries, kQueueEntries), most);
  if (size < entries) {
    return failed_precondition("rdma: device {} allows {} completions in a queue; {} are needed",
                               name_, most, entries);
  }
  ibv_cq* queue = ibv_create_cq(context_.get(), static_cast<int>(size), nullptr, channel_.get(), 0);
  if (queue == nullptr) {
    return errno_status(errno, fmt::format("rdma: completion queue on {}", name_));
  }
  auto made = std::make_unique<CompletionQueue>(queue);
  made->capacity = size;
  made->reserved = entries;
  queue->cq_context = made.get();
  queues_.push_back(std::move(made));
  return queues_.back().get();
}

bool Device::arm() {
  for (const auto& queue : queues_) {
    if (queue->armed) continue;
    if (ibv_req_notify_cq(queue->queue.get(), 0) != 0) return false;
    queue->armed = true;
  }
  return true;
}

uint64_t Device::take_completion_events() {
  uint64_t calls = 0;
  ibv_cq* queue = nullptr;
  void* context = nullptr;
  // An armed queue makes one event.
  auto left =
      std::count_if(queues_.begin(), queues_.end(), [](const auto& one) { return one->armed; });
  for (; left > 0; --left) {
    ++calls;
    if (ibv_get_cq_event(channel_.get(), &queue, &context) != 0) break;
    auto* const owner = static_cast<CompletionQueue*>(context);
    owner->armed = false;
    if (++owner->unacknowledged < kAcknowledgeAt) continue;
    ibv_ack_cq_events(queue, owner->unacknowledged);
    owner->unacknowledged = 0;
  }
  return calls;
}

std::optional<ibv_async_event> Device::next_event() {
  ibv_async_event event{};
  if (ibv_get_async_event(context_.get(), &event) != 0) return std::nullopt;
  ibv_ack_async_event(&event);
  return event;
}

}  // namespace sluice::rdma
