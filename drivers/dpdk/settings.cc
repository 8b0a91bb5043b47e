#include "drivers/dpdk/settings.h"

#include <charconv>
#include <optional>
#include <vector>

#include "base/status.h"
#include "base/text.h"
#include "drivers/dpdk/frame.h"

namespace sluice::dpdk {
namespace {

constexpr std::string_view kExample =
    "write ADDRESS:PORT%DEVICE, as 10.12.0.1:7001%net_af_packet0,iface=eth1 or "
    "10.12.0.1/24:7001%0000:3b:00.0;gateway=10.12.0.254;mtu=9000";
constexpr int kMinMtu = 576;
constexpr int kMaxMtu = 9600;
constexpr size_t kMaxDeviceBytes = 255;

std::optional<int> number(std::string_view text, int least, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most)
    return std::nullopt;
  return value;
}

std::optional<uint32_t> parse_ip(std::string_view text) {
  uint32_t ip = 0;
  for (int i = 0; i < 4; ++i) {
    const size_t dot = i < 3 ? text.find('.') : text.size();
    if (dot > 3) return std::nullopt;  // nor is there one
    const std::optional<int> byte = number(text.substr(0, dot), 0, 255);
    if (!byte) return std::nullopt;
    ip = ip << 8 | static_cast<uint32_t>(*byte);
    text.remove_prefix(i < 3 ? dot + 1 : dot);
  }
  if (!is_host_address(ip)) return std::nullopt;
  return ip;
}

// `shown` is the whole text, for messages.
absl::Status read_option(std::string_view shown, std::string_view option, PortSettings* settings) {
  const size_t equals = option.find('=');
  const std::string_view name = option.substr(0, equals);
  const std::string_view value =
      equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1);
  if (name == "gateway") {
    const std::optional<uint32_t> gateway = parse_ip(value);
    if (!gateway)
      return invalid_argument("{}: gateway={}: an IPv4 address of a host expected", shown,
                              printable(value));
    settings->gateway = *gateway;
    return absl::OkStatus();
  }
  if (name == "mtu") {
    const std::optional<int> mtu = number(value, kMinMtu, kMaxMtu);
    if (!mtu)
      return invalid_argument("{}: mtu={}: {} to {} expected", shown, printable(value), kMinMtu,
                              kMaxMtu);
    settings->mtu = static_cast<uint16_t>(*mtu);
    return absl::OkStatus();
  }
  if (name == "poll" && (value == "busy" || value == "adaptive")) {
    settings->polling = value == "busy" ? Polling::kBusy : Polling::kAdaptive;
    return absl::OkStatus();
  }
  return invalid_argument(
      "{}: \"{}\" is no option; there are gateway=ADDRESS, mtu=BYTES, poll=adaptive and poll=busy",
      shown, printable(option));
}

// ADDRESS[/PREFIX]:PORT
absl::Status read_place(std::string_view shown, std::string_view place, PortSettings* settings) {
  const size_t colon = place.rfind(':');
  std::string_view host = place.substr(0, colon);
  const size_t slash = host.find('/');
  if (slash != std::string_view::npos) {
    const std::optional<int> prefix = number(host.substr(slash + 1), 1, 32);
    if (!prefix) return invalid_argument("{}: a prefix of 1 to 32 bits expected after /", shown);
    settings->prefix = *prefix;
    host = host.substr(0, slash);
  }
  const std::optional<uint32_t> ip = parse_ip(host);
  if (!ip)
    return invalid_argument("{}: no IPv4 address of a host before the port; {}", shown, kExample);
  settings->ip = *ip;
  if (colon == std::string_view::npos) return absl::OkStatus();
  const std::optional<int> port = number(place.substr(colon + 1), 0, 65535);
  if (!port) return invalid_argument("{}: a UDP port of 0 to 65535 expected; {}", shown, kExample);
  settings->udp_port = static_cast<uint16_t>(*port);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PortSettings> parse_settings(std::string_view text) {
  PortSettings settings;
  const std::string shown = printable(text);
  const size_t percent = text.find('%');
  if (percent == std::string_view::npos)
    return invalid_argument("\"{}\" names no device; {}", shown, kExample);
  SLUICE_RETURN_IF_ERROR(read_place(shown, text.substr(0, percent), &settings));
  std::string_view rest = text.substr(percent + 1);
  std::vector<std::string_view> parts;
  for (size_t end = rest.find(';'); end != std::string_view::npos; end = rest.find(';')) {
    parts.push_back(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  parts.push_back(rest);
  const std::string_view device = parts.front();
  const size_t comma = device.find(',');
  settings.device = device.substr(0, comma);
  if (comma != std::string_view::npos) settings.arguments = device.substr(comma + 1);
  if (settings.device.empty() || device.size() > kMaxDeviceBytes)
    return invalid_argument("{}: no device after %; {}", shown, kExample);
  for (size_t i = 1; i < parts.size(); ++i)
    SLUICE_RETURN_IF_ERROR(read_option(shown, parts[i], &settings));
  if (settings.gateway != 0 && settings.prefix == 0)
    return invalid_argument("{}: a gateway needs a /PREFIX: which peers are on the link?", shown);
  return settings;
}

absl::StatusOr<Ipv4Port> parse_address(std::string_view text, bool any_port) {
  const size_t colon = text.rfind(':');
  const std::optional<uint32_t> ip =
      colon == std::string_view::npos ? std::nullopt : parse_ip(text.substr(0, colon));
  const std::optional<int> port =
      ip ? number(text.substr(colon + 1), any_port ? 0 : 1, 65535) : std::nullopt;
  if (!port)
    return invalid_argument("address \"{}\": ADDRESS:PORT expected, as 10.12.0.1:7001",
                            printable(text));
  return Ipv4Port{*ip, static_cast<uint16_t>(*port)};
}

std::string ip_text(uint32_t ip) {
  return fmt::format("{}.{}.{}.{}", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

std::string address_text(uint32_t ip, uint16_t port) {
  return fmt::format("{}:{}", ip_text(ip), port);
}

std::string_view argument_of(std::string_view arguments, std::string_view name) {
  while (!arguments.empty()) {
    const size_t comma = arguments.find(',');
    const std::string_view one = arguments.substr(0, comma);
    const size_t equals = one.find('=');
    if (one.substr(0, equals) == name)
      return equals == std::string_view::npos ? std::string_view() : one.substr(equals + 1);
    arguments = comma == std::string_view::npos ? std::string_view() : arguments.substr(comma + 1);
  }
  return {};
}

}  // namespace sluice::dpdk
