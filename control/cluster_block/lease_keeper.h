// A lease that is renewed for as long as this object lives.
//
// Its thread does nothing else, so neither a slow commit nor anything that its owner waits for
// makes a renewal late. Renewals come every fifth of the lease's time: a standstill of half of that
// time that meets holder and cluster block alike is survived, and so are two renewals in a row that
// fail.
//
// held() counts from before the call that granted or renewed the lease, and ends a quarter of the
// lease before that. That quarter is for what the owner does between asking and the effect that
// others see, and for clocks that run at different rates where the block is on another machine: it
// assumes that they differ by less than a quarter, and that a step takes less than that.
//
// Thread-safe. The block and the clock outlive it.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_KEEPER_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_KEEPER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice {

class LeaseKeeper {
 public:
  struct Options {
    Clock* clock = nullptr;  // the system's when null
    int64_t ttl_ms = 3000;
    bool has_thread = true;  // false: the owner calls renew() itself, for tests
    // Called after each renewal, and when the lease has ended; on the thread, or within renew().
    std::function<void()> changed;
    // Called after each renewal that succeeded, with the clock's monotonic_ns() before it was asked
    // for: the lease was there at some moment since then.
    std::function<void(int64_t asked_ns)> renewed = {};
  };
  static absl::StatusOr<std::unique_ptr<LeaseKeeper>> grant(ClusterBlock& block, Options options);
  // Of a lease that is there: not held before its first renewal.
  static absl::StatusOr<std::unique_ptr<LeaseKeeper>> adopt(ClusterBlock& block, LeaseId lease,
                                                            Options options);
  // Renews it no more: unless it is revoked, it ends by itself.
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;

  LeaseId id() const { return lease_; }
  // By the holder's own clock the lease cannot have ended: false also after a standstill of any
  // length, before anybody notices it.
  bool held() const { return clock_.monotonic_ns() < held_until_ns_; }
  // It is over for good.
  bool has_ended() const { return ended_; }
  // Of the last renewal.
  absl::Status status() const;
  // One round. NOT_FOUND when the lease has ended, else the block's error.
  absl::Status renew();
  // Stops renewing, and ends the lease.
  absl::Status revoke();

 private:
  LeaseKeeper(ClusterBlock& block, LeaseId lease, Options options);
  absl::Status start();
  void run();
  void stop();
  void extend(int64_t asked_ns);

  ClusterBlock& block_;
  const LeaseId lease_;
  const Options options_;
  Clock& clock_;
  std::atomic<int64_t> held_until_ns_{0};
  std::atomic<bool> ended_{false};
  mutable Mutex mutex_;
  Condition wake_;
  absl::Status status_ SLUICE_GUARDED_BY(mutex_);
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_KEEPER_H_
