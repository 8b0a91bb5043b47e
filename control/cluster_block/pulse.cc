#include "control/cluster_block/pulse.h"

#include <chrono>
#include <utility>

#include "base/guard.h"
#include "base/status.h"

namespace sluice::cluster_block {

absl::Status Pulse::start() {
  const MutexLock lock(mutex_);
  if (running_ || stopping_) return absl::OkStatus();
  ticked_ns_ = clock_.monotonic_ns();
  SLUICE_ASSIGN_OR_RETURN(thread_, start_thread("the pulse of a cluster block", [this] { run(); }));
  running_ = true;
  return absl::OkStatus();
}

void Pulse::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool Pulse::stood_still(int64_t when_ns, int64_t length_ns) const {
  const MutexLock lock(mutex_);
  if (!running_) return false;
  // Other threads may go on before the first tick.
  const Standstill present{ticked_ns_, clock_.monotonic_ns()};
  return present.covers(when_ns, length_ns) || last_.covers(when_ns, length_ns);
}

void Pulse::run() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    wake_.wait_for(lock, std::chrono::milliseconds(tick_ms_),
                   [this]() SLUICE_REQUIRES(mutex_) { return stopping_; });
    const Standstill found{std::exchange(ticked_ns_, clock_.monotonic_ns()), ticked_ns_};
    // A longer one is remembered for as long as it was.
    const bool over = found.to_ns - last_.to_ns > last_.length_ns();
    if (over || found.length_ns() >= last_.length_ns()) last_ = found;
  }
}

}  // namespace sluice::cluster_block
