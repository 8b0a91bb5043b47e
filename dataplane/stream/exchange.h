// Streams between nodes, over any transport: sessions with a handshake, back-pressure and time
// limits on top of the transport's blocks.
//
// An exchange owns one endpoint and the one thread that touches it. Everything in this header but
// the endpoint is thread-safe. The exchange must outlive its streams' messages: release every
// Message and BlockBuffer that came out of it, and every pool whose buffers were sent through it,
// before the exchange goes.
//
// Flow. A stream has a pool of receive buffers of its own. What the peer sends stands in them until
// the consumer lets go of the message's buffer (or of the last share of it, anywhere: an archive
// writer's, another stream's), upon which the buffer is posted again: that is the credit for one
// more message. So a slow consumer stops its own peer and nobody else.
//
// Strangers. Who connects is a stranger until its hello is accepted, and a connection says nothing
// before it is given a buffer to say hello into (transport.h: a posted buffer is the credit). There
// are hello_buffers of them, so a stranger holds one only while it is silent: answers to hellos,
// and the exchange's own hellos, keepalives and errors, stand in buffers of their own
// (own_buffers), in which they are put only once the peer has credit for them.
//  - At most max_strangers connections are strangers'. base/newcomers.h has the rule by which they
//    share the hello buffers and by which some are turned away, and what it guarantees: an honest
//    peer, which says hello as soon as it is let, gets through however many are silent. Nobody is
//    silent for longer than hello_timeout_ms.
//  - A stranger that goes for cause (silent, refused, turned away, no exchange at all) is aborted,
//    so its buffer is back at once. A refused one is first told why, if it takes that in time.
//  - One that says hello to a job which is not served here (yet) waits for that, for at most
//    serve_wait_ms: who sends copies may be a moment ahead of who takes them. Meanwhile it holds no
//    buffer, counts as a stranger, and is among the first to be turned away.
//  - Strangers never take what streams need: streams that were accepted and those that connect are
//    counted apart, max_streams each.
// (Rejected: granting a hello buffer once bytes are waiting. No driver can tell: a message begins
// with a credit, and packets of a block without a posted buffer are thrown away.)
//
// Limit. A node may be given a rate for its bulk (BulkLimit): blocks, batches of records and
// summaries, not acknowledgements, answers or what the exchange says itself. What goes out waits in
// its stream's queue until the limit lets it go. What comes in is held back at its source: a stream
// that takes bulk gets the credit for one more message only when the limit has room for one
// like the last, streams in turn. Bulk of local streams counts as coming in. No thread of the
// exchange waits for it.
//
// Arena budget, in buffers (kBufferBytes each), for a node in a cluster of n members while every
// member backs up to every other and restores at the same time, with the default sizes:
//     exchange      hello_buffers 8 + own_buffers 3 + control_buffers 16                       27
//     backup, in    per source: agreed 4 (receive_blocks)                                      4 n
//     backup, out   per target: agreed sends 4, acks 1                                         5 n
//     merges, in    streams to 8 sources, 2 each; merged blocks 4                               20
//     merges, out   16 streams, 2 sends and 1 request each                                      48
//     writes, in    per client stream 3, per forwarding member 2                               5 n
//     writes, out   replies: per coordinator 2, per forward 2                                  4 n
//     restore       requests in flight 12                                                      12
//   n = 8: 27 + 32 + 40 + 20 + 48 + 40 + 32 + 12 = 251 of the 255 buffers of 256 MiB.
// Beyond that, smaller `receive_blocks` (1 works, 2 keeps the wire busy) or a larger arena; a
// stream for which no buffers are left is refused with RESOURCE_EXHAUSTED and that advice, and
// nothing else is disturbed.
#ifndef SLUICE_DATAPLANE_STREAM_EXCHANGE_H_
#define SLUICE_DATAPLANE_STREAM_EXCHANGE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/stage.h"
#include "base/token_bucket.h"
#include "dataplane/stream/envelope.h"
#include "dataplane/stream/hello.h"
#include "drivers/transport.h"

namespace sluice {

class Stream;

// Takes credits back that it gave to a local stream's messages.
class CreditOwner {
 public:
  virtual ~CreditOwner() = default;
  virtual void credit_returned(size_t kind) = 0;
};

// The credit that a message of a local stream holds. Move-only; goes back with the message.
class DeliveryCredit {
 public:
  DeliveryCredit() = default;
  DeliveryCredit(std::shared_ptr<CreditOwner> owner, size_t kind)
      : owner_(std::move(owner)), kind_(kind) {}
  DeliveryCredit(DeliveryCredit&& other) noexcept = default;
  DeliveryCredit& operator=(DeliveryCredit&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(kind_, other.kind_);
    other.give_back();
    return *this;
  }
  ~DeliveryCredit() { give_back(); }

