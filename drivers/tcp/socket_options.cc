#include "drivers/tcp/socket_options.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <string_view>

namespace sluice::tcp {
namespace {

constexpr uint32_t kLoopbackNet = 127;

// Every kernel has it and lets every process use it; it never paces by itself.
constexpr std::string_view kUnpaced = "reno";

const in_addr& host4(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr;
}

const in6_addr& host6(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr;
}

}  // namespace

void set_option(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof(value));
}

void set_up_socket(int fd, int64_t dead_peer_timeout_ms) {
  const int seconds = static_cast<int>(std::max<int64_t>(dead_peer_timeout_ms / 1000, 1));
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, std::max(seconds / 4, 1));
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, std::max(seconds / 4, 1));
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(dead_peer_timeout_ms));
}

bool on_one_machine(const SocketAddress& a, const SocketAddress& b) {
  if (a.family() != b.family()) return false;
  if (a.family() == AF_INET) {
    return host4(a).s_addr == host4(b).s_addr || ntohl(host4(b).s_addr) >> 24 == kLoopbackNet;
  }
  if (a.family() != AF_INET6) return false;
  return IN6_ARE_ADDR_EQUAL(&host6(a), &host6(b));
}

int leave_out_pacing_on_one_machine(int fd) {
  SocketAddress ours;
  SocketAddress theirs;
  const bool known = getsockname(fd, ours.get(), &ours.length) == 0 &&
                     getpeername(fd, theirs.get(), &theirs.length) == 0;
  if (!known || !on_one_machine(ours, theirs)) return 2;
  setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kUnpaced.data(), kUnpaced.size());
  return 3;
}

void reset_on_close(int fd) {
  const linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

}  // namespace sluice::tcp
