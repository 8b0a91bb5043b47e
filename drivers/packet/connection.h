// One connection of the packet layer: its blocks, its packets in flight, its timers. It belongs to
// an endpoint and is confined to its thread.
//
// Life: connecting (connect(): hello, cookie, hello, welcome) or greeting (the responder: welcome
// sent, nothing heard yet) -> open -> draining (over, but the device still reads blocks) ->
// finished. An orderly close happens inside `open`: each side says how many blocks it has sent, and
// is finished when the other has acknowledged that and all blocks, and it has all of the other's.
#ifndef SLUICE_DRIVERS_PACKET_CONNECTION_H_
#define SLUICE_DRIVERS_PACKET_CONNECTION_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/arena.h"
#include "drivers/packet/congestion.h"
#include "drivers/packet/numbers.h"
#include "drivers/packet/packet.h"
#include "drivers/packet/port.h"
#include "drivers/packet/rtt.h"
#include "drivers/packet/sent_log.h"
#include "drivers/packet/wire.h"
#include "drivers/ring.h"
#include "drivers/transport.h"

namespace sluice::packet {

// Packets on their way to the port. Bounded; what the port does not accept stays. Header bytes and
// order are kept; payloads are pointers into blocks, which stay until they have left.
class Outbox {
 public:
  static constexpr size_t kPlaces = 64;

  bool full() const { return count_ == kPlaces; }
  bool empty() const { return count_ == 0; }
  struct Place {
    OutPacket packet;
    uint32_t* queued = nullptr;  // how many of its block are here
    const void* owner = nullptr;
    std::array<uint8_t, kMaxHeaderBytes> header;
  };
  // The next place, to be filled; not full(). push() keeps it.
  Place& next() { return places_[count_]; }
  void push() { ++count_; }
  // Gives a payload to what was pushed last.
  void attach_payload(std::span<const uint8_t> payload, uint32_t* queued, uint32_t* device_reads) {
    Place& place = places_[count_ - 1];
    place.packet.payload = payload.data();
    place.packet.payload_bytes = static_cast<uint32_t>(payload.size());
    place.packet.device_reads = device_reads;
    place.queued = queued;
    ++*queued;
  }
  // Hands what it can to the port; counts it.
  void flush(PacketPort* port, TransportCounters* counters);
  void forget(const void* owner);

 private:
  std::array<Place, kPlaces> places_;
  std::array<OutPacket, kPlaces> burst_;
  size_t count_ = 0;
};

// What an endpoint's connections have in common; outlives them.
struct Shared {
  PacketOptions options;
  uint64_t max_message_bytes = 0;
  uint32_t max_packet_bytes = 0;
  PacketPort* port = nullptr;
  int64_t now_ns = 0;
  // How long what is received now may have waited for this program to look: since the last look
  // that left nothing behind. 0 after one that did not: then the wait is a queue.
  int64_t host_delay_ns = 0;
  Outbox outbox;
  TransportCounters counters;
  Ring<Completion> completions;  // bounded by the depths of the connections
  uint64_t packets_sent = 0;
  uint64_t packets_repeated = 0;
  uint64_t probes = 0;
  uint64_t duplicates = 0;
};

class Connection {
 public:
  // `wire_id`: this side's identifier of it. `asked_for`: the address as the user gave it.
  Connection(Shared* shared, ConnectionId id, uint64_t wire_id, const PeerAddress& peer,
             std::string peer_text, bool initiator);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  size_t post_recv(std::span<BlockBuffer> buffers);
  size_t post_send(std::span<SendRequest> requests);
  size_t credits() const;
  void start_close();

  // The responder's: takes over what the hello said.
  void greet(const Frame& hello);
  void send_welcome();
  // A packet that is intact and from the peer's address.
  void take(const Frame& frame);
  // Timers, and what is due to be sent.
  void advance();
  // Ends it; the peer is told unless it said so itself.
  void fail(const absl::Status& status, ResetCode code);
  void send_reset(ResetCode code);

  ConnectionId id() const { return id_; }
  uint64_t wire_id() const { return wire_id_; }
  uint64_t peer_wire_id() const { return peer_wire_id_; }
  const PeerAddress& peer_address() const { return peer_; }
  const std::string& peer_text() const { return peer_text_; }
  bool initiator() const { return initiator_; }
  bool finished() const { return state_ == State::kFinished; }
  bool greeting() const { return state_ == State::kGreeting; }
  bool established() const { return state_ == State::kOpen; }
  // Ended in order: the peer may still ask for the last acknowledgement.
  bool closed_in_order() const { return in_order_; }
  uint64_t granted() const { return posted_receives_; }
  uint64_t received() const { return delivered_; }
  uint64_t sent() const { return posted_; }
  // When advance() has something to do, if nothing else happens before.
  int64_t next_timer() const;
  // Nothing to do but to hear from the peer now and then.
  bool idle() const;

  bool active = false;  // the endpoint's: in its list of those to advance
  bool counted_greeting = false;

  const Congestion* congestion() const { return congestion_.get(); }
  const SentLog& sent_log() const { return log_; }
  const RoundTrip& round_trip() const { return round_trip_; }

 private:
  enum class State : uint8_t { kConnecting, kGreeting, kOpen, kDraining, kFinished };
  struct SendSlot {
    BlockBuffer buffer;
    uint32_t bytes = 0;
    uint32_t fragments = 0;
    uint32_t acked = 0;
    uint32_t queued = 0;        // packets of it in the outbox
    uint32_t device_reads = 0;  // packets of it that the device may still read
  };
  struct ReceiveSlot {
    BlockBuffer buffer;
    uint32_t bytes = 0;  // 0: nothing has come yet
    uint32_t missing = 0;
  };
  struct FragmentRef {
    uint64_t block = 0;
    uint32_t fragment = 0;
  };

