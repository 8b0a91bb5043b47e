// The loop of one packet endpoint: its port, its connections, and what strangers may cause: a
// stateless answer, no larger than what they sent, and nothing that is kept.
#ifndef SLUICE_DRIVERS_PACKET_ENDPOINT_H_
#define SLUICE_DRIVERS_PACKET_ENDPOINT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "base/clock.h"
#include "drivers/packet/connection.h"
#include "drivers/packet/packet.h"
#include "drivers/packet/port.h"
#include "drivers/packet/wire.h"
#include "drivers/transport.h"

namespace sluice::packet {

// Packets that were thrown away, by reason, and what else cannot be seen from outside.
struct LayerCounters {
  uint64_t short_packets = 0;
  uint64_t wrong_check = 0;
  uint64_t wrong_version = 0;
  uint64_t malformed = 0;
  uint64_t unknown_connection = 0;
  uint64_t wrong_address = 0;  // a known connection, from somewhere else
  uint64_t unwanted_hellos = 0;
  uint64_t duplicates = 0;  // of packets that had come before
  uint64_t sent_packets = 0;
  uint64_t repeated_packets = 0;
  uint64_t probes = 0;
  uint64_t cookies = 0;
  uint64_t refused = 0;
  uint64_t resets = 0;  // in answer to packets of unknown connections
  size_t connections = 0;
  size_t lingering = 0;
};

class PacketEndpoint final : public Endpoint {
 public:
  static constexpr size_t kMaxGreeting = 256;  // accepted, the peer's first word outstanding
  static constexpr size_t kMaxLingering = 1024;
  static constexpr size_t kMaxRefusalsTold = 64;  // kClosed without kAccepted, unpolled

  PacketEndpoint(const PacketOptions& options, Arena& arena, Clock& clock,
                 std::unique_ptr<PacketPort> port, bool listens);
  ~PacketEndpoint() override;

  std::string address() const override { return listens_ ? port_->address() : std::string(); }
  absl::StatusOr<ConnectionId> connect(std::string_view address) override;
  void close(ConnectionId connection) override;
  void abort(ConnectionId connection) override;
  size_t post_recv(ConnectionId connection, std::span<BlockBuffer> buffers) override;
  size_t post_send(ConnectionId connection, std::span<SendRequest> requests) override;
  size_t credits(ConnectionId connection) const override;
  size_t poll(std::span<Completion> completions) override;
  void wait(int64_t timeout_ns) override;
  void wake() override { port_->wake(); }
  TransportCounters counters() const override;

  LayerCounters layer_counters() const;
  PortCounters port_counters() const { return port_->counters(); }
  // On the clock; kNever: nothing is to do until a packet comes.
  int64_t next_timer() const;
  // For measurements. Null: unknown.
  const Connection* connection(ConnectionId id) const { return find(id); }

 private:
  // A connection that closed in order, kept to answer a peer that missed the last acknowledgement.
  struct Lingering {
    uint64_t wire_id = 0;
    uint64_t peer_wire_id = 0;
    PeerAddress peer;
    uint64_t granted = 0;
    uint64_t received = 0;
    uint64_t sent = 0;
    int64_t until_ns = 0;
  };

  Connection* find(ConnectionId id) const;
  Connection* add(const PeerAddress& peer, std::string peer_text, bool initiator);
  void erase(Connection* connection);
  void activate(Connection* connection);
  void progress();
  void receive();
  void take(const InPacket& packet);
  void take_stranger(const InPacket& packet, const Frame& frame);
  void take_hello(const InPacket& packet, const Frame& frame);
  void accept(const InPacket& packet, const Frame& frame);
  bool answer_lingering(const InPacket& packet, const Frame& frame);
  void advance();
  void scan();
  uint64_t cookie_for(const PeerAddress& peer, uint64_t wire_id, int64_t epoch) const;
  void answer(const PeerAddress& to, const Frame& frame);
  void refuse(const InPacket& packet, const Frame& hello, RefusalCode code);
  static uint64_t hello_key(const PeerAddress& peer, uint64_t wire_id);

  Clock& clock_;
  const bool listens_;
  const uint64_t secret_;
  Shared shared_;
  std::unordered_map<ConnectionId, std::unique_ptr<Connection>> connections_;
  std::unordered_map<uint64_t, Connection*> by_wire_id_;
  std::unordered_map<uint64_t, Connection*> by_hello_;  // accepted ones, by who asked
  std::unordered_map<uint64_t, size_t> per_peer_;       // accepted ones, by address
  std::vector<Connection*> active_;
  std::deque<Lingering> lingering_;
  ConnectionId next_id_ = 1;
  uint64_t wire_ids_ = 0;
  size_t greeting_ = 0;
  size_t refusals_told_ = 0;
  int64_t next_scan_ns_ = 0;
  int64_t emptied_ns_ = 0;  // when the port last had nothing more
  bool left_behind_ = false;
  absl::Status port_health_;
  LayerCounters layer_;
  std::unique_ptr<PacketPort> port_;  // goes before the blocks that its device may read
};

}  // namespace sluice::packet

#endif  // SLUICE_DRIVERS_PACKET_ENDPOINT_H_
