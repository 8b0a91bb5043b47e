#include "drivers/tcp/sending_cost.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <limits>
#include <memory>
#include <utility>

#include "base/arena.h"
#include "base/checksum.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/socket_address.h"
#include "base/status.h"
#include "drivers/tcp/socket_options.h"

namespace sluice::tcp {
namespace {

constexpr int64_t kLimitNs = 20'000'000;
constexpr int kConnectMs = 5;
constexpr int kRounds = 4;
constexpr size_t kBlocks = 4;

// A block sent by reference is in use until the peer has it, so sendfile has to be clearly cheaper.
constexpr double kWorthwhile = 0.9;

int64_t thread_cpu_ns() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Blocks in an arena, as those that the driver sends, and a connection from this thread to itself.
class Probe {
 public:
  absl::Status set_up() {
    SLUICE_ASSIGN_OR_RETURN(arena_, Arena::create({.bytes = kBlocks * kBufferBytes}));
    std::memset(arena_->base(), 1, arena_->bytes());
    return connect();
  }

  // Sends all blocks, as many at a time as the connection takes, so that what is between the two
  // ends comes from no nearer memory than with a receiver on another processor. The processor time
  // of the calls that sent; negative: they failed, or the time was over.
  int64_t send_all(bool by_sendfile, int64_t deadline_ns) {
    int64_t cost_ns = 0;
    size_t received = 0;
    for (size_t i = 0; i < kBlocks; ++i) {
      // As the layer above does, which has just made its checksum.
      checksums_ ^= xxh3_64(block(i), kMaxBlockBytes);
      for (size_t sent = 0; sent < kMaxBlockBytes;) {
        const int64_t begin_ns = thread_cpu_ns();
        const ssize_t count = send_some(i, sent, by_sendfile);
        cost_ns += thread_cpu_ns() - begin_ns;
        if (count < 0 && (errno != EAGAIN || !drop_received(&received))) return -1;
        sent += static_cast<size_t>(std::max<ssize_t>(count, 0));
        if (system_clock().monotonic_ns() >= deadline_ns) return -1;
      }
    }
    while (received < kBlocks * kMaxBlockBytes) {
      if (!drop_received(&received) || system_clock().monotonic_ns() >= deadline_ns) return -1;
    }
    return cost_ns;
  }

 private:
  uint8_t* block(size_t i) const { return arena_->base() + i * kBufferBytes; }

  // Not even a loopback that swallows everything may hold this up.
  absl::Status connect() {
    SLUICE_ASSIGN_OR_RETURN(SocketAddress address, parse_address("127.0.0.1:0"));
    constexpr int kType = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    const UniqueFd listener(socket(AF_INET, kType, 0));
    sender_.reset(socket(AF_INET, kType, 0));
    if (!listener || !sender_) return errno_status(errno, "socket");
    if (bind(listener.get(), address.get(), address.length) != 0 ||
        listen(listener.get(), 1) != 0 ||
        getsockname(listener.get(), address.get(), &address.length) != 0 ||
        (::connect(sender_.get(), address.get(), address.length) != 0 && errno != EINPROGRESS)) {
      return errno_status(errno, "connect to loopback");
    }
    pollfd waiting{listener.get(), POLLIN, 0};
    if (poll(&waiting, 1, kConnectMs) != 1) return unavailable("loopback does not answer");
    SocketAddress ours;
    SocketAddress theirs;
    receiver_.reset(accept4(listener.get(), theirs.get(), &theirs.length, SOCK_CLOEXEC));
    if (!receiver_ || getsockname(sender_.get(), ours.get(), &ours.length) != 0) {
      return errno_status(errno, "accept from loopback");
    }
    if (!(ours == theirs)) return unavailable("somebody else connected");
    leave_out_pacing_on_one_machine(sender_.get());
    return absl::OkStatus();
  }

  // Takes what there is, without copying it anywhere.
  bool drop_received(size_t* received) const {
    const ssize_t got =
        recv(receiver_.get(), nullptr, kBlocks * kMaxBlockBytes, MSG_TRUNC | MSG_DONTWAIT);
    if (got > 0) *received += static_cast<size_t>(got);
    return got > 0 || (got < 0 && errno == EAGAIN);
  }

  ssize_t send_some(size_t index, size_t from, bool by_sendfile) const {
    const size_t rest = kMaxBlockBytes - from;
    if (!by_sendfile) return send(sender_.get(), block(index) + from, rest, MSG_NOSIGNAL);
    auto offset = static_cast<off_t>(index * kBufferBytes + from);
    return sendfile(sender_.get(), arena_->memfd(), &offset, rest);
  }

  std::unique_ptr<Arena> arena_;
  UniqueFd sender_;
  UniqueFd receiver_;
  uint64_t checksums_ = 0;
};

bool sendfile_pays() {
  const absl::StatusOr<SendingCost> cost = measure_sending_cost(kLimitNs);
  if (!cost.ok()) {
    spdlog::debug("tcp: cannot measure ways of sending: {}", message_of(cost.status()));
    return false;
  }
  const bool pays =
      static_cast<double>(cost->sendfile_ns) < kWorthwhile * static_cast<double>(cost->write_ns);
  spdlog::debug("tcp: a block costs {} us by write, {} us by sendfile: large ones go by {}",
                cost->write_ns / 1000, cost->sendfile_ns / 1000, pays ? "sendfile" : "write");
  return pays;
}

}  // namespace

absl::StatusOr<SendingCost> measure_sending_cost(int64_t limit_ns) {
  const int64_t deadline_ns = system_clock().monotonic_ns() + limit_ns;
  Probe probe;
  SLUICE_RETURN_IF_ERROR(probe.set_up());
  // The first round is not counted: it finds cold memory and a connection that has just begun.
  SendingCost lowest{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max()};
  int counted = -1;
  for (; counted < kRounds; ++counted) {
    const int64_t write_ns = probe.send_all(false, deadline_ns);
    const int64_t sendfile_ns = write_ns < 0 ? -1 : probe.send_all(true, deadline_ns);
    if (sendfile_ns < 0) break;
    if (counted < 0) continue;
    lowest.write_ns = std::min(lowest.write_ns, write_ns);
    lowest.sendfile_ns = std::min(lowest.sendfile_ns, sendfile_ns);
  }
  if (counted < 1) return deadline_exceeded("no round was completed");
  return SendingCost{lowest.write_ns / int64_t{kBlocks}, lowest.sendfile_ns / int64_t{kBlocks}};
}

bool uses_sendfile(TcpOptions::SendBy send_by) {
  if (send_by != TcpOptions::SendBy::kMeasured) return send_by == TcpOptions::SendBy::kSendfile;
  static const bool pays = sendfile_pays();
  return pays;
}

}  // namespace sluice::tcp
