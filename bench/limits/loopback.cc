// One TCP connection over loopback, each end a thread, from and to cold memory: written, and sent
// from a memfd without the sender's copy. With one processor both ends share it. Without pacing,
// which a system's congestion control may do and which is no limit.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <string_view>
#include <thread>

#include "base/file.h"
#include "bench/limits/limits.h"

namespace sluice::limits {
namespace {

constexpr double kSeconds = 1;
constexpr std::string_view kUnpaced = "reno";

struct Connection {
  UniqueFd sender;
  UniqueFd receiver;
};

Connection connect_loopback() {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  require(static_cast<bool>(listener), "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  require(bind(listener.get(), any, size) == 0 && listen(listener.get(), 1) == 0 &&
              getsockname(listener.get(), any, &size) == 0,
          "listen");
  Connection connection;
  connection.sender.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  require(setsockopt(connection.sender.get(), IPPROTO_TCP, TCP_CONGESTION, kUnpaced.data(),
                     kUnpaced.size()) == 0,
          "TCP_CONGESTION");
  require(connect(connection.sender.get(), any, size) == 0, "connect");
  connection.receiver.reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  require(static_cast<bool>(connection.receiver), "accept");
  return connection;
}

// Block after block into cold memory, to the end of the stream.
uint64_t receive_all(int fd, const ColdMemory& into) {
  uint64_t bytes = 0;
  for (;;) {
    const size_t in_block = bytes % kBlockBytes;
    const ssize_t got =
        recv(fd, into.block(bytes / kBlockBytes) + in_block, kBlockBytes - in_block, 0);
    require(got >= 0, "recv");
    if (got == 0) return bytes;
    bytes += static_cast<uint64_t>(got);
  }
}

// Sends `bytes` bytes of block `i` from `done` on, or fewer; returns how many.
using Send = std::function<ssize_t(int fd, size_t i, size_t done)>;

Sample stream(const Settings& settings, std::string_view name, const ColdMemory& into,
              const Send& send_some) {
  Connection connection = connect_loopback();
  const Meter meter;
  std::thread sender([&] {
    for (size_t i = 0; meter.seconds() < kSeconds * settings.scale; ++i) {
      for (size_t done = 0; done < kBlockBytes;) {
        const ssize_t sent = send_some(connection.sender.get(), i, done);
        require(sent > 0, "send");
        done += static_cast<size_t>(sent);
      }
    }
    connection.sender.reset();
  });
  const uint64_t bytes = receive_all(connection.receiver.get(), into);
  sender.join();
  return meter.stop(name, 0, bytes);
}

}  // namespace

std::vector<Sample> measure_loopback(const Settings& settings) {
  const ColdMemory from;
  const ColdMemory into;
  const Send by_write = [&](int fd, size_t i, size_t done) {
    return send(fd, from.block(i) + done, kBlockBytes - done, MSG_NOSIGNAL);
  };
  const Send by_sendfile = [&](int fd, size_t i, size_t done) {
    auto offset = static_cast<off_t>(from.block_offset(i) + done);
    return sendfile(fd, from.memfd(), &offset, kBlockBytes - done);
  };
  return {stream(settings, "tcp_write", into, by_write),
          stream(settings, "tcp_sendfile", into, by_sendfile)};
}

}  // namespace sluice::limits
