// Fencing of backups on one node. Every call of a backup, and every role in it, carries the
// backup's attempt and enters here; who was superseded is refused, however late it comes.
//
// 1. The highest attempt seen of each backup is kept durably (in the store's own rows; in memory
//    alone while the store takes no writes).
// 2. A lower attempt is refused with FAILED_PRECONDITION.
// 3. A higher attempt, or the first one seen, is believed only if the backup's document says so: a
//    node that knows nothing of a backup (a new one, or forgotten because it was deleted) so
//    refuses whoever was superseded before. A dry run has no document; it holds the backup lock.
// 4. An attempt is raised when nothing of a lower one is at work any more: what was admitted before
//    has its effect before, never afterwards.
//
// Thread-safe.
#ifndef SLUICE_CONTROL_SERVICE_JOB_FENCE_H_
#define SLUICE_CONTROL_SERVICE_JOB_FENCE_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/cluster_block/cluster_block.h"
#include "dataplane/store/store.h"

namespace sluice {

class JobFence {
 public:
  // Both outlive it.
  JobFence(Store& store, ClusterBlock& block);

  // While it lives, no higher attempt of its backup is admitted here. Move-only; for the time of
  // one step.
  class Pass {
   public:
    Pass(Pass&& other) noexcept
        : fence_(std::exchange(other.fence_, nullptr)), backup_(std::move(other.backup_)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (fence_ != nullptr) fence_->leave(backup_);
    }

   private:
    friend class JobFence;
    Pass(JobFence* fence, std::string backup) : fence_(fence), backup_(std::move(backup)) {}
    JobFence* fence_;
    std::string backup_;
  };

  // FAILED_PRECONDITION for an attempt that is over, or that the backup's document does not know;
  // NOT_FOUND when there is no such backup; UNAVAILABLE when a lower attempt is still at work after
  // wait_ms, or the cluster block does not answer.
  // `sync`: where the first thing that the caller does is a write of the store that it waits for,
  // the attempt may become durable with that.
  absl::StatusOr<Pass> enter(std::string_view backup, uint64_t attempt, int64_t wait_ms = kWaitMs,
                             Store::Sync sync = Store::Sync::kNow);
  static constexpr int64_t kWaitMs = 5'000;

  // Forgets backups that are not `known`, once nothing of them is at work.
  void forget_except(const std::set<std::string>& known);

 private:
  struct Job {
    uint64_t attempt = 0;  // highest seen; 0: none
    int at_work = 0;
    int waiting = 0;
    bool raising = false;
  };
  absl::Status check_document(const std::string& backup, uint64_t attempt);
  void leave(const std::string& backup);

  Store& store_;
  ClusterBlock& block_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Job, std::less<>> jobs_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_JOB_FENCE_H_
