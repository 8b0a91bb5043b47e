// The loop of one rdma endpoint: its devices and their completion queues, its connection manager
// channel, its connections, its timers.
#ifndef SLUICE_DRIVERS_RDMA_ENDPOINT_H_
#define SLUICE_DRIVERS_RDMA_ENDPOINT_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/socket_address.h"
#include "drivers/rdma/connection.h"
#include "drivers/rdma/device.h"
#include "drivers/rdma/verbs.h"
#include "drivers/transport.h"

namespace sluice::rdma {

// "10.11.0.1:7001%rxe0" in its parts.
struct RdmaAddress {
  SocketAddress address;
  std::string device;  // empty: any
};
absl::StatusOr<RdmaAddress> parse_rdma_address(std::string_view text, std::string_view device);

// An event of the connection manager, taken out of its hands.
struct ManagerEvent {
  rdma_cm_event_type type = RDMA_CM_EVENT_ADDR_RESOLVED;
  rdma_cm_id* id = nullptr;
  int status = 0;
  std::array<uint8_t, 256> data{};
  size_t data_bytes = 0;
  std::span<const uint8_t> private_data() const { return {data.data(), data_bytes}; }
};

class RdmaEndpoint final : public Endpoint {
 public:
  static absl::StatusOr<std::unique_ptr<Endpoint>> open(const RdmaOptions& options, Arena& arena,
                                                        std::string_view listen);
  ~RdmaEndpoint() override;

  std::string address() const override { return address_; }
  absl::StatusOr<ConnectionId> connect(std::string_view address) override;
  void close(ConnectionId connection) override;
  void abort(ConnectionId connection) override;
  size_t post_recv(ConnectionId connection, std::span<BlockBuffer> buffers) override;
  size_t post_send(ConnectionId connection, std::span<SendRequest> requests) override;
  size_t credits(ConnectionId connection) const override;
  size_t poll(std::span<Completion> completions) override;
  void wait(int64_t timeout_ns) override;
  void wake() override;
  TransportCounters counters() const override;

 private:
  // Events are rare and looking for them is a system call, completions are many and looking is
  // free.
  static constexpr uint64_t kPollsPerLook = 64;
  // Credits that the peer can do without for now (it has more than that) are told after so long.
  static constexpr int64_t kTellWithin = 20'000'000;

  // A closed connection's id, kept until the peer has confirmed the disconnection. The peer is told
  // when the port works: a connection manager's message into a dead port breaks Soft-RoCE's manager
  // for good, and gets nowhere with any other.
  struct Lingering {
    UniqueId id;
    const Device* device = nullptr;
    uint8_t port = 0;
    bool port_seen = false;
    bool told = false;
    int64_t until_ns = 0;
  };
  struct Unmap {
    size_t bytes;
    void operator()(uint8_t* memory) const;
  };

  RdmaEndpoint(const RdmaOptions& options, Arena& arena);
  absl::Status set_up(std::string_view listen);
  absl::Status map_control();
  absl::Status start_listening(std::string_view listen);
  absl::Status register_first_device();
  absl::StatusOr<Device*> device_of(ibv_context* verbs);
  absl::Status watch(int fd, uint64_t token);

  Connection* find(ConnectionId id) const;
  Connection* find_slot(const WorkId& work) const;
  Connection* add(UniqueId cm_id, std::string peer, bool initiator);
  void erase(Connection* connection);
  void enqueue(Connection* connection);
  void count(Connection* connection);
  void reserve_completions();
  void say_refused(const std::string& peer, const absl::Status& status);

  size_t progress();
  size_t poll_queues();
  size_t poll_queue(Device* device, CompletionQueue* queue);
  void advance_queued(bool idle);
  void announce_all();
  bool collect_events(int64_t timeout_ns);
  void check_deadlines();
  void check_lingering();
  int64_t next_deadline_ns() const;
  void look_for_stream(int64_t now_ns);
  int64_t next_nap_ns(int64_t now_ns);
  void take_wake_ups();

  // endpoint_events.cc
  bool next_manager_event(ManagerEvent* event);
  void take_manager_events();
  void handle(const ManagerEvent& event);
  void handle_request(const ManagerEvent& event);
  absl::Status accept(UniqueId id, const std::string& peer, const Hello& hello);
  void refuse(UniqueId id, const std::string& peer, RefusalCode code, const absl::Status& status);
  absl::Status proceed(Connection* connection, const ManagerEvent& event);
  void take_device_events(Device* device);
  void handle_device_event(Device* device, const ibv_async_event& event);
  void fail_where(const std::function<bool(const Connection&)>& affected, std::string_view why);

  Arena& arena_;
  Shared shared_;
  std::unique_ptr<uint8_t, Unmap> control_;
  UniqueFd epoll_;
  UniqueFd wake_;
  // Destroyed in the reverse order: connections first, then ids, then what they stand on.
  std::vector<std::unique_ptr<Device>> devices_;
  UniqueEvents manager_;
  UniqueId listener_;
  SocketAddress source_;  // the listen address, from which connect() goes too
  std::string wanted_device_;
  std::string address_;
  std::vector<Lingering> lingering_;
  std::unordered_map<ConnectionId, std::unique_ptr<Connection>> connections_;

  std::vector<Connection*> slots_;
  std::vector<uint16_t> lives_;
  std::vector<uint32_t> free_slots_;
  size_t settling_ = 0;  // connections that wait for events of the connection manager
  size_t half_open_ = 0;
  ConnectionId next_id_;
  uint64_t polls_ = 0;
  // Since when some connection may have credits that its peer does not know of; 0: none has.
  int64_t unsaid_since_ns_ = 0;
  int64_t next_scan_ns_ = 0;
  // Of wait() in a stream of blocks: the nap's length, and what was counted and when at the last
  // look.
  int64_t nap_ns_ = 100'000;
  int64_t no_nap_until_ns_ = 0;
  uint64_t seen_received_ = 0;
  uint64_t seen_sent_ = 0;
  int64_t looked_ns_ = 0;
  bool streams_in_ = false;
  std::vector<Connection*> work_;
  std::vector<Connection*> working_;  // the part of work_ that is being gone through
  std::atomic<uint64_t> wakes_{0};
};

}  // namespace sluice::rdma

#endif  // SLUICE_DRIVERS_RDMA_ENDPOINT_H_
