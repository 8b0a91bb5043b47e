// Feeds the readers of addresses, of a DPDK port's settings and of base64 anything. The first byte
// chooses the reader.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/socket_address.h"
#include "base/text.h"
#include "drivers/dpdk/frame.h"
#include "drivers/dpdk/settings.h"
#include "drivers/rdma/endpoint.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

void read_address(std::string_view text) {
  const auto address = parse_address(text);
  require_readable(address.status());
  if (!address.ok()) return;
  require(text.find('\0') == std::string_view::npos);
  const auto again = parse_address(to_string(*address));
  require(again.ok() && *again == *address);
}

void read_rdma_address(std::string_view text) {
  const auto address = rdma::parse_rdma_address(text, "device");
  require_readable(address.status());
  if (address.ok()) require(!address->device.empty());
}

void read_settings(std::string_view text) {
  const auto settings = dpdk::parse_settings(text);
  require_readable(settings.status());
  if (!settings.ok()) return;
  require(dpdk::is_host_address(settings->ip) && !settings->device.empty());
  require(settings->prefix >= 0 && settings->prefix <= 32);
  require(settings->mtu == 0 || (settings->mtu >= 576 && settings->mtu <= 9600));
  (void)dpdk::argument_of(settings->arguments, "iface");
}

void read_ipv4(std::string_view text) {
  const auto address = dpdk::parse_address(text, false);
  require_readable(address.status());
  if (!address.ok()) return;
  const auto again = dpdk::parse_address(dpdk::address_text(address->ip, address->port), false);
  require(again.ok() && again->ip == address->ip && again->port == address->port);
}

void read_base64(std::string_view text) {
  std::string bytes;
  if (base64_decode(text, &bytes)) require(base64_encode(bytes) == text);
  require(base64_decode(base64_encode(text), &bytes) && bytes == text);
  const std::string shown = printable(text);
  require(is_utf8(shown));
  for (const char c : shown) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
      read_address(text);
      break;
    case 1:
      read_rdma_address(text);
      break;
    case 2:
      read_settings(text);
      break;
    case 3:
      read_ipv4(text);
      break;
    default:
      read_base64(text);
      break;
  }
  return 0;
}
