// One endpoint of a simulated node. Everything here is guarded by the fabric's mutex, except the
// constants.
#ifndef SLUICE_DRIVERS_SIM_SIM_ENDPOINT_H_
#define SLUICE_DRIVERS_SIM_SIM_ENDPOINT_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "drivers/ring.h"
#include "drivers/sim/fabric.h"
#include "drivers/transport.h"

namespace sluice::sim {

inline constexpr size_t kDepth = 256;
inline constexpr size_t kHeaderBytes = 8;
inline constexpr size_t kControlBytes = 24;
inline constexpr size_t kPreambleBytes = 32;
inline constexpr int64_t kConnectTimeoutNs = 5'000'000'000;

class SimEndpoint;

// One side of a connection. Events hold it, so it may outlive its endpoint; owner is null then.
struct Half {
  SimEndpoint* owner = nullptr;
  std::shared_ptr<TransportCounters> counters;
  ConnectionId id = 0;
  std::string node;
  std::string peer_node;
  std::shared_ptr<Half> peer;  // while both are open; null again once this side is finished
  bool open = false;
  bool closing = false;
  bool peer_closed = false;
  bool finished = false;
  size_t credits = 0;
  size_t delivered = 0;         // of in_flight's front: at the peer, not yet acknowledged
  Ring<SendRequest> in_flight;  // the buffers stay here until the acknowledgement
  Ring<BlockBuffer> receives;
};

class SimEndpoint final : public Endpoint, public SimParticipant {
 public:
  SimEndpoint(SimFabric& fabric, std::string node, Arena& arena, std::string address);
  ~SimEndpoint() override;

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

  void on_cut(const std::string& peer_node) override;
  void on_crash() override;

  bool listens_on(std::string_view address) const {
    return !dead_ && !address_.empty() && address_ == address;
  }

 private:
  using HalfPtr = std::shared_ptr<Half>;
  HalfPtr find(ConnectionId id) const;
  HalfPtr make_half(const std::string& peer_node);
  void push(Completion completion);
  // Sends from this half to its peer's node; `bytes` are counted at both ends.
  static void transmit(SimFabric& fabric, const HalfPtr& from, const HalfPtr& to, size_t bytes,
                       SimFabric::Event event);
  static void announce(const HalfPtr& half, CompletionKind kind);
  static void arrive_connect(SimFabric& fabric, const HalfPtr& caller, const std::string& address,
                             size_t caller_max);
  void accept(const HalfPtr& caller, size_t caller_max);
  static void deliver(SimFabric& fabric, const HalfPtr& from, const HalfPtr& to);
  static void grant(SimFabric& fabric, const HalfPtr& from, size_t count);
  static void send_close(SimFabric& fabric, const HalfPtr& half);
  static void check_finished(const HalfPtr& half);
  static void finish(const HalfPtr& half, const absl::Status& status);
  static void finish_with(const HalfPtr& half, const absl::Status& status,
                          const absl::Status& buffers);
  static SimEndpoint* find_listener(SimFabric& fabric, std::string_view address);

  SimFabric& fabric_;
  const std::string node_;
  const std::string address_;
  const size_t max_message_bytes_;
  bool dead_ = false;  // its node has crashed
  bool woken_ = false;
  ConnectionId next_id_ = 1;
  std::map<ConnectionId, HalfPtr>
      halves_;  // ordered: faults must reach connections in the same order each run
  Ring<Completion> completions_;
  std::shared_ptr<TransportCounters> counters_;
  std::condition_variable something_;
};

}  // namespace sluice::sim

#endif  // SLUICE_DRIVERS_SIM_SIM_ENDPOINT_H_
