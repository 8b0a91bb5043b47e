#include "base/bytes.h"

namespace sluice {

bool ByteReader::get_long_varint(uint64_t* value) {
  uint64_t result = 0;
  for (size_t i = 0; i < 10 && i < bytes_.size(); ++i) {
    const auto byte = static_cast<uint8_t>(bytes_[i]);
    if (i == 9 && byte > 1) return false;
    result |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) {
      if (byte == 0 && i > 0) return false;
      bytes_.remove_prefix(i + 1);
      *value = result;
      return true;
    }
  }
  return false;
}

bool ByteReader::get_string(std::string_view* bytes, size_t limit) {
  const std::string_view before = bytes_;
  uint64_t size = 0;
  if (!get_varint(&size) || size > limit || size > bytes_.size()) {
    bytes_ = before;
    return false;
  }
  return get_bytes(static_cast<size_t>(size), bytes);
}

}  // namespace sluice
