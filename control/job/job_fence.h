// Fencing of jobs on one node. Every call of a job, and every role in it, carries the job's attempt
// and enters here; who was superseded is refused, however late it comes.
//
// 1. The highest attempt seen of each job is kept durably (in the store's own rows; in memory alone
//    while the store takes no writes).
// 2. A lower attempt is refused with FAILED_PRECONDITION.
// 3. A higher attempt, or the first one seen, is believed only if the job's documents say so: a
// node
//    that knows nothing of a job (a new one, or forgotten because it was deleted) so refuses
//    whoever was superseded before.
// 4. An attempt is raised when nothing of a lower one is at work any more: what was admitted before
//    has its effect before, never afterwards.
//
// Thread-safe.
#ifndef SLUICE_CONTROL_JOB_JOB_FENCE_H_
#define SLUICE_CONTROL_JOB_JOB_FENCE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "dataplane/store/store.h"

namespace sluice {

class JobFence {
 public:
  // OK when the job's documents know this attempt, or cannot tell. Called without a lock.
  using AttemptCheck = std::function<absl::Status(const std::string& job, uint64_t attempt)>;
  // The store outlives it. `kind` is what messages call a job: "backup".
  JobFence(Store& store, std::string kind, AttemptCheck check);

  // While it lives, no higher attempt of its job is admitted here. Move-only; for the time of
  // one step.
  class Pass {
   public:
    Pass(Pass&& other) noexcept
        : fence_(std::exchange(other.fence_, nullptr)), job_(std::move(other.job_)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (fence_ != nullptr) fence_->leave(job_);
    }

   private:
    friend class JobFence;
    Pass(JobFence* fence, std::string job) : fence_(fence), job_(std::move(job)) {}
    JobFence* fence_;
    std::string job_;
  };

  // FAILED_PRECONDITION for an attempt that is over; what the check says of one that is new here;
  // UNAVAILABLE when a lower attempt is still at work after wait_ms.
  // `sync`: where the first thing that the caller does is a write of the store that it waits for,
  // the attempt may become durable with that.
  absl::StatusOr<Pass> enter(std::string_view job, uint64_t attempt, int64_t wait_ms = kWaitMs,
                             Store::Sync sync = Store::Sync::kNow);
  static constexpr int64_t kWaitMs = 5'000;

  // Forgets jobs that are not `known`, once nothing of them is at work.
  void forget_except(const std::set<std::string>& known);

 private:
  struct Job {
    uint64_t attempt = 0;  // highest seen; 0: none
    int at_work = 0;
    int waiting = 0;
    bool raising = false;
  };
  void leave(const std::string& job);

  Store& store_;
  const std::string kind_;
  const AttemptCheck check_;
  Mutex mutex_;
  Condition changed_;
  std::map<std::string, Job, std::less<>> jobs_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_JOB_JOB_FENCE_H_
