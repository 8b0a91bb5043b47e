// How many things one request may hold. A client's batches are far smaller; what is more is a
// mistake or an attack, and is refused before anything is done for it.
#ifndef SLUICE_CONTROL_SERVICE_REQUEST_LIMITS_H_
#define SLUICE_CONTROL_SERVICE_REQUEST_LIMITS_H_

#include <cstddef>
#include <string_view>

#include "absl/status/status.h"
#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {

inline constexpr size_t kMaxRequestItems = size_t{1} << 16;

inline absl::Status check_count(std::string_view what, int count) {
  if (static_cast<size_t>(count) <= kMaxRequestItems) return absl::OkStatus();
  return invalid_argument("{} {} in one request: at most {}", count, what, kMaxRequestItems);
}

// Of a key, or of what keys are compared with.
inline absl::Status check_key_length(std::string_view what, size_t bytes) {
  if (bytes <= kMaxKeyBytes) return absl::OkStatus();
  return invalid_argument("{} of {} bytes: at most {}, as a key", what, bytes, kMaxKeyBytes);
}

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_REQUEST_LIMITS_H_
