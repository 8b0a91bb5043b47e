#include "control/client/lease_lock.h"

#include <chrono>

#include "base/status.h"

namespace sluice {

LeaseLock::LeaseLock(ClusterBlock& block, LeaseId lease)
    : block_(block), lease_(lease), keeper_([this] { keep(); }) {}

LeaseLock::~LeaseLock() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  keeper_.join();
  // A lease that cannot be revoked ends by itself.
  block_.revoke(lease_).IgnoreError();
}

absl::StatusOr<std::unique_ptr<LeaseLock>> LeaseLock::take(ClusterBlock& block,
                                                           std::string_view key,
                                                           std::string_view value) {
  SLUICE_ASSIGN_OR_RETURN(const LeaseId lease, block.grant(kLeaseMs));
  const auto taken = block.compare_and_swap(key, value, 0, lease);
  if (taken.ok()) return std::unique_ptr<LeaseLock>(new LeaseLock(block, lease));
  block.revoke(lease).IgnoreError();
  return taken.status();
}

void LeaseLock::keep() {
  std::unique_lock lock(mutex_);
  auto kept = std::chrono::steady_clock::now();
  while (!wake_.wait_for(lock, std::chrono::milliseconds(kLeaseMs / 5),
                         [this] { return stopping_; })) {
    lock.unlock();
    // The lease runs from some time within the call: counted from before it, and given up a while
    // before it ends, it is never held longer here than there.
    const auto asked = std::chrono::steady_clock::now();
    const absl::Status status = block_.keep_alive(lease_);
    if (status.ok()) kept = asked;
    if (status.code() == absl::StatusCode::kNotFound ||
        std::chrono::steady_clock::now() - kept > std::chrono::milliseconds(kLeaseMs * 3 / 4)) {
      held_ = false;
    }
    lock.lock();
  }
}

}  // namespace sluice
