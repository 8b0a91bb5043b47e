// Copies to memory that is too much to stay in the cache: whole cache lines are written past it
// (streaming stores), so that they need not be read first, and what is in the cache stays there.
// What was written may be handed to another thread as after memcpy. Thread-safe.
#ifndef SLUICE_BASE_STREAM_COPY_H_
#define SLUICE_BASE_STREAM_COPY_H_

#include <cstddef>
#include <cstdint>

namespace sluice {

// The places must not overlap. An ordinary copy where `to` or `bytes` is not whole lines.
void stream_copy(uint8_t* to, const uint8_t* from, size_t bytes);

}  // namespace sluice

#endif  // SLUICE_BASE_STREAM_COPY_H_
