#include "control/client/lease_lock.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/guard.h"
#include "base/status.h"

namespace sluice {

namespace {

constexpr int64_t kMs = 1'000'000;

std::string tenure_key(std::string_view key) { return fmt::format("lock-tenures/{}", key); }

}  // namespace

LeaseLock::LeaseLock(ClusterBlock& block, Clock& clock, std::string_view key,
                     std::string_view value, const LeaseLockOptions& options, LeaseId lease,
                     Revision tenure, int64_t asked_ns)
    : block_(block),
      clock_(clock),
      options_(options),
      key_(key),
      value_(value),
      tenure_key_(tenure_key(key)),
      tenure_(tenure),
      lease_(lease) {
  extend(asked_ns);
  if (options_.keeper) keeper_ = guarded_thread("keeping a lock", [this] { keep(); });
}

LeaseLock::~LeaseLock() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (keeper_.joinable()) keeper_.join();
  // A lease that cannot be revoked ends by itself, and the next holder writes over the tenure.
  if (block_.revoke(lease_).ok()) block_.erase(tenure_key_, tenure_).IgnoreError();
}

absl::StatusOr<std::unique_ptr<LeaseLock>> LeaseLock::take(ClusterBlock& block,
                                                           std::string_view key,
                                                           std::string_view value,
                                                           const LeaseLockOptions& options) {
  Clock& clock = options.clock == nullptr ? system_clock() : *options.clock;
  const int64_t asked_ns = clock.monotonic_ns();
  SLUICE_ASSIGN_OR_RETURN(const LeaseId lease, block.grant(options.lease_ms));
  const auto taken = block.commit({ClusterOp::put(std::string(key), std::string(value), 0, lease),
                                   ClusterOp::put(tenure_key(key), std::string(value))});
  if (taken.ok()) {
    return std::unique_ptr<LeaseLock>(
        new LeaseLock(block, clock, key, value, options, lease, *taken, asked_ns));
  }
  block.revoke(lease).IgnoreError();
  return taken.status();
}

bool LeaseLock::held() const { return !lost_ && clock_.monotonic_ns() < held_until_ns_; }

absl::Status LeaseLock::wait_held(int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                    [this] { return lost_ || held(); });
  if (lost_) return aborted("lock {} was taken over by another process", key_);
  if (held()) return absl::OkStatus();
  return unavailable("the lease of lock {} has ended, and the cluster block does not renew it",
                     key_);
}

// The lease runs from some time within the call that granted or renewed it: counted from before it,
// and given up a quarter before it ends, it is never held longer here than there.
void LeaseLock::extend(int64_t asked_ns) {
  {
    const std::lock_guard lock(mutex_);
    held_until_ns_ = asked_ns + options_.lease_ms * 3 / 4 * kMs;
  }
  changed_.notify_all();
}

absl::Status LeaseLock::lose() {
  {
    const std::lock_guard lock(mutex_);
    lost_ = true;
  }
  changed_.notify_all();
  return aborted("lock {} was taken over by another process", key_);
}

absl::Status LeaseLock::renew() {
  const std::lock_guard lock(renew_mutex_);
  if (lost_) return lose();
  const int64_t asked_ns = clock_.monotonic_ns();
  const absl::Status kept = block_.keep_alive(lease_);
  if (absl::IsNotFound(kept)) return retake();
  if (kept.ok()) extend(asked_ns);
  return kept;
}

// Needs renew_mutex_.
absl::Status LeaseLock::retake() {
  const int64_t asked_ns = clock_.monotonic_ns();
  SLUICE_ASSIGN_OR_RETURN(const LeaseId lease, block_.grant(options_.lease_ms));
  const absl::Status taken =
      block_.commit({ClusterOp::put(key_, value_, 0, lease), fence()}).status();
  if (taken.ok()) {
    lease_ = lease;
    extend(asked_ns);
    return absl::OkStatus();
  }
  block_.revoke(lease).IgnoreError();
  if (!absl::IsAborted(taken)) return taken;
  // The key first: while the tenure is unchanged after it was read, it is this object's, from a
  // commit whose answer was lost.
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block_.get(key_));
  SLUICE_ASSIGN_OR_RETURN(const auto tenure, block_.get(tenure_key_));
  if (!tenure.has_value() || tenure->revision != tenure_) return lose();
  if (entry.has_value()) lease_ = entry->lease;
  return unavailable("lock {} is being taken again", key_);
}

void LeaseLock::keep() {
  std::unique_lock lock(mutex_);
  int64_t pause_ms = options_.lease_ms / 5;
  while (!changed_.wait_for(lock, std::chrono::milliseconds(pause_ms),
                            [this] { return stopping_ || lost_; })) {
    lock.unlock();
    const absl::Status renewed = guarded("renewing a lock", [this] { return renew(); });
    pause_ms = std::max<int64_t>(options_.lease_ms / (renewed.ok() ? 5 : 20), 1);
    lock.lock();
  }
}

}  // namespace sluice
