// The state of one stream, shared between the exchange's thread and the stream's users. Internal to
// dataplane/stream.
#ifndef SLUICE_DATAPLANE_STREAM_SESSION_H_
#define SLUICE_DATAPLANE_STREAM_SESSION_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "dataplane/stream/exchange.h"

namespace sluice::stream {

class InboxImpl final : public Inbox {
 public:
  bool take(int64_t timeout_ms, Delivery* delivery) override;
  void shut_down() override;
  // Moves it in, unless the inbox is shut down: it stays the caller's then, to be let go of outside
  // of the caller's locks.
  void push(Delivery& delivery);

 private:
  Mutex mutex_;
  Condition available_;
  std::deque<Delivery> waiting_ SLUICE_GUARDED_BY(mutex_);
  bool shut_down_ SLUICE_GUARDED_BY(mutex_) = false;
};

class Session;

// What a session needs of its exchange. Called from any thread.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  // The session has something to send, to post or to close.
  virtual void mark_dirty(Session* session) = 0;
  virtual BlockPool& control_pool() = 0;
  // Remembers that this buffer holds one of the session's control messages, until release().
  virtual void note_control(const BlockBuffer& buffer) = 0;
  virtual size_t send_queue_limit() const = 0;
};

struct Outgoing {
  BlockBuffer buffer;
  uint32_t bytes = 0;
};

// A message of the exchange itself, not in a buffer yet.
struct OwnMessage {
  MessageKind kind = MessageKind::kKeepalive;
  std::string payload;
};

// Thread rule: what stands under `mutex` is for everybody, the rest of the data members for the
// exchange's thread alone. The host outlives the session's open life; after the session is over
// nothing of the host is used.
class Session : public std::enable_shared_from_this<Session> {
 public:
  // kAwaitHandler: its hello came, and nobody serves what it is for yet.
  enum class Phase { kConnecting, kAwaitReply, kAwaitHello, kAwaitHandler, kOpen, kClosing, kOver };
  static constexpr size_t kMaxControl = 2;

  Session(SessionHost* session_host, bool connecting, uint64_t stream_number, Clock& its_clock)
      : host(session_host), connector(connecting), number(stream_number), clock(its_clock) {}

  // For users, any thread.
  absl::Status send(BlockBuffer message, uint32_t bytes, int64_t timeout_ms);
  absl::Status send_control(Envelope envelope, std::string_view payload, int64_t timeout_ms);
  absl::StatusOr<Message> receive(int64_t timeout_ms);
  void request_close(const absl::Status& reason);

  // For the exchange's thread.
  void deliver(Message message);
  // Ends it for the users, with the first reason given, and returns what was not sent.
  std::deque<Outgoing> end(const absl::Status& reason);
  void control_released();
  bool has_outgoing();
  // Something is there to be received, room to send came, or it ended.
  void notify_locked() SLUICE_REQUIRES(mutex) {
    changed.notify_all();
    if (on_change) on_change();
  }

  SessionHost* const host;
  const bool connector;
  const uint64_t number;  // of the stream
  Clock& clock;           // outlives the exchange
  ConnectionId connection = 0;
  std::string peer;
  Hello hello;

  Mutex mutex;
  Condition changed;  // one for senders, receivers and close: each is rare next to a block's cost
  std::function<void()> on_change SLUICE_GUARDED_BY(mutex);
  std::deque<Outgoing> outgoing SLUICE_GUARDED_BY(mutex);
  std::deque<Message> incoming SLUICE_GUARDED_BY(mutex);  // where there is no shared inbox
  size_t control_in_flight SLUICE_GUARDED_BY(mutex) = 0;
  bool close_requested SLUICE_GUARDED_BY(mutex) = false;
  bool over SLUICE_GUARDED_BY(mutex) = false;
  absl::Status reason SLUICE_GUARDED_BY(mutex);  // once close_requested or over
  Stream::Counters counters SLUICE_GUARDED_BY(mutex);

  std::shared_ptr<InboxImpl> inbox;  // set before the session opens
  std::weak_ptr<Stream> handle;      // likewise

  std::atomic<bool> dirty{false};

  Phase phase = Phase::kConnecting;
  std::unique_ptr<BlockPool> pool;
  BlockBuffer hello_buffer;  // to be posted for the peer's hello
  // Of the pool, to be posted: what the driver did not take. Were they to go home, each would make
  // the session dirty, and the exchange would go round for nothing.
  std::vector<BlockBuffer> unposted;
  bool refused = false;         // is in the exchange's list of those
  std::deque<OwnMessage> own;   // before `outgoing`: at most a hello or its answer, and an error
  bool stranger = false;        // accepted, and its hello was not (yet)
  bool admitted = false;        // accepted, and so was its hello
  bool buffer_awaited = false;  // was aborted while it held a hello buffer
  size_t tries = 0;             // of connecting
  size_t posted = 0;
  // Bytes of the last bulk that came: what a further credit is charged to the limit. 0: none came.
  uint32_t bulk_bytes = 0;
  size_t charged = 0;  // of `posted`: credits that are
  uint64_t charged_bytes = 0;
  bool held_back = false;   // waits for its turn to give credit
  int64_t deadline_ns = 0;  // of the handshake, later of the closing
  int64_t last_sent_ns = 0;
  int64_t last_received_ns = 0;
  bool close_begun = false;  // the endpoint was told
  bool for_cause = false;    // closing because of the peer: it is not waited for beyond deadline_ns
  bool aborted = false;      // the endpoint was told
  bool counted = false;      // in Exchange::streams()
  absl::Status
      wire_reason;  // for the peer and the users, where the exchange itself ends the session
};

// What users hold. Closes the session when it goes.
class StreamHandle final : public Stream {
 public:
  explicit StreamHandle(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  ~StreamHandle() override { session_->request_close(absl::OkStatus()); }
  const Hello& hello() const override { return session_->hello; }
  const std::string& peer() const override { return session_->peer; }
  uint64_t number() const override { return session_->number; }
  absl::Status send(BlockBuffer message, uint32_t bytes, int64_t timeout_ms) override {
    return session_->send(std::move(message), bytes, timeout_ms);
  }
  absl::Status send_control(Envelope envelope, std::string_view payload,
                            int64_t timeout_ms) override {
    return session_->send_control(envelope, payload, timeout_ms);
  }
  absl::StatusOr<Message> receive(int64_t timeout_ms) override {
    return session_->receive(timeout_ms);
  }
  void on_change(std::function<void()> hook) override;
  void close(const absl::Status& reason) override { session_->request_close(reason); }
  bool closed() const override;
  absl::Status closed_reason() const override;
  Counters counters() const override;

 private:
  const std::shared_ptr<Session> session_;
};

}  // namespace sluice::stream

#endif  // SLUICE_DATAPLANE_STREAM_SESSION_H_
