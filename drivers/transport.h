// The contract between the dataplane and the wires. A transport moves blocks of an arena between
// two nodes: reliably, in order, each at most once per connection. Nothing above drivers/ knows
// which transport it is.
//
// It is two-sided: a receive block that the peer has posted is the credit to send one block, so no
// remote key or address is ever seen above a driver, and a slow receiver is back-pressure, never a
// loss.
//
// Ownership. A buffer enters with a post and comes back with exactly one completion, on success and
// on failure. After a failure (or close) of a connection all its posted buffers come back, each
// with the error (unused receive buffers after an orderly close: CANCELLED), and then exactly one
// kClosed, after which the connection id is never used again. A buffer that has come back is
// neither read nor written by the transport any more, whatever the peer still sends.
//
// Two ways to end a connection. close() is for good peers: it delivers what was sent, waits for the
// peer, and therefore ends when the peer lets it, or after the driver's limit. abort() is for all
// others (one that is silent, breaks the protocol, is refused, is too many): it waits for nobody.
//
// What each side guarantees
//  1. Blocks arrive in the order of post_send, whole, at most once, with the length they were sent
//     with.
//  2. kSent means that the buffer is free again, never that the peer's program has seen or stored
//     it.
//  3. Posts accept a prefix and return its length. Zero is back-pressure, not an error. Buffers of
//     the accepted prefix are moved from; the others stay the caller's.
//  4. post_send accepts no more blocks than credits() says. The peer's credits arrive by poll().
//  5. No call blocks except wait(). Nothing throws. Nothing in a transport's wire input is trusted:
//     a peer that breaks the protocol costs its own connection (kClosed with a reason that says
//     what it did) and nothing else.
//  6. A length of 0 and one over limits().max_message_bytes is a programmer's error.
//  7. A peer that is refused before it is accepted (another protocol version or buffer size, or it
//     never says) gives a kClosed of an id without a kAccepted before it: something to log.
//  8. Both ends need the same largest message: min(limits().max_message_bytes, the arena's buffer
//     size).
#ifndef SLUICE_DRIVERS_TRANSPORT_H_
#define SLUICE_DRIVERS_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"

namespace sluice {

// Names one connection of one endpoint. Never 0, never reused.
using ConnectionId = uint64_t;

enum class CompletionKind : uint8_t {
  kAccepted,   // a peer connected to the listen address; peer says who, as far as the wire knows
  kConnected,  // a connect() succeeded
  kReceived,   // a posted buffer holds a message of `bytes` bytes (or comes back: status not OK)
  kSent,       // a sent buffer is free again (status not OK: it may or may not have arrived)
  kClosed,     // the connection is over; status says why, OK after an orderly close by either side
};

struct Completion {
  CompletionKind kind = CompletionKind::kClosed;
  ConnectionId connection = 0;
  BlockBuffer buffer;  // kReceived and kSent
  uint32_t bytes = 0;  // kReceived and kSent, with an OK status
  absl::Status status;
  std::string peer;  // kAccepted, kConnected, kClosed: the peer's address in the driver's words
};

struct SendRequest {
  BlockBuffer buffer;
  uint32_t bytes = 0;  // sent from the buffer's start
};

struct TransportLimits {
  size_t max_message_bytes = 0;  // the largest message, at most the arena's buffer size
  size_t receive_depth = 0;      // receive buffers that one connection can have posted
  size_t send_depth = 0;         // sends that one connection can have in flight
  // Whether payload bytes are copied, by the driver or by the kernel, from or to the arena.
  bool copies_on_send = false;
  bool copies_on_receive = false;
  // What the driver works from best.
  Arena::Pages arena_pages = Arena::Pages::kNormal;
};

// What has passed through an endpoint. The bytes are those the driver hands to and gets from the
// operating system or device: payload, framing and control messages of the driver, of all
// connections since open.
struct TransportCounters {
  uint64_t sent_bytes = 0;
  uint64_t received_bytes = 0;
  uint64_t sent_messages = 0;
  uint64_t received_messages = 0;
  uint64_t system_calls = 0;
};

// One node's end of a transport. Confined to one thread, except wake(). Destroying it closes every
// connection; posted buffers then go home without completions.
class Endpoint {
 public:
  virtual ~Endpoint() = default;

  // Where peers reach it, with a port that was given as 0 resolved; empty when it does not listen.
  virtual std::string address() const = 0;
  // Begins to connect; kConnected or kClosed follows. INVALID_ARGUMENT for an address that the
  // driver cannot read.
  virtual absl::StatusOr<ConnectionId> connect(std::string_view address) = 0;
  // Begins an orderly close: what was sent before is still delivered. Returns nothing; kClosed
  // follows. Unknown and closed connections are ignored by this and every other call.
  virtual void close(ConnectionId connection) = 0;
  // Ends the connection now, in any state, also one that is being closed. What was sent before may
  // or may not arrive, nothing else is accepted, and the peer's end closes with an error as soon as
  // it hears of it. What had been received comes first; then the posted buffers and kClosed follow,
  // all CANCELLED, with the next poll() that has room for them. The peer is not waited for; a
  // device that is still reading a sent buffer is, within the driver's limit.
  virtual void abort(ConnectionId connection) = 0;
  virtual size_t post_recv(ConnectionId connection, std::span<BlockBuffer> buffers) = 0;
  virtual size_t post_send(ConnectionId connection, std::span<SendRequest> requests) = 0;
  // Blocks that post_send would accept now.
  virtual size_t credits(ConnectionId connection) const = 0;
  // Moves the connections along and takes up to completions.size() completions. Never blocks.
  virtual size_t poll(std::span<Completion> completions) = 0;
  // Sleeps until there is something to poll, wake() was called, or timeout_ns passed. For idle
  // loops only.
  virtual void wait(int64_t timeout_ns) = 0;
  // Ends the current or next wait(). The one call that any thread may make.
  virtual void wake() = 0;
  virtual TransportCounters counters() const = 0;
};

// A kind of wire. Thread-safe; outlives its endpoints.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual std::string_view name() const = 0;
  virtual TransportLimits limits() const = 0;
  // `listen` is in the driver's words (tcp: "127.0.0.1:7001", port 0 for any free one); empty to
  // only connect. The arena must outlive the endpoint. Fails with what to change: address in use,
  // no such device, no permission.
  virtual absl::StatusOr<std::unique_ptr<Endpoint>> open(Arena& arena, std::string_view listen) = 0;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_TRANSPORT_H_
