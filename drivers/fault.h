// A transport with faults, around any transport: what a correct driver may do at its worst, from a
// seed. Everything stays within the contract of transport.h, except flip_bit, which is for testing
// the checksums above it.
//
// Reordering: completions of one connection keep their order, those of different connections do
// not. A cut is seen as a lost connection at both ends. What an abort() gives back may be held back
// like all completions.
#ifndef SLUICE_DRIVERS_FAULT_H_
#define SLUICE_DRIVERS_FAULT_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "drivers/ring.h"
#include "drivers/transport.h"

namespace sluice {

struct FaultOptions {
  uint64_t seed = 1;
  double partial_post = 0;       // chance that a post accepts fewer than it could, or none
  double delay = 0;              // chance that a completion is held back
  uint32_t max_delay_polls = 8;  // for 1 to this many polls
  double connect_failure = 0;    // chance that a connect() fails
  uint64_t cut_after_messages =
      0;                // each connection is cut after so many messages sent and received; 0: never
  double flip_bit = 0;  // chance that a received message has one bit flipped
  uint32_t flip_from_bytes = 1;  // only messages of at least this length
};

// The inner transport must outlive this one. Each endpoint draws from a sequence of its own: the
// n-th that is opened behaves the same in each run.
class FaultTransport final : public Transport {
 public:
  FaultTransport(Transport& inner, const FaultOptions& options)
      : inner_(inner), options_(options) {}
  std::string_view name() const override { return inner_.name(); }
  TransportLimits limits() const override { return inner_.limits(); }
  absl::StatusOr<std::unique_ptr<Endpoint>> open(Arena& arena, std::string_view listen) override;

 private:
  Transport& inner_;
  const FaultOptions options_;
  std::atomic<uint64_t> opened_{0};
};

class FaultEndpoint final : public Endpoint {
 public:
  FaultEndpoint(std::unique_ptr<Endpoint> inner, const FaultOptions& options, uint64_t number);

  std::string address() const override { return inner_->address(); }
  absl::StatusOr<ConnectionId> connect(std::string_view address) override;
  void close(ConnectionId connection) override { inner_->close(connection); }
  void abort(ConnectionId connection) override { inner_->abort(connection); }
  size_t post_recv(ConnectionId connection, std::span<BlockBuffer> buffers) override;
  size_t post_send(ConnectionId connection, std::span<SendRequest> requests) override;
  size_t credits(ConnectionId connection) const override;
  size_t poll(std::span<Completion> completions) override;
  void wait(int64_t timeout_ns) override;
  void wake() override { inner_->wake(); }
  TransportCounters counters() const override { return inner_->counters(); }

 private:
  // The completions of one connection on their way up.
  struct Lane {
    Ring<Completion> held;
    uint32_t hold_polls = 0;  // before the front may go
    uint64_t messages = 0;
    bool cut = false;
  };
  void take(Completion completion);
  void spoil(Lane* lane, Completion* completion);
  size_t release(Lane* lane, std::span<Completion> completions);
  void draw_hold(Lane* lane);
  size_t shorten(size_t count);
  bool is_cut(ConnectionId connection) const;

  const std::unique_ptr<Endpoint> inner_;
  const FaultOptions options_;
  Random random_;
  ConnectionId next_failed_;
  std::map<ConnectionId, Lane> lanes_;
  size_t held_ = 0;
  std::vector<Completion> scratch_;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_FAULT_H_
