// The hybrid logical clock of one node: stamps that follow a wall clock, never repeat and never go
// back, also not over a restart (Kulkarni et al., Logical Physical Clocks, OPODIS 2014).
//
// A ceiling beyond every stamp handed out or observed is made durable before the stamp is used; a
// restarted clock begins at the ceiling. The ceiling is at most kCeilingStepMs ahead of the stamps.
//
// A stamp that was observed is never refused for being ahead of the wall clock: the clock then runs
// ahead logically, by its counter, until the wall clock has caught up. Refusing would not undo the
// stamp, and would make writes fail for as long as it is ahead. That a wrong wall clock does not
// become a stamp in the first place is ClusterClock's work (control/records/cluster_clock.h).
#ifndef SLUICE_DATAPLANE_STORE_HYBRID_CLOCK_H_
#define SLUICE_DATAPLANE_STORE_HYBRID_CLOCK_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace sluice {

// Thread-safe.
class HybridClock {
 public:
  static constexpr int64_t kCeilingStepMs = 250;
  // A stamp has 48 bits of milliseconds. A wall clock is believed to the year 3084, the stamps of
  // archives to 4199, those of peers to 6429: so neither a wrong wall clock nor a hostile archive
  // brings a node to stamps that its peers refuse, and from each limit 2^61 stamps and more are
  // left to count logically.
  static constexpr uint64_t kLatestWallMs = uint64_t{1} << 45;
  static constexpr uint64_t kArchiveLimit = uint64_t{1} << 62;
  static constexpr uint64_t kPeerLimit = uint64_t{1} << 63;

  // `persist` makes a ceiling durable before it returns OK. `ceiling` is the last one made durable
  // (0: none).
  HybridClock(Clock& wall, uint64_t ceiling, std::function<absl::Status(uint64_t ceiling)> persist);

  // A stamp larger than every earlier one.
  absl::StatusOr<uint64_t> stamp();
  // The largest stamp handed out or observed, or the wall clock's if that is larger. Hands out
  // nothing, and waits for no disk.
  uint64_t now() const;
  // How far now() is ahead of the wall clock.
  int64_t ahead_ms() const;
  // The ceiling that is durable.
  uint64_t ceiling() const;
  // Moves past a peer's stamp. INVALID_ARGUMENT for one from kPeerLimit on. Where the ceiling
  // cannot be made durable the clock has moved all the same, until it is made again: what is read
  // of it is beyond the stamp, and it hands out nothing.
  absl::Status observe(uint64_t stamp);
  // What observe(stamp) needs to be durable, with other things: calls `persist` with a ceiling that
  // allows for it, which must be durable when it returns OK.
  absl::Status reserve(uint64_t stamp,
                       const std::function<absl::Status(uint64_t ceiling)>& persist);
  // Moves past the stamps of a restored archive. INVALID_ARGUMENT for one from kArchiveLimit on.
  absl::Status observe_archived(uint64_t stamp);

 private:
  absl::Status observe_below(uint64_t limit, uint64_t stamp);
  absl::Status advance_locked(uint64_t stamp) SLUICE_REQUIRES(mutex_);

  Clock& wall_;
  const std::function<absl::Status(uint64_t)> persist_;
  mutable Mutex mutex_;
  // Written under the mutex.
  std::atomic<uint64_t> last_;
  std::atomic<uint64_t> seen_{0};  // observed, though no ceiling is durable for it
  uint64_t ceiling_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_HYBRID_CLOCK_H_
