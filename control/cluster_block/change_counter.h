// A counter in memory that threads and processes share, which can be waited for: how whoever
// changes a cluster block wakes whoever watches it. Internal to control/cluster_block.
//
// Who waits reads value() first, then looks at what is counted, then waits for that value to be
// over: a change after the look ends the wait at once. Nothing is promised about who changes
// something and dies before it raises the counter, so a wait has a time limit.
//
// Thread-safe, and safe between processes that map it.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_CHANGE_COUNTER_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_CHANGE_COUNTER_H_

#include <atomic>
#include <cstdint>

namespace sluice::cluster_block {

class ChangeCounter {
 public:
  uint32_t value() const { return value_.load(); }
  // One more, and whoever waits goes on.
  void raise();
  // Returns once the value is not `seen`, or after timeout_ms. May return early.
  void wait(uint32_t seen, int64_t timeout_ms) const;

 private:
  std::atomic<uint32_t> value_{0};
  static_assert(std::atomic<uint32_t>::is_always_lock_free);
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_CHANGE_COUNTER_H_
