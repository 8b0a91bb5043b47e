// Knows when this process stood still: stopped, or without a processor, or on a machine that was.
// Internal to control/cluster_block.
//
// Whoever holds a lease may have stood still with it, so a deadline that came meanwhile proves
// nothing. A thread that does nothing else ticks; what it finds between two ticks is how long the
// process did not run.
//
// Thread-safe.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_PULSE_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_PULSE_H_

#include <cstdint>
#include <thread>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace sluice::cluster_block {

class Pulse {
 public:
  Pulse(const Clock& clock, int tick_ms) : clock_(clock), tick_ms_(tick_ms) {}
  ~Pulse() { stop(); }

  // Without it nothing is known, and stood_still() is false. A second call does nothing.
  absl::Status start();
  void stop();

  // The process stood still for at least `length_ns`, and `when_ns` was meanwhile. Only the longest
  // of the last standstills is known.
  bool stood_still(int64_t when_ns, int64_t length_ns) const;

 private:
  struct Standstill {
    int64_t from_ns = 0;
    int64_t to_ns = 0;
    int64_t length_ns() const { return to_ns - from_ns; }
    bool covers(int64_t when_ns, int64_t length) const {
      return length_ns() >= length && from_ns < when_ns && when_ns <= to_ns;
    }
  };
  void run();

  const Clock& clock_;
  const int tick_ms_;
  mutable Mutex mutex_;
  Condition wake_;
  bool running_ SLUICE_GUARDED_BY(mutex_) = false;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  int64_t ticked_ns_ SLUICE_GUARDED_BY(mutex_) = 0;
  Standstill last_ SLUICE_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_PULSE_H_