  // connection.cc
  void open(uint32_t max_packet_bytes, uint32_t peer_depth);
  void take_cookie(const Frame& frame);
  void take_welcome(const Frame& frame);
  void take_refusal(const Frame& frame);
  void take_reset(const Frame& frame);
  void send_hello();
  void advance_greeting();
  void drain();
  void finish();
  void check_closed();
  bool all_said_and_done() const;
  bool closing() const { return close_requested_ || peer_closed_; }
  void broken(const absl::Status& what);
  bool begin(Frame* frame, Type type);
  void post(const Frame& frame);
  Completion completion(CompletionKind kind) const;

  // connection_receive.cc
  void take_data(const Frame& frame);
  void take_control(const Frame& frame);
  bool take_number(uint64_t number, bool at_once);
  void place(const Frame& frame);
  void deliver();
  void take_acknowledgement(const Frame& frame);
  void on_acked(const SentPacket& packet);
  void on_lost(const SentPacket& packet);
  void return_sent();

  // connection_send.cc
  void advance_open();
  void check_timers();
  void on_timeout();
  bool control_due() const;
  bool news_due() const;
  bool send_control();
  void send_blocks();
  bool next_fragment(FragmentRef* ref, bool* repeat);
  bool send_fragment(const FragmentRef& ref, bool ack_now);
  bool has_fragments() const { return !repeats_.empty() || next_block_ < posted_; }
  bool window_open() const;
  bool is_acked(const FragmentRef& ref) const;
  void arm_timeout();

  SendSlot& send_slot(uint64_t block) { return sends_[block % sends_.size()]; }
  const SendSlot& send_slot(uint64_t block) const { return sends_[block % sends_.size()]; }
  ReceiveSlot& receive_slot(uint64_t block) { return receives_[block % receives_.size()]; }
  uint64_t* send_bits(uint64_t block) {
    return &sent_bits_[block % sends_.size() * words_per_block_];
  }
  const uint64_t* send_bits(uint64_t block) const {
    return &sent_bits_[block % sends_.size() * words_per_block_];
  }
  uint64_t* receive_bits(uint64_t block) {
    return &received_bits_[block % receives_.size() * words_per_block_];
  }

  Shared* const shared_;
  const ConnectionId id_;
  const uint64_t wire_id_;
  const PeerAddress peer_;
  const std::string peer_text_;
  const bool initiator_;
  State state_;
  uint64_t peer_wire_id_ = 0;
  uint64_t cookie_ = 0;
  const int64_t began_ns_;
  int64_t greeting_at_ns_ = 0;  // when the next hello or welcome goes out
  uint32_t greetings_ = 0;
  uint32_t agreed_packet_bytes_ = 0;
  uint32_t peer_depth_ = 0;

  // All counts are from the connection's start; a block's place is its number modulo the depth.
  // Receiving: delivered_ <= block < posted_receives_.
  uint32_t fragment_bytes_ = 0;
  size_t words_per_block_ = 0;
  std::vector<ReceiveSlot> receives_;
  std::vector<uint64_t> received_bits_;
  uint64_t posted_receives_ = 0;
  uint64_t delivered_ = 0;
  uint64_t highest_block_ = 0;  // one more than the highest that has begun to arrive
  ReceivedNumbers numbers_;
  int64_t largest_at_ns_ = 0;  // the earliest time at which it may have arrived
  uint32_t ack_pending_ = 0;
  bool ack_now_ = false;
  int64_t ack_at_ns_ = kNever;
  uint64_t granted_told_ = 0;   // in a packet that will be acknowledged or repeated
  uint64_t granted_acked_ = 0;  // of it, acknowledged
  int64_t news_at_ns_ = kNever;

  // Sending: returned_ <= next_block_ <= posted_ <= peer_granted_.
  std::vector<SendSlot> sends_;
  std::vector<uint64_t> sent_bits_;
  uint64_t posted_ = 0;
  uint64_t returned_ = 0;
  uint64_t next_block_ = 0;
  uint32_t next_fragment_ = 0;
  uint64_t peer_granted_ = 0;
  uint64_t peer_received_ = 0;
  Ring<FragmentRef> repeats_;  // bounded by the log's span
  SentLog log_;
  RoundTrip round_trip_;
  std::unique_ptr<Congestion> congestion_;
  int64_t timeout_at_ns_ = kNever;
  uint32_t timeouts_ = 0;
  uint32_t probes_ = 0;  // packets that may be sent whatever the window says
  double pacing_bytes_ = 0;
  int64_t paced_ns_ = 0;
  int64_t pace_at_ns_ = kNever;
  bool window_limited_ = false;

  int64_t heard_ns_ = 0;
  int64_t pinged_ns_ = 0;
  int64_t progress_ns_ = 0;  // when something was last acknowledged, or nothing was outstanding
  bool ping_due_ = false;

  bool close_requested_ = false;
  bool close_told_ = false;  // in a packet on its way or acknowledged
  bool close_acked_ = false;
  bool peer_closed_ = false;
  uint64_t peer_sent_ = 0;
  bool in_order_ = false;

  absl::Status end_;
  absl::Status end_of_buffers_;
  bool end_is_silent_ = false;
  int64_t drain_until_ns_ = 0;
  bool buffers_returned_ = false;
};

}  // namespace sluice::packet

#endif  // SLUICE_DRIVERS_PACKET_CONNECTION_H_