 private:
  void give_back() {
    if (const auto owner = std::exchange(owner_, nullptr); owner != nullptr) {
      owner->credit_returned(kind_);
    }
  }

  std::shared_ptr<CreditOwner> owner_;
  size_t kind_ = 0;
};

// One received message. Its buffer is the stream's, or of a local stream the sender's: holding it
// holds one credit of the peer back.
struct Message {
  Envelope envelope;
  BlockBuffer buffer;
  DeliveryCredit credit;
  std::span<const uint8_t> payload() const { return {buffer.data(), envelope.payload_bytes}; }
};

// Where received messages wait for a consumer. Each stream has one of its own, or several streams
// share one. Bounded by the receive buffers of its streams.
class Inbox {
 public:
  struct Delivery {
    std::shared_ptr<Stream> stream;
    Message message;
    // Set on the last delivery of a stream, which has no message: it is closed, and closed_reason()
    // says why.
    bool closed = false;
  };
  virtual ~Inbox() = default;
  // False after timeout_ms without a delivery, or when shut down.
  virtual bool take(int64_t timeout_ms, Delivery* delivery) = 0;
  // Ends current and future take() calls and lets go of what waits.
  virtual void shut_down() = 0;
  static std::shared_ptr<Inbox> create();
};

// One session with one peer. Thread-safe. Closes itself when its last outside reference goes.
class Stream {
 public:
  struct Counters {
    uint64_t sent_bytes =
        0;  // payloads and envelopes; the driver's framing is in Exchange::counters()
    uint64_t received_bytes = 0;
    uint64_t sent_messages = 0;
    uint64_t received_messages = 0;
  };
  virtual ~Stream() = default;

  // The connecting side's hello, at both ends.
  virtual const Hello& hello() const = 0;
  // The peer's address, in the driver's words.
  virtual const std::string& peer() const = 0;
  // A later stream of its exchange has a larger one.
  virtual uint64_t number() const = 0;

  // Queues a sealed message (Envelope::seal) of `bytes` bytes, waiting for room in the stream's
  // bounded queue. DEADLINE_EXCEEDED after timeout_ms (the buffer is let go), or the reason for
  // which the stream is closed. OK means queued: the buffer goes home when the transport is done
  // with it.
  virtual absl::Status send(BlockBuffer message, uint32_t bytes, int64_t timeout_ms) = 0;
  // Sends a small message (payload at most 1 MiB) from the exchange's control buffers, of which a
  // stream has at most two at a time. Errors as above.
  virtual absl::Status send_control(Envelope envelope, std::string_view payload,
                                    int64_t timeout_ms) = 0;
  // The next message, from the stream's own inbox. DEADLINE_EXCEEDED after timeout_ms; after the
  // last message the reason of the close (UNAVAILABLE "closed by peer" for an orderly one).
  virtual absl::StatusOr<Message> receive(int64_t timeout_ms) = 0;

  // From now on `hook` is called when there may be something to receive(), when there may be room
  // for send() or send_control() where there was none, and when the stream has closed; and once
  // now. From any thread, under the stream's lock: it must be quick and not use the stream.
  virtual void on_change(std::function<void()> hook) = 0;

  // Begins to close: an error is told to the peer first, if it has credit left. Idempotent.
  // Messages queued before are still sent after an OK close.
  virtual void close(const absl::Status& reason) = 0;
  virtual bool closed() const = 0;
  // OK while open. Of what the peer told with kError: its code and text.
  virtual absl::Status closed_reason() const = 0;
  virtual Counters counters() const = 0;
};

// Takes the streams that peers open. Called on the exchange's thread: must not wait, send or call
// the exchange.
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  struct Admission {
    size_t receive_blocks = 0;     // 0: the exchange's default
    std::shared_ptr<Inbox> inbox;  // null: the stream's own
  };
  // Whether to accept; an error is told to the peer, whose connect() returns it. After NOT_FOUND
  // the peer waits for the next handler of its kind and job, as if there were none.
  virtual absl::StatusOr<Admission> admit(const Hello& hello) = 0;
  virtual void accepted(std::shared_ptr<Stream> stream) = 0;
};

