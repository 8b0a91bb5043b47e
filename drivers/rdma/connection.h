// One rdma connection: its connection manager id, its two queue pairs, and the buffers posted on
// it. It belongs to an endpoint and is confined to its thread.
//
// Life: connecting (connect() only: address, route, request) -> greeting (accepted only: reply
// sent)
// -> open -> finished. An orderly close happens inside `open`: each side says with a close frame
// how many blocks it has sent, and is finished when it has all of the other's, the other has said
// that it has all of its, and its own frames are delivered. Then nothing can be under way in either
// direction, so destroying the queue pairs cannot destroy anything.
#ifndef SLUICE_DRIVERS_RDMA_CONNECTION_H_
#define SLUICE_DRIVERS_RDMA_CONNECTION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/arena.h"
#include "drivers/rdma/device.h"
#include "drivers/rdma/rdma.h"
#include "drivers/rdma/verbs.h"
#include "drivers/rdma/wire.h"
#include "drivers/ring.h"
#include "drivers/transport.h"

namespace sluice::rdma {

inline constexpr size_t kControlReceiveBytes = 64;  // room to see that a frame is too long
// Of one connection: its receive ring, then its send ring.
inline constexpr size_t kControlSlotBytes = kControlDepth * (kControlReceiveBytes + kFrameBytes);
// One send in so many asks for a completion, which stands for those before it; and the last of what
// there is to send, so that no block waits for later ones.
inline constexpr uint64_t kSignalEvery = 32;
inline constexpr size_t kMaxConnections = size_t{1} << 14;

// What an endpoint's connections have in common; outlives them.
struct Shared {
  RdmaOptions options;
  uint64_t max_message_bytes = 0;
  std::span<uint8_t> control;  // kControlSlotBytes for each slot
  int64_t now_ns = 0;          // renewed when events are looked for
  bool ran_low = false;        // some peer has used most of its credits since this was cleared
  TransportCounters counters;
  Ring<Completion> completions;  // bounded by the depths of the connections
};

enum class WorkKind : uint8_t { kSend, kReceive, kControlSend, kControlReceive };

// A work request's name: which connection (and which life of its slot), and its number there.
struct WorkId {
  WorkKind kind = WorkKind::kSend;
  uint32_t slot = 0;
  uint16_t life = 0;
  uint32_t number = 0;

  uint64_t pack() const {
    return uint64_t{static_cast<uint8_t>(kind)} << 62 | uint64_t{slot} << 48 |
           uint64_t{life} << 32 | number;
  }
  static WorkId unpack(uint64_t id) {
    return {static_cast<WorkKind>(id >> 62), static_cast<uint32_t>(id >> 48 & 0x3fff),
            static_cast<uint16_t>(id >> 32), static_cast<uint32_t>(id)};
  }
};

class Connection {
 public:
  // `slot` and `life` name it in work requests; `initiator`: connect() made it.
  Connection(Shared* shared, ConnectionId id, uint32_t slot, uint16_t life, UniqueId cm_id,
             std::string peer, bool initiator);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // connection_setup.cc. The queue pairs on `device`, ready for posts.
  absl::Status make_pairs(Device* device);
  // Initiator: asks the peer, then (with its reply) completes the connection.
  absl::Status request();
  absl::Status take_reply(std::span<const uint8_t> hello);
  // Accepted: answers the peer, whose hello is good.
  absl::Status accept(const Hello& hello);
  // The connection is up; does nothing when it already was.
  void open();

  size_t post_recv(std::span<BlockBuffer> buffers);
  size_t post_send(std::span<SendRequest> requests);
  size_t credits() const;
  void start_close();
  void abort();

  // Hands what was posted to the device, and tells the peer what is due. `idle`: nothing else is
  // happening, so small news are told too.
  void advance(bool idle);
  void on_completion(WorkKind kind, uint32_t number, const ibv_wc& completion);
  // The peer is gone, or the device failed: orderly if all was said and done before.
  void lose(const absl::Status& why);
  // Returns all buffers and says kClosed; the queue pairs are gone then.
  void fail(const absl::Status& status) { finish(status, status); }
  void check_deadline();

