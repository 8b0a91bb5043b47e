// Little-endian integers and LEB128 varints in byte buffers, bounded at both ends: the writer never
// passes its end, the reader treats its input as hostile. Every format of the project is made of
// these.
#ifndef SLUICE_BASE_BYTES_H_
#define SLUICE_BASE_BYTES_H_

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

static_assert(std::endian::native == std::endian::little,
              "formats are little-endian; so is the code");

template <std::unsigned_integral T>
inline T load_le(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <std::unsigned_integral T>
inline void store_le(void* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

// Bytes that `value` takes as a varint: 1 to 10.
inline size_t varint_size(uint64_t value) {
  return (static_cast<size_t>(std::bit_width(value | 1)) + 6) / 7;
}

// Appends to a std::string. Used for small documents; blocks have their own builder.
class ByteWriter {
 public:
  explicit ByteWriter(std::string* out) : out_(out) {}
  template <std::unsigned_integral T>
  void put(T value) {
    out_->append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void put_varint(uint64_t value) {
    while (value >= 0x80) {
      out_->push_back(static_cast<char>(value | 0x80));
      value >>= 7;
    }
    out_->push_back(static_cast<char>(value));
  }
  void put_bytes(std::string_view bytes) { out_->append(bytes); }
  // A varint length, then the bytes.
  void put_string(std::string_view bytes) {
    put_varint(bytes.size());
    put_bytes(bytes);
  }

 private:
  std::string* out_;
};

// Reads from memory it does not own. Every method is false, and moves nothing, when the input is
// too short or malformed (a varint over 10 bytes or over 64 bits, or not in its shortest form).
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}
  explicit ByteReader(std::span<const uint8_t> bytes)
      : bytes_(reinterpret_cast<const char*>(bytes.data()), bytes.size()) {}

  size_t remaining() const { return bytes_.size(); }
  bool done() const { return bytes_.empty(); }

  template <std::unsigned_integral T>
  bool get(T* value) {
    if (bytes_.size() < sizeof(T)) return false;
    *value = load_le<T>(bytes_.data());
    bytes_.remove_prefix(sizeof(T));
    return true;
  }
  bool get_varint(uint64_t* value) {
    // Most are of one byte.
    if (bytes_.empty() || (static_cast<uint8_t>(bytes_.front()) & 0x80) != 0) {
      return get_long_varint(value);
    }
    *value = static_cast<uint8_t>(bytes_.front());
    bytes_.remove_prefix(1);
    return true;
  }
  bool get_bytes(size_t size, std::string_view* bytes) {
    if (bytes_.size() < size) return false;
    *bytes = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return true;
  }
  // A varint length of at most `limit`, then the bytes.
  bool get_string(std::string_view* bytes, size_t limit);

 private:
  bool get_long_varint(uint64_t* value);

  std::string_view bytes_;
};

inline std::string_view as_string_view(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace sluice

#endif  // SLUICE_BASE_BYTES_H_
