#include "base/text.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <ctime>
#include <iterator>

namespace sluice {
namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<int8_t, 256> make_values() {
  std::array<int8_t, 256> values{};
  for (auto& value : values) value = -1;
  for (int8_t i = 0; i < 64; ++i) values[static_cast<uint8_t>(kAlphabet[i])] = i;
  return values;
}
constexpr std::array<int8_t, 256> kValues = make_values();

// Bytes of the well-formed sequence at the start of `bytes`; 0 when there is none.
size_t utf8_sequence(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t first = at(0);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (bytes.size() < length) return 0;
  const uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (at(1) < low || at(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) {
      group = group << 8 | (j < count ? static_cast<uint8_t>(bytes[i + j]) : 0);
    }
    text.push_back(kAlphabet[group >> 18]);
    text.push_back(kAlphabet[group >> 12 & 63]);
    text.push_back(count > 1 ? kAlphabet[group >> 6 & 63] : '=');
    text.push_back(count > 2 ? kAlphabet[group & 63] : '=');
  }
  return text;
}

bool base64_decode(std::string_view text, std::string* bytes) {
  bytes->clear();
  if (text.size() % 4 != 0) return false;
  if (text.empty()) return true;
  bytes->resize(text.size() / 4 * 3);
  const auto value_at = [&](size_t i) -> int32_t { return kValues[static_cast<uint8_t>(text[i])]; };
  char* out = bytes->data();
  const size_t last = text.size() - 4;  // only the last group may be padded
  int32_t signs = 0;
  for (size_t i = 0; i < last; i += 4, out += 3) {
    const int32_t values[4] = {value_at(i), value_at(i + 1), value_at(i + 2), value_at(i + 3)};
    signs |= values[0] | values[1] | values[2] | values[3];
    out[0] = static_cast<char>(values[0] << 2 | values[1] >> 4);
    out[1] = static_cast<char>(values[1] << 4 | values[2] >> 2);
    out[2] = static_cast<char>(values[2] << 6 | values[3]);
  }
  const size_t padding = text[last + 3] != '=' ? 0 : text[last + 2] == '=' ? 2 : 1;
  uint32_t group = 0;
  for (size_t j = 0; j < 4; ++j) {
    const int32_t value = j >= 4 - padding ? 0 : value_at(last + j);
    signs |= value;
    group = group << 6 | static_cast<uint32_t>(value & 63);
  }
  const uint32_t unused = padding == 0 ? 0 : (uint32_t{1} << 8 * padding) - 1;
  if (signs < 0 || (group & unused) != 0) {
    bytes->clear();
    return false;
  }
  out[0] = static_cast<char>(group >> 16);
  out[1] = static_cast<char>(group >> 8);
  out[2] = static_cast<char>(group);
  bytes->resize(bytes->size() - padding);
  return true;
}

bool is_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t length = utf8_sequence(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

std::string printable(std::string_view bytes, size_t limit) {
  std::string text;
  const size_t whole = bytes.size();
  size_t done = 0;
  while (done < whole) {
    if (done >= limit) {
      text += "...";
      break;
    }
    const std::string_view rest = bytes.substr(done);
    const size_t length = utf8_sequence(rest);
    const auto first = static_cast<uint8_t>(rest[0]);
    if (length == 0 || first < 0x20 || first == 0x7f) {
      fmt::format_to(std::back_inserter(text), "\\x{:02x}", first);
      done += 1;
    } else {
      text += rest.substr(0, length);
      done += length;
    }
  }
  return text;
}

std::string utc_text(int64_t unix_ms) {
  const auto seconds = static_cast<time_t>(unix_ms / 1000);
  struct tm fields {};
  if (unix_ms <= 0 || gmtime_r(&seconds, &fields) == nullptr) return "";
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", fields.tm_year + 1900,
                     fields.tm_mon + 1, fields.tm_mday, fields.tm_hour, fields.tm_min,
                     fields.tm_sec);
}

}  // namespace sluice
