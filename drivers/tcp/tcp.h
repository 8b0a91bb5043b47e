// The transport that runs anywhere: TCP sockets, epoll, no privileges.
//
// Payload is received straight into the posted buffer, except for what comes along with a frame
// header (at most 512 bytes of a message, which are copied). A message is sent in one of two ways:
//  - by the gathering write, its header and what else is due in the same call: the kernel copies
//    it, and its buffer is free at once;
//  - by sendfile from the arena's memfd: nothing is copied, and the buffer is free only when the
//    peer has the message, which the peer says with cumulative counts.
// The first endpoint of a process measures which of the two costs the sender less (sending_cost.h);
// small messages, and all of an arena on huge pages (from which sendfile cannot read), are written
// in any case. Why: docs/design/009-how-tcp-sends.md.
//
// When a connection breaks, the buffers that were in flight come back at once. Bytes of them that
// the peer's kernel already holds by reference (sendfile, on one machine only) could then show the
// buffer's next content. The connection is reset, and a reset connection is not read any further,
// so what remains is a narrow race; the block checksum of the layer above closes it.
//
// Opening the first endpoint makes the process ignore SIGPIPE if it had no handler: sendfile cannot
// suppress the signal.
#ifndef SLUICE_DRIVERS_TCP_TCP_H_
#define SLUICE_DRIVERS_TCP_TCP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/arena.h"
#include "drivers/transport.h"

namespace sluice {

struct TcpOptions {
  enum class SendBy {
    kMeasured,  // what is cheaper on this machine (sending_cost.h)
    kSendfile,  // sendfile where the arena allows it
    kWrite,     // always the gathering write
  };
  SendBy send_by = SendBy::kMeasured;
  // Where sendfile is used, messages from this size on go by it. Below it one call that copies is
  // cheaper than two that do not.
  size_t sendfile_from_bytes = size_t{16} << 10;
  size_t max_message_bytes = kBufferBytes;
  size_t receive_depth = 1024;
  size_t send_depth = 1024;
  size_t max_connections = 4096;  // of one endpoint
  // Of them, accepted ones: the rest remains for connect(). The limit on descriptors holds as well
  // (base/descriptor.h). Beyond, a half-open connection makes room, or the new one is turned away.
  size_t max_accepted = 3072;
  // Accepted, their preamble outstanding. Beyond, the oldest one of the host that has the most is
  // turned away (base/newcomers.h): a peer that speaks at once is let in however many are silent.
  size_t max_half_open = 256;
  int64_t connect_timeout_ms = 5'000;
  int64_t handshake_timeout_ms = 5'000;
  // An orderly close gives up after so long without progress.
  int64_t close_timeout_ms = 30'000;
  // A peer that acknowledges nothing for so long is dead.
  int64_t dead_peer_timeout_ms = 20'000;
};

// Addresses are "127.0.0.1:7001", "[::1]:7001" or "localhost:7001"; other names are not looked up,
// since that blocks. Both ends need the same message limit: min(max_message_bytes, the arena's
// buffer size).
class TcpTransport final : public Transport {
 public:
  explicit TcpTransport(const TcpOptions& options = {});
  std::string_view name() const override { return "tcp"; }
  TransportLimits limits() const override;
  absl::StatusOr<std::unique_ptr<Endpoint>> open(Arena& arena, std::string_view listen) override;

 private:
  const TcpOptions options_;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_TCP_TCP_H_
