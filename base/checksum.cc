#include "base/checksum.h"

#include <cstdio>
#include <new>

// The dispatch header is C++-clean and redirects XXH3_* to the *_dispatch entry points.
#include <xxh_x86dispatch.h>

// After it: where it finds no vector extensions, it chooses another implementation.
#include <immintrin.h>

namespace sluice {
namespace {

// Shorter inputs are hashed without vector registers.
constexpr size_t kVectorBytes = 241;

__attribute__((target("avx"))) void zero_upper_halves() { _mm256_zeroupper(); }

// The library may be built without the instruction that says that the upper halves of the vector
// registers are free again (Debian's is). SSE code keeps what is there, which makes each of its
// instructions wait for the one before: RocksDB's checksums fall to a quarter of their speed.
void free_upper_halves(size_t hashed) {
  static const bool has_avx = __builtin_cpu_supports("avx") != 0;
  if (hashed >= kVectorBytes && has_avx) zero_upper_halves();
}

}  // namespace

std::string Digest128::to_hex() const {
  char text[33];
  std::snprintf(text, sizeof(text), "%016llx%016llx", static_cast<unsigned long long>(high),
                static_cast<unsigned long long>(low));
  return text;
}

bool Digest128::from_hex(std::string_view text, Digest128* digest) {
  if (text.size() != 32) return false;
  uint64_t halves[2] = {0, 0};
  for (size_t i = 0; i < 32; ++i) {
    const char c = text[i];
    uint64_t nibble;
    if (c >= '0' && c <= '9') {
      nibble = static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      nibble = static_cast<uint64_t>(c - 'a') + 10;
    } else {
      return false;
    }
    halves[i / 16] = halves[i / 16] << 4 | nibble;
  }
  *digest = {halves[1], halves[0]};
  return true;
}

uint64_t xxh3_64(const void* data, size_t size) {
  const uint64_t hash = XXH3_64bits_dispatch(data, size);
  free_upper_halves(size);
  return hash;
}

Digest128 xxh3_128(const void* data, size_t size) {
  const XXH128_hash_t hash = XXH3_128bits_dispatch(data, size);
  free_upper_halves(size);
  return {hash.low64, hash.high64};
}

void StreamingXxh3::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

StreamingXxh3::StreamingXxh3() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  reset();
}
StreamingXxh3::~StreamingXxh3() = default;
StreamingXxh3::StreamingXxh3(StreamingXxh3&&) noexcept = default;
StreamingXxh3& StreamingXxh3::operator=(StreamingXxh3&&) noexcept = default;

// XXH3-64 and XXH3-128 accumulate alike and differ in the last step only, so one state serves both.
void StreamingXxh3::reset() { XXH3_128bits_reset(state_.get()); }

void StreamingXxh3::update(const void* data, size_t size) {
  XXH3_128bits_update_dispatch(state_.get(), data, size);
  free_upper_halves(kVectorBytes);
}

uint64_t StreamingXxh3::digest64() const { return XXH3_64bits_digest(state_.get()); }

Digest128 StreamingXxh3::digest128() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  return {hash.low64, hash.high64};
}

}  // namespace sluice