  ConnectionId id() const { return id_; }
  uint32_t slot() const { return slot_; }
  uint16_t life() const { return life_; }
  const std::string& peer() const { return peer_; }
  rdma_cm_id* cm_id() const { return cm_id_.get(); }
  UniqueId release_cm_id() { return std::move(cm_id_); }
  const Device* device() const { return device_; }
  bool owns(const ibv_qp* pair) const { return pair == data_.get() || pair == control_.get(); }
  bool uses(const CompletionQueue* queue) const { return queue == queue_; }
  uint8_t port() const { return cm_id_ == nullptr ? 0 : cm_id_->port_num; }
  int64_t deadline_ns() const { return deadline_ns_; }
  bool finished() const { return state_ == State::kFinished; }
  // Accepted, and the peer's last word still to come.
  bool half_open() const { return state_ == State::kGreeting; }
  // Events of the connection manager are to be expected.
  bool settling() const { return state_ != State::kOpen || closing(); }
  bool was_asked() const { return asked_; }
  bool has_news() const { return state_ == State::kOpen && !closing() && fresh_credits() > 0; }

  // The endpoint's: whether it is in the list of connections with work, and what it counted it as.
  bool queued = false;
  bool disconnected = false;
  bool counted_settling = false;
  bool counted_half_open = false;

 private:
  enum class State : uint8_t { kConnecting, kGreeting, kOpen, kFinished };
  struct PendingSend {
    BlockBuffer buffer;
    uint32_t bytes = 0;
  };

  // connection_setup.cc
  absl::StatusOr<UniquePair> make_pair(uint32_t sends, uint32_t receives, uint32_t inline_bytes);
  absl::Status start_pair(ibv_qp* pair);
  absl::Status connect_pair(ibv_qp* pair, uint32_t control_qp, bool log);
  absl::Status connect_pairs(const Hello& hello);
  rdma_conn_param connection_parameters(const uint8_t* hello) const;
  void encode_own_hello(uint8_t* to) const;
  size_t entries_needed() const;

  // connection_data.cc
  void flush_receives();
  void flush_sends();
  void take_sent(uint32_t number);
  void take_block(uint32_t number, const ibv_wc& completion);
  void take_error(WorkKind kind, const ibv_wc& completion);

  // connection_control.cc
  bool post_control_receive(uint32_t number);
  void take_frame(uint32_t number, const ibv_wc& completion);
  bool update_due(bool idle) const;
  void write_control(bool idle);
  void send_frame(bool close);
  uint64_t fresh_credits() const { return given_ - announced_granted_; }

  void made_progress();
  bool all_said_and_done() const;
  void check_closed();
  void finish(const absl::Status& connection_status, const absl::Status& buffer_status);
  void release_pairs();
  absl::Status broken_protocol(const absl::Status& reason) const;
  bool closing() const { return close_requested_ || peer_state_.closed(); }
  uint64_t work_id(WorkKind kind, uint64_t number) const {
    return WorkId{kind, slot_, life_, static_cast<uint32_t>(number)}.pack();
  }

  Shared* const shared_;
  const ConnectionId id_;
  const uint32_t slot_;
  const uint16_t life_;
  UniqueId cm_id_;
  const std::string peer_;
  const bool initiator_;
  State state_;
  bool asked_ = false;  // the connection manager has sent something to the peer
  int64_t deadline_ns_ = 0;
  Device* device_ = nullptr;
  CompletionQueue* queue_ = nullptr;
  UniquePair data_;
  UniquePair control_;
  bool inline_frames_ = false;

  // All counts are from the connection's start; a block's place in its ring is its number modulo
  // the ring's size.
  // Receiving: received_ <= given_ (to the device) <= posted_receives_.
  std::vector<BlockBuffer> receives_;
  uint64_t posted_receives_ = 0;
  uint64_t widest_ = 0;  // the most blocks that were posted at one time
  uint64_t given_ = 0;
  uint64_t received_ = 0;
  uint64_t announced_granted_ = 0;
  uint64_t announced_received_ = 0;

  // Sending: returned_ <= handed_ (to the device) <= posted_.
  std::vector<PendingSend> sends_;
  uint64_t posted_ = 0;
  uint64_t handed_ = 0;
  uint64_t returned_ = 0;

  PeerState peer_state_;
  uint32_t control_sent_ = 0;
  uint32_t control_done_ = 0;  // of them, completed
  uint32_t control_received_ = 0;
  uint32_t control_acknowledged_ = 0;  // of them, as the peer was told
  uint64_t seen_activity_ = 0;
  bool ping_due_ = false;

  bool close_requested_ = false;
  bool close_sent_ = false;
};

}  // namespace sluice::rdma

#endif  // SLUICE_DRIVERS_RDMA_CONNECTION_H_
