#include "control/cluster_block/lease_lock.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "base/guard.h"
#include "base/status.h"

namespace sluice {

namespace {

std::string tenure_key(std::string_view key) { return fmt::format("lock-tenures/{}", key); }

}  // namespace

LeaseLock::LeaseLock(ClusterBlock& block, std::string_view key, std::string_view value,
                     const LeaseLockOptions& options)
    : block_(block), options_(options), key_(key), value_(value), tenure_key_(tenure_key(key)) {}

LeaseLock::~LeaseLock() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (keeper_.joinable()) keeper_.join();
  // A lease that cannot be revoked ends by itself, and the next holder writes over the tenure.
  if (lease_ == nullptr || !lease_->revoke().ok() || tenure_ == 0 || released_) return;
  block_.erase(tenure_key_, tenure_).IgnoreError();
}

absl::StatusOr<std::unique_ptr<LeaseLock>> LeaseLock::take(ClusterBlock& block,
                                                           std::string_view key,
                                                           std::string_view value,
                                                           const LeaseLockOptions& options,
                                                           const std::vector<ClusterOp>& with) {
  std::unique_ptr<LeaseLock> lock(new LeaseLock(block, key, value, options));
  SLUICE_ASSIGN_OR_RETURN(auto lease, LeaseKeeper::grant(block, lock->keeping()));
  const LeaseId id = lease->id();
  lock->set_lease(std::move(lease));
  std::vector<ClusterOp> ops{ClusterOp::put(lock->key_, lock->value_, 0, id),
                             ClusterOp::put(lock->tenure_key_, lock->value_)};
  ops.insert(ops.end(), with.begin(), with.end());
  SLUICE_ASSIGN_OR_RETURN(lock->tenure_, block.commit(ops));
  if (options.has_threads) {
    SLUICE_ASSIGN_OR_RETURN(lock->keeper_,
                            start_thread("keeping a lock", [held = lock.get()] { held->keep(); }));
  }
  return lock;
}

LeaseKeeper::Options LeaseLock::keeping() {
  const auto changed = [this] {
    // Not between a waiter's look and its sleep.
    { const MutexLock lock(mutex_); }
    changed_.notify_all();
  };
  return {options_.clock, options_.lease_ms, options_.has_threads, changed};
}

std::shared_ptr<LeaseKeeper> LeaseLock::lease() const {
  const MutexLock lock(mutex_);
  return lease_;
}

void LeaseLock::set_lease(std::unique_ptr<LeaseKeeper> lease) {
  std::shared_ptr<LeaseKeeper> next = std::move(lease);
  {
    const MutexLock lock(mutex_);
    lease_.swap(next);
  }
  changed_.notify_all();
}

bool LeaseLock::held() const { return !lost_ && lease()->held(); }

absl::Status LeaseLock::wait_held(int64_t timeout_ms) {
  MutexLock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                    [this]() SLUICE_REQUIRES(mutex_) { return lost_ || lease_->held(); });
  if (lost_) return aborted("lock {} was taken over by another process", key_);
  if (lease_->held()) return absl::OkStatus();
  return unavailable("the lease of lock {} has ended, and the cluster block does not renew it",
                     key_);
}

absl::Status LeaseLock::lose() {
  {
    const MutexLock lock(mutex_);
    lost_ = true;
  }
  changed_.notify_all();
  return aborted("lock {} was taken over by another process", key_);
}

absl::Status LeaseLock::renew() {
  const MutexLock lock(renew_mutex_);
  if (lost_) return lose();
  const auto current = lease();
  const absl::Status kept =
      current->has_ended() ? not_found("lease {} has ended", current->id()) : current->renew();
  return absl::IsNotFound(kept) ? retake() : kept;
}

absl::Status LeaseLock::retake() {
  SLUICE_ASSIGN_OR_RETURN(auto next, LeaseKeeper::grant(block_, keeping()));
  const absl::Status taken =
      block_.commit({ClusterOp::put(key_, value_, 0, next->id()), fence()}).status();
  if (taken.ok()) {
    set_lease(std::move(next));
    return absl::OkStatus();
  }
  next->revoke().IgnoreError();
  if (!absl::IsAborted(taken)) return taken;
  // The key first: while the tenure is unchanged after it was read, it is this object's, from a
  // commit whose answer was lost.
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block_.get(key_));
  SLUICE_ASSIGN_OR_RETURN(const auto tenure, block_.get(tenure_key_));
  if (!tenure.has_value() || tenure->revision != tenure_) return lose();
  if (entry.has_value()) {
    SLUICE_ASSIGN_OR_RETURN(auto found, LeaseKeeper::adopt(block_, entry->lease, keeping()));
    set_lease(std::move(found));
  }
  return unavailable("lock {} is being taken again", key_);
}

void LeaseLock::keep() {
  MutexLock lock(mutex_);
  const auto pause = std::chrono::milliseconds(std::max<int64_t>(options_.lease_ms / 20, 1));
  for (;;) {
    changed_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) {
      return stopping_ || lost_ || lease_->has_ended();
    });
    if (stopping_ || lost_) return;
    lock.unlock();
    const bool retaken = guarded("taking a lock again", [this] { return renew(); }).ok();
    lock.lock();
    if (!retaken)
      changed_.wait_for(lock, pause,
                        [this]() SLUICE_REQUIRES(mutex_) { return stopping_ || lost_; });
  }
}

}  // namespace sluice
