// One tcp connection: its socket, its frames, and the buffers posted on it. It belongs to an
// endpoint and is confined to its thread.
//
// Life: connecting (connect() only) -> greeting (preambles) -> open -> finished. Frames are sent in
// `open` only. An orderly close happens inside `open`: each side sends what was posted, then a
// close frame, and is finished when it has the other's close frame, the other has all its messages,
// and the other was told that it has all of its. Then nothing can be under way in either direction,
// so closing the socket cannot destroy anything.
#ifndef SLUICE_DRIVERS_TCP_CONNECTION_H_
#define SLUICE_DRIVERS_TCP_CONNECTION_H_

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "base/file.h"
#include "base/socket_address.h"
#include "drivers/ring.h"
#include "drivers/tcp/tcp.h"
#include "drivers/tcp/wire.h"
#include "drivers/transport.h"

namespace sluice::tcp {

// What an endpoint's connections have in common; outlives them.
struct Shared {
  TcpOptions options;
  uint64_t max_message_bytes = 0;
  int memfd = -1;
  bool sendfile = false;
  int64_t now_ns = 0;  // renewed once a poll
  TransportCounters counters;
  Ring<Completion> completions;  // bounded by the depths of the connections
};

class Connection {
 public:
  // `connecting`: the socket's connect is under way; otherwise it was accepted.
  Connection(Shared* shared, ConnectionId id, UniqueFd fd, const SocketAddress& peer,
             bool connecting);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  size_t post_recv(std::span<BlockBuffer> buffers);
  // Queues only; advance() writes.
  size_t post_send(std::span<SendRequest> requests);
  size_t credits() const;
  void start_close();
  void abort();

  // Remembers what epoll said (edge-triggered).
  void on_events(uint32_t events);
  // Connects, reads, writes and closes as far as that goes now, within a budget. True: there is
  // more to do at once.
  bool advance();
  void write();
  // Gives up when its time is over.
  void check_deadline();
  // Returns all buffers, says kClosed and closes the socket.
  void fail(const absl::Status& status);
  // Likewise, and resets the connection, so that nothing of it remains in the kernel.
  void cut_off(const absl::Status& status) { finish(status, status, true); }

  ConnectionId id() const { return id_; }
  int fd() const { return fd_.get(); }
  const std::string& peer() const { return peer_address_; }
  int64_t deadline_ns() const { return deadline_ns_; }
  bool finished() const { return state_ == State::kFinished; }
  // Accepted, and its preamble still to come.
  bool half_open() const { return !initiator_ && state_ == State::kGreeting; }
  bool accepted() const { return !initiator_; }

  bool queued = false;  // the endpoint's: whether it is in the list of connections with work

 private:
  enum class State : uint8_t { kConnecting, kGreeting, kOpen, kFinished };
  enum class Reading : uint8_t { kPreamble, kHeader, kTotals, kPayload };
  struct PendingSend {
    BlockBuffer buffer;
    uint32_t bytes = 0;
    bool by_reference = false;
    std::array<uint8_t, kHeaderBytes> header{};
  };
  static constexpr size_t kStageBytes = 512;
  static constexpr size_t kMaxPieces = 64;

  // connection_receive.cc
  void read();
  size_t read_some(size_t* asked);
  void set_wake_bytes();
  void consume_stage();
  bool take_preamble();
  bool take_header();
  bool take_totals();
  bool take_payload();
  void apply_totals(const Totals& totals);
  void finish_message();

  // connection_send.cc
  bool something_to_write() const;
  size_t gather_and_send();
  size_t gather(std::span<iovec> pieces, size_t* total, bool* more);
  void prepare_control();
  void account_written(size_t bytes);
  size_t send_by_reference();
  void handle_write_error(std::string_view call);
  void return_sent();

  void finish_connecting();
  void greet();
  void open();
  void begin_closing();
  void made_progress();
  void check_closed();
  // `reset`: the peer is to see a broken connection, and the kernel to drop what it holds.
  void finish(const absl::Status& connection_status, const absl::Status& buffer_status,
              bool reset = false);
  absl::Status broken_protocol(const absl::Status& reason) const;
  absl::Status lost(std::string_view why) const;
  bool closing() const { return close_requested_ || peer_closed_; }
  bool update_pending() const {
    return announced_.received != received_ || (announced_.granted != granted_ && !closing());
  }
  // The peer waits for an update, or soon will.
  bool update_due() const {
    if (closing()) return update_pending();
    const uint64_t fresh = granted_ - announced_.granted;
    return announced_.received < received_held_ ||
           (fresh > 0 && fresh >= announced_.granted - received_);
  }
  bool close_due() const { return closing() && !close_queued_ && written_ == sends_.size(); }

  Shared* const shared_;
  const ConnectionId id_;
  UniqueFd fd_;
  const std::string peer_address_;
  const bool initiator_;
  State state_;
  bool readable_ = false;
  bool writable_ = false;
  bool hung_up_ = false;  // epoll said that the peer will send no more: read on until the end
  bool broken_ = false;
  int64_t deadline_ns_ = 0;  // 0: none

  // Receiving. receives_ holds the posted buffers; its front is being filled while reading_ is
  // kPayload.
  Ring<BlockBuffer> receives_;
  Reading reading_ = Reading::kPreamble;
  FrameHeader incoming_;
  uint32_t incoming_got_ = 0;
  size_t wake_bytes_ = 1;  // the socket's SO_RCVLOWAT
  std::array<uint8_t, kStageBytes> stage_{};
  size_t stage_begin_ = 0;
  size_t stage_end_ = 0;
  uint64_t received_ = 0;       // messages, in all
  uint64_t received_held_ = 0;  // of them, up to the last that its sender holds until it is told
  uint64_t granted_ = 0;        // receive buffers posted, in all
  Totals announced_;            // as the peer was told

  // Sending. sends_ holds the written_ messages that the kernel has whole, then the one that stands
  // at frame_offset_, then the rest.
  Ring<PendingSend> sends_;
  size_t written_ = 0;
  size_t frame_offset_ = 0;
  std::array<uint8_t, kPreambleBytes> control_{};  // a preamble or control frame on its way out
  size_t control_size_ = 0;
  size_t control_left_ = 0;
  uint64_t posted_ = 0;    // messages, in all
  uint64_t returned_ = 0;  // messages whose buffer went back, in all
  Totals peer_totals_;     // as the peer told
  uint64_t written_total() const { return returned_ + written_; }

  bool close_requested_ = false;
  bool close_queued_ = false;
  bool peer_closed_ = false;
};

}  // namespace sluice::tcp

#endif  // SLUICE_DRIVERS_TCP_CONNECTION_H_
