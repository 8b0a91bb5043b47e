// The hybrid logical clock of one node: stamps that follow the wall clock, never repeat and never
// go back, also not over a restart (Kulkarni et al., Logical Physical Clocks, OPODIS 2014).
//
// A ceiling beyond every stamp handed out or observed is made durable before the stamp is used; a
// restarted clock begins at the ceiling. The ceiling is at most kCeilingStepMs ahead of the stamps.
#ifndef SLUICE_DATAPLANE_STORE_HYBRID_CLOCK_H_
#define SLUICE_DATAPLANE_STORE_HYBRID_CLOCK_H_

#include <cstdint>
#include <functional>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"

namespace sluice {

// Thread-safe.
class HybridClock {
 public:
  static constexpr int64_t kCeilingStepMs = 250;
  static constexpr int64_t kDefaultMaxOffsetMs = 2000;
  static constexpr int64_t kMaxTrustedMs = 24 * 3600 * int64_t{1000};

  // `persist` makes a ceiling durable before it returns OK. `ceiling` is the last one made durable
  // (0: none).
  HybridClock(Clock& wall, uint64_t ceiling, int64_t max_offset_ms,
              std::function<absl::Status(uint64_t ceiling)> persist);

  // A stamp larger than every earlier one.
  absl::StatusOr<uint64_t> stamp();
  // The largest stamp handed out or observed, or the wall clock's if that is larger. Hands out
  // nothing.
  uint64_t now() const;
  // Moves past a peer's stamp. OUT_OF_RANGE (naming both clocks) when it is more than max_offset_ms
  // ahead of now().
  absl::Status observe(uint64_t stamp);
  // Moves past the stamps of a restored archive. OUT_OF_RANGE (naming both clocks) when they are
  // more than kMaxTrustedMs ahead of the wall clock: a clock that followed a wrong stamp would
  // never come back.
  absl::Status observe_trusted(uint64_t stamp);

 private:
  absl::Status advance_locked(uint64_t stamp);

  Clock& wall_;
  const int64_t max_offset_ms_;
  const std::function<absl::Status(uint64_t)> persist_;
  mutable std::mutex mutex_;
  uint64_t last_;
  uint64_t ceiling_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_HYBRID_CLOCK_H_
