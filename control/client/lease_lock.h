// A key that belongs to one process while that process lives: bound to a lease that is kept alive.
// Thread-safe.
#ifndef SLUICE_CONTROL_CLIENT_LEASE_LOCK_H_
#define SLUICE_CONTROL_CLIENT_LEASE_LOCK_H_

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/statusor.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice {

class LeaseLock {
 public:
  static constexpr int64_t kLeaseMs = 4000;
  // ABORTED when somebody has it. `value` tells who.
  static absl::StatusOr<std::unique_ptr<LeaseLock>> take(ClusterBlock& block, std::string_view key,
                                                         std::string_view value);
  // Lets it go.
  ~LeaseLock();
  LeaseLock(const LeaseLock&) = delete;
  LeaseLock& operator=(const LeaseLock&) = delete;

  // False once the lease could not be kept: somebody else may have the key.
  bool held() const { return held_; }

 private:
  LeaseLock(ClusterBlock& block, LeaseId lease);
  void keep();

  ClusterBlock& block_;
  const LeaseId lease_;
  std::atomic<bool> held_{true};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread keeper_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_LEASE_LOCK_H_
