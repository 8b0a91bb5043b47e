// Stores now and then how far an attempt of a restore is, so that others can see it.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_POSITION_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_POSITION_H_

#include <cstdint>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/mutex.h"
#include "control/cluster_block/cluster_block.h"
#include "control/restore/restore_store.h"
#include "control/restore/results.h"

namespace sluice {

// Thread-safe. What cannot be stored is left out: nothing depends on it. Runs a thread. Block and
// clock outlive it.
class PositionKeeper {
 public:
  PositionKeeper(ClusterBlock& block, Clock& clock, const RestoreFence& fence);
  // Stores the last one.
  ~PositionKeeper();
  PositionKeeper(const PositionKeeper&) = delete;
  PositionKeeper& operator=(const PositionKeeper&) = delete;

  // Quick.
  void set(const RestoreProgress& progress);

 private:
  void keep();
  void store(const RestoreProgress& progress);

  ClusterBlock& block_;
  Clock& clock_;
  const RestoreFence fence_;
  Mutex mutex_;
  Condition wake_;
  std::optional<RestoreProgress> due_ SLUICE_GUARDED_BY(mutex_);
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  // Of the first progress with a total: what was there before does not count for the rate.
  std::optional<uint64_t> first_done_;
  int64_t first_ns_ = 0;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_POSITION_H_
