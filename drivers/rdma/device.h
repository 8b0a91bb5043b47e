// One RDMA device as one endpoint uses it: a context of its own (so that events of other endpoints
// stay theirs), the protection domain, the registered arena, and completion queues.
//
// Confined to the endpoint's thread. Outlives the queue pairs that are made on it.
#ifndef SLUICE_DRIVERS_RDMA_DEVICE_H_
#define SLUICE_DRIVERS_RDMA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "drivers/rdma/rdma.h"
#include "drivers/rdma/verbs.h"

namespace sluice::rdma {

// A completion queue that some connections share. Each connection reserves room for all the
// completions that it can ever have outstanding, so that the queue cannot overflow.
struct CompletionQueue {
  explicit CompletionQueue(ibv_cq* made) : queue(made) {}
  ~CompletionQueue() {
    if (unacknowledged > 0) ibv_ack_cq_events(queue.get(), unacknowledged);
  }
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  // Its queue pairs are gone, but completions of them may still stand in the queue.
  void retire(size_t entries) { retired += entries; }
  void seen_empty() {
    reserved -= retired;
    retired = 0;
  }

  UniqueQueue queue;
  size_t capacity = 0;
  size_t reserved = 0;
  size_t retired = 0;
  bool armed = false;
  unsigned unacknowledged = 0;
};

class Device {
 public:
  // `control`: the endpoint's memory for control frames.
  static absl::StatusOr<std::unique_ptr<Device>> open(ibv_device* device,
                                                      const RdmaOptions& options,
                                                      const Arena& arena,
                                                      std::span<uint8_t> control);

  const std::string& name() const { return name_; }
  ibv_context* context() const { return context_.get(); }
  ibv_pd* domain() const { return domain_.get(); }
  uint32_t arena_key() const { return arena_region_->lkey; }
  uint32_t control_key() const { return control_region_->lkey; }

  // UNAVAILABLE when the port is not active.
  absl::Status check_port(uint8_t port) const;
  // A queue with room for `entries` more, which are then reserved.
  absl::StatusOr<CompletionQueue*> reserve(size_t entries);
  const std::vector<std::unique_ptr<CompletionQueue>>& queues() const { return queues_; }
  // Asks for an event at the next completion of any queue. False: it cannot.
  bool arm();
  // Takes the events that came. How many system calls that took.
  uint64_t take_completion_events();
  // The next asynchronous event, already acknowledged.
  std::optional<ibv_async_event> next_event();
  int completion_fd() const { return channel_->fd; }
  int event_fd() const { return context_->async_fd; }

 private:
  explicit Device(ibv_device* device) : name_(ibv_get_device_name(device)) {}
  absl::Status set_up(ibv_device* device, const RdmaOptions& options, const Arena& arena,
                      std::span<uint8_t> control);
  absl::StatusOr<UniqueRegion> register_memory(void* data, size_t bytes) const;

  const std::string name_;
  UniqueContext context_;
  ibv_device_attr attributes_{};
  UniqueDomain domain_;
  UniqueRegion arena_region_;
  UniqueRegion control_region_;
  UniqueChannel channel_;
  std::vector<std::unique_ptr<CompletionQueue>> queues_;
};

}  // namespace sluice::rdma

#endif  // SLUICE_DRIVERS_RDMA_DEVICE_H_