// Bytes a second of bulk in each direction; 0: no limit. Thread-safe.
struct BulkLimit {
  BulkLimit(Clock& clock, uint64_t bytes_per_second)
      : in(clock, bytes_per_second, kBufferBytes), out(clock, bytes_per_second, kBufferBytes) {}
  TokenBucket in;
  TokenBucket out;
};

class Exchange {
 public:
  struct Options {
    Arena* arena = nullptr;
    Transport* transport = nullptr;
    std::string listen;  // the driver's words; empty: only connects
    std::string
        cluster;  // UUID: a hello of another cluster is refused. Empty: any (a restoring client)
    std::string node;
    uint64_t incarnation = 0;
    size_t max_streams = 256;      // accepted ones, and as many that this side connects
    size_t max_strangers = 128;    // connections whose hello is not accepted (yet)
    size_t hello_buffers = 8;      // of them, those that can say hello; none without `listen`
    int64_t hello_grace_ms = 200;  // a silent one keeps its buffer for so long while others wait
    size_t own_buffers = 3;        // hellos, answers to them, keepalives, errors
    size_t control_buffers = 16;
    size_t receive_blocks = 4;  // of a stream, where nothing else is said
    size_t send_queue = 8;      // messages queued on one stream
    int64_t timer_ms = 50;      // how often time limits of streams are looked at
    int64_t hello_timeout_ms = 10'000;
    int64_t serve_wait_ms = 500;   // of a hello for a job that is not served
    int64_t keepalive_ms = 5'000;  // without another message
    int64_t idle_timeout_ms =
        30'000;              // without any message from a peer that could send one: it is dead
    Clock* clock = nullptr;  // the system's when null
    Executor* executor = nullptr;  // null: one of its own, with default_executor_threads()
    // Asked at each hello, on the exchange's thread: an error is told to the peer, and nothing is
    // served. Null: always OK.
    std::function<absl::Status()> gate;
    BulkLimit* limit = nullptr;  // null: none. Outlives the exchange
  };
  // The transport, the arena and the clock outlive the exchange.
  static absl::StatusOr<std::unique_ptr<Exchange>> open(const Options& options);
  virtual ~Exchange() = default;

  // Where peers reach it.
  virtual std::string address() const = 0;

  struct ConnectOptions {
    std::string address;
    StreamKind kind = StreamKind::kWrite;
    std::string cluster;  // of the peer; the exchange's own when empty
    std::string target;   // the member that must be there; empty: whoever listens
    std::string job;
    uint64_t attempt = 0;
    size_t receive_blocks = 0;     // 0: the exchange's default
    std::shared_ptr<Inbox> inbox;  // null: the stream's own
    int64_t timeout_ms = 10'000;
  };
  // Connects and shakes hands. A stream to this exchange's own address is local: it has the same
  // rules, and what is sent is handed over in its buffer. The peer's refusal comes back with its
  // code and text (NOT_FOUND: nobody there serves this kind or job, nor did within serve_wait_ms;
  // FAILED_PRECONDITION:
  // version, cluster or attempt do not fit; RESOURCE_EXHAUSTED: no buffers left there). Waits; not
  // to be called from a handler.
  virtual absl::StatusOr<std::shared_ptr<Stream>> connect(const ConnectOptions& options) = 0;

  // The same without waiting: `done` is called once, from this call or on the exchange's thread,
  // and must be quick. Nobody is waited for in a local connect: NOT_FOUND comes at once.
  using Connected = std::function<void(absl::StatusOr<std::shared_ptr<Stream>>)>;
  virtual void begin_connect(const ConnectOptions& options, Connected done) = 0;

  // Streams of this kind and job (empty: every job) go to the handler from now on, those first that
  // wait for it. ALREADY_EXISTS when another has them.
  virtual absl::Status serve(StreamKind kind, const std::string& job, StreamHandler* handler) = 0;
  // After it returns the handler is not called any more. Its streams stay open.
  virtual void withdraw(StreamKind kind, const std::string& job) = 0;

  virtual Arena& arena() = 0;
  virtual Clock& clock() = 0;
  // Where work on what comes over its streams goes on.
  virtual Executor& executor() = 0;
  virtual TransportLimits limits() const = 0;
  // Of the endpoint: all streams, with framing, since open.
  virtual TransportCounters counters() const = 0;
  virtual size_t streams() const = 0;
  // What its thread did since open, up to now: moving messages, waiting for something to do.
  virtual StageTimes times() const = 0;
  // Delivered on local streams, in bytes, since open. Not in counters().
  virtual uint64_t local_bytes() const = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STREAM_EXCHANGE_H_
