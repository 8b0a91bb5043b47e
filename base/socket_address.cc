#include "base/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

#include "base/status.h"
#include "base/text.h"

namespace sluice {
namespace {

absl::Status unreadable(std::string_view text, std::string_view why) {
  return invalid_argument("address \"{}\": {}; give HOST:PORT such as 127.0.0.1:7001 or [::1]:7001",
                          printable(text), why);
}

const sockaddr_in& as_v4(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr_in&>(address.storage);
}

const sockaddr_in6& as_v6(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr_in6&>(address.storage);
}

}  // namespace

absl::StatusOr<SocketAddress> parse_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return unreadable(text, "it has no port");
  // It would end what the C library reads.
  if (text.find('\0') != std::string_view::npos) return unreadable(text, "it has a zero byte");
  const std::string_view port_text = text.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] =
      std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (error != std::errc() || end != port_text.data() + port_text.size()) {
    return unreadable(text, "its port is not a number from 0 to 65535");
  }
  std::string host(text.substr(0, colon));
  SocketAddress address;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
    host = host.substr(1, host.size() - 2);
    if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1) {
      return unreadable(text, "its host is not an IPv6 address");
    }
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    address.length = sizeof(v6);
    return address;
  }
  if (host == "localhost") host = "127.0.0.1";
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) != 1) {
    return unreadable(text, "its host is not an IP address, and names are not looked up");
  }
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  address.length = sizeof(v4);
  return address;
}

std::string to_string(const SocketAddress& address) {
  char host[INET6_ADDRSTRLEN] = "?";
  if (address.family() == AF_INET6) {
    inet_ntop(AF_INET6, &as_v6(address).sin6_addr, host, sizeof(host));
    return fmt::format("[{}]:{}", host, ntohs(as_v6(address).sin6_port));
  }
  inet_ntop(AF_INET, &as_v4(address).sin_addr, host, sizeof(host));
  return fmt::format("{}:{}", host, ntohs(as_v4(address).sin_port));
}

bool operator==(const SocketAddress& a, const SocketAddress& b) {
  if (a.family() != b.family()) return false;
  if (a.family() == AF_INET6) {
    return as_v6(a).sin6_port == as_v6(b).sin6_port &&
           std::memcmp(&as_v6(a).sin6_addr, &as_v6(b).sin6_addr, sizeof(in6_addr)) == 0;
  }
  return as_v4(a).sin_port == as_v4(b).sin_port &&
         as_v4(a).sin_addr.s_addr == as_v4(b).sin_addr.s_addr;
}

}  // namespace sluice
