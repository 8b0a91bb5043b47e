// A key of the cluster block that belongs to one process at a time, bound to a lease that this
// object keeps alive.
//
// The holder looks at the time: held() compares its own monotonic clock with the lease's end, less
// a margin (control/cluster_block/lease_keeper.h), so a process that was stopped for any length of
// time does not hold the lock when it goes on. Renewing the lease waits for no commit. A lease that
// ended although nobody else took the lock (the cluster block took no writes for a while, this
// process was stopped) is renewed under a new one, and the lock is held again; it is lost, for
// good, only when somebody else has taken it since, even if they have released it by now. That is
// what the tenure tells: a second key, without a lease, which each take() writes anew. Commits that
// carry fence() fail from the moment somebody else takes the lock.
//
// Thread-safe. Runs two threads: one renews the lease, one takes the lock again. The block and the
// clock outlive it.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_LOCK_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_LOCK_H_

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/lease_keeper.h"

namespace sluice {

struct LeaseLockOptions {
  Clock* clock = nullptr;  // the system's when null
  int64_t lease_ms = 4000;
  bool has_threads = true;  // false: the owner calls renew() itself, for tests
};

class LeaseLock {
 public:
  // ABORTED when somebody has it. `value` tells who. `with` is part of the commit that takes it:
  // ABORTED also when one of its comparisons fails.
  static absl::StatusOr<std::unique_ptr<LeaseLock>> take(ClusterBlock& block, std::string_view key,
                                                         std::string_view value,
                                                         const LeaseLockOptions& options = {},
                                                         const std::vector<ClusterOp>& with = {});
  // Releases it, unless released().
  ~LeaseLock();
  LeaseLock(const LeaseLock&) = delete;
  LeaseLock& operator=(const LeaseLock&) = delete;

  // Nobody else can have it now. To be asked before each step that others can see. False while the
  // lease's end is near or past; true again once it is renewed, unless lost().
  bool held() const;
  // Somebody else has taken it: never held again.
  bool lost() const { return lost_; }
  // Waits until it is held: OK. ABORTED once it is lost, UNAVAILABLE after timeout_ms.
  absl::Status wait_held(int64_t timeout_ms);
  // To be part of every commit made under the lock: ABORTED once somebody else has taken it.
  ClusterOp fence() const { return ClusterOp::check(tenure_key_, tenure_); }
  // Instead of fence(), in the last commit that is made under the lock: releases it with that.
  std::vector<ClusterOp> release() const {
    return {ClusterOp::erase(tenure_key_, tenure_), ClusterOp::erase(key_)};
  }
  // A commit with release() was made.
  void set_released() { released_ = true; }
  bool released() const { return released_; }
  // Of the commit that took it.
  Revision taken_at() const { return tenure_; }

  // One round of the keeper: keeps the lease alive, or takes a new one. ABORTED when lost, else the
  // block's error.
  absl::Status renew();

 private:
  LeaseLock(ClusterBlock& block, std::string_view key, std::string_view value,
            const LeaseLockOptions& options);
  LeaseKeeper::Options keeping();
  std::shared_ptr<LeaseKeeper> lease() const;
  void set_lease(std::unique_ptr<LeaseKeeper> lease);
  void keep();
  absl::Status retake() SLUICE_REQUIRES(renew_mutex_);
  absl::Status lose();

  ClusterBlock& block_;
  const LeaseLockOptions options_;
  const std::string key_;
  const std::string value_;
  const std::string tenure_key_;
  Revision tenure_ = 0;
  Mutex renew_mutex_ SLUICE_ACQUIRED_BEFORE(mutex_);  // serializes changes of lease_
  std::atomic<bool> lost_{false};
  std::atomic<bool> released_{false};
  mutable Mutex mutex_;
  Condition changed_;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread keeper_;
  std::shared_ptr<LeaseKeeper> lease_ SLUICE_GUARDED_BY(mutex_);  // its thread uses what is above
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_LOCK_H_
