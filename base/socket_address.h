// "host:port" to a socket address and back, without any lookup that could block.
#ifndef SLUICE_BASE_SOCKET_ADDRESS_H_
#define SLUICE_BASE_SOCKET_ADDRESS_H_

#include <sys/socket.h>

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_storage);

  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};

// "127.0.0.1:7001", "[::1]:7001", "localhost:7001"; INVALID_ARGUMENT with an example for anything
// else.
absl::StatusOr<SocketAddress> parse_address(std::string_view text);
std::string to_string(const SocketAddress& address);
bool operator==(const SocketAddress& a, const SocketAddress& b);

}  // namespace sluice

#endif  // SLUICE_BASE_SOCKET_ADDRESS_H_
