// XXH3 (xxhash.com, the XXH3 chapter of its specification) through the library's run-time CPU
// dispatch, which is twice as fast as its plain entry points.
#ifndef SLUICE_BASE_CHECKSUM_H_
#define SLUICE_BASE_CHECKSUM_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct XXH3_state_s;

namespace sluice {

// A 128-bit digest; also the group of sums mod 2^128 that slot digests live in.
struct Digest128 {
  uint64_t low = 0;
  uint64_t high = 0;

  // Orders as 128-bit unsigned integers.
  friend std::strong_ordering operator<=>(const Digest128& a, const Digest128& b) {
    if (auto order = a.high <=> b.high; order != 0) return order;
    return a.low <=> b.low;
  }
  friend bool operator==(const Digest128&, const Digest128&) = default;

  Digest128& operator+=(const Digest128& other) {
    const uint64_t sum = low + other.low;
    high += other.high + (sum < low ? 1 : 0);
    low = sum;
    return *this;
  }
  Digest128& operator-=(const Digest128& other) {
    high -= other.high + (low < other.low ? 1 : 0);
    low -= other.low;
    return *this;
  }

  // 32 lower-case hex digits, high half first.
  std::string to_hex() const;
  static bool from_hex(std::string_view text, Digest128* digest);
};

uint64_t xxh3_64(const void* data, size_t size);
inline uint64_t xxh3_64(std::string_view bytes) { return xxh3_64(bytes.data(), bytes.size()); }
Digest128 xxh3_128(const void* data, size_t size);
inline Digest128 xxh3_128(std::string_view bytes) { return xxh3_128(bytes.data(), bytes.size()); }

// XXH3 over data that arrives in pieces; equals the one-shot function over their concatenation.
// Confined to one thread.
class StreamingXxh3 {
 public:
  StreamingXxh3();
  ~StreamingXxh3();
  StreamingXxh3(StreamingXxh3&&) noexcept;
  StreamingXxh3& operator=(StreamingXxh3&&) noexcept;
  void reset();
  void update(const void* data, size_t size);
  void update(std::string_view bytes) { update(bytes.data(), bytes.size()); }
  uint64_t digest64() const;
  Digest128 digest128() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

}  // namespace sluice

#endif  // SLUICE_BASE_CHECKSUM_H_
