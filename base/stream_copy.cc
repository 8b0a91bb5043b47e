#include "base/stream_copy.h"

#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace sluice {

void stream_copy(uint8_t* to, const uint8_t* from, size_t bytes) {
#ifdef __SSE2__
  constexpr size_t kLine = 64;
  if ((reinterpret_cast<uintptr_t>(to) | bytes) % kLine == 0) {
    for (size_t at = 0; at < bytes; at += kLine) {
      const auto* source = reinterpret_cast<const __m128i*>(from + at);
      auto* line = reinterpret_cast<__m128i*>(to + at);
      for (int part = 0; part < 4; ++part) {
        _mm_stream_si128(line + part, _mm_loadu_si128(source + part));
      }
    }
    // Streaming stores are not ordered by a later release.
    _mm_sfence();
    return;
  }
#endif
  std::memcpy(to, from, bytes);
}

}  // namespace sluice
