// One process's work on one job of the cluster: the engine under backups and restores.
//
// clang-format off
//   lease     a lock bound to a lease keeps two processes from working on one job at a time
//             (control/cluster_block/lease_lock.h)
//   head      the job's document. Each change of it is one compare-and-swap under the lock's fence,
//             repeated while the cluster block takes no writes
//   attempt   a number in the head, raised by whoever begins to work on the job, and with each new
//             plan: whatever is stored or called under a lower one is refused (job_fence.h)
//   cancel    ends the job for good; this process stores that
//   abandon   ends this process's work and leaves the documents as they are: the job is resumed
//             from its head later, or taken over by another process
//   takeover  somebody else has the lock, or has changed the head: this process stores nothing more
// clang-format on
//
// The lock makes it likely that one process works on the job; the head's revision makes it certain
// that one has an effect, however long a process was stopped between two steps.
//
// What others may do (cancel, abandon and wake at any time, stop_status until the lock is given up)
// is thread-safe; the rest is confined to one thread. The block and the clock outlive it.
#ifndef SLUICE_CONTROL_JOB_JOB_H_
#define SLUICE_CONTROL_JOB_JOB_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/wakeup.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/lease_lock.h"

namespace sluice {

// Of the cluster block or of a peer: it may pass.
inline bool is_transient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

struct JobName {
  std::string label;     // as messages call it: "backup nightly"
  std::string head_key;  // of its document
  std::string lock_key;  // jobs that share it run one at a time
};

struct JobOptions {
  std::string worker;  // as messages call this process
  Clock* clock = nullptr;
  int64_t block_patience_ms = 0;  // for one commit, while the cluster block takes no writes
  int64_t lease_patience_ms = 0;  // for the lease to be renewed
};

class Job {
 public:
  // `holder` is the lock's value: it tells others who has it. `with` is part of the commit that
  // takes the lock. ABORTED when somebody has it, or a comparison of `with` fails.
  static absl::StatusOr<std::unique_ptr<Job>> take(ClusterBlock& block, const JobName& name,
                                                   std::string_view holder,
                                                   const JobOptions& options,
                                                   const std::vector<ClusterOp>& with = {});
  // Gives the lock up.
  ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // The head that the next change goes over, as it was read, or stored, under the lock.
  void adopt(Revision head, uint64_t attempt);
  Revision head() const { return head_; }
  // Of the commit that took the lock.
  Revision taken_at() const { return lock_->taken_at(); }

  void cancel();
  bool is_cancelled() const { return cancelled_; }
  void abandon();
  // OK while the work goes on; CANCELLED by the operator; ABORTED when it is abandoned or taken
  // over.
  absl::Status stop_status() const;
  bool is_stopped() const { return !stop_status().ok(); }

  // To come before each step that others can see: waits, while nobody else has taken the job over,
  // until the lease is good. ABORTED when this process has to leave the job alone, UNAVAILABLE when
  // the lease is not renewed for as long as the options say.
  absl::Status hold();

  struct Head {
    std::string document;
    uint64_t attempt = 0;
  };
  // Holds, and stores the head over the one before, together with `with`. ABORTED when somebody
  // else has changed it or taken the lock; INVALID_ARGUMENT for a lower attempt than the head's.
  absl::Status store(const Head& head, const std::vector<ClusterOp>& with = {});
  // The last one: releases the lock with the same commit.
  absl::Status store_last(const Head& head, const std::vector<ClusterOp>& with = {});
  // Holds, and makes other changes while the head is as it is: in several commits where they are
  // many, some of them twice where answers are lost.
  absl::Status commit(const std::vector<ClusterOp>& changes);

  // ABORTED when somebody else has changed or deleted the head: from then on nothing is stored.
  absl::Status check_unchanged();
  // Wakes this thread when something under `prefix` changes, from the head's last change on.
  absl::StatusOr<WatchHandle> watch(std::string_view prefix);
  void wake() { wakeup_.wake(); }
  bool wait(int64_t timeout_ms) { return wakeup_.wait(timeout_ms); }

  bool has_released() const { return lock_ == nullptr || lock_->released(); }
  // Gives the lock up. Nothing but stopping and waking may come after it.
  void release() { lock_.reset(); }

 private:
  Job(ClusterBlock& block, JobName name, const JobOptions& options,
      std::unique_ptr<LeaseLock> lock);
  absl::Status leave_status() const;
  absl::Status swap(const Head& head, const std::vector<ClusterOp>& with,
                    const std::vector<ClusterOp>& fence);
  absl::Status taken_over();
  absl::Status settle_doubt();
  void stored(const Head& head, Revision revision);
  std::function<bool()> try_again() const;

  ClusterBlock& block_;
  const JobName name_;
  const JobOptions options_;
  std::unique_ptr<LeaseLock> lock_;
  Revision head_ = 0;
  uint64_t attempt_ = 0;
  std::optional<Head> in_doubt_;  // not known whether it was stored
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> abandoned_{false};
  std::atomic<bool> taken_over_{false};
  Wakeup wakeup_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_JOB_JOB_H_
