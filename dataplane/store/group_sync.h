// Makes committed batches durable, many with one sync: while one writer syncs the WAL, the others
// that have committed meanwhile wait and are served by the next sync.
#ifndef SLUICE_DATAPLANE_STORE_GROUP_SYNC_H_
#define SLUICE_DATAPLANE_STORE_GROUP_SYNC_H_

#include <chrono>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "base/defect.h"
#include "base/mutex.h"
#include "base/status.h"

namespace sluice {

// Thread-safe. After the first failed sync every later wait fails until restart(): the kernel may
// have dropped the dirty pages, so a later success would say nothing about them.
class GroupSync {
 public:
  static constexpr int64_t kForEver = -1;

  // `sync` makes durable everything that was committed before it was called.
  explicit GroupSync(std::function<absl::Status()> sync) : sync_(std::move(sync)) {}

  // Called after a batch was committed (written to the WAL, not synced). Returns its ticket.
  uint64_t committed() {
    const MutexLock lock(mutex_);
    return ++committed_;
  }
  // The ticket of the last batch, for a call that changed nothing but relies on what others wrote.
  uint64_t last() const {
    const MutexLock lock(mutex_);
    return committed_;
  }

  // All that was committed so far was made durable in another way; nothing is committed meanwhile.
  void restart() {
    const MutexLock lock(mutex_);
    durable_ = committed_;
    failed_ = absl::OkStatus();
  }

  // Returns when the ticket's batch is durable. A sync that others make is waited for no longer
  // than `most_ms`: DEADLINE_EXCEEDED then.
  absl::Status wait(uint64_t ticket, int64_t most_ms = kForEver) {
    MutexLock lock(mutex_);
    while (durable_ < ticket) {
      if (!failed_.ok()) return failed_;
      if (syncing_) {
        if (most_ms == kForEver) {
          done_.wait(lock);
        } else if (done_.wait_for(lock, std::chrono::milliseconds(most_ms)) ==
                   std::cv_status::timeout) {
          return deadline_exceeded("what was written is not durable after {} ms", most_ms);
        }
        continue;
      }
      syncing_ = true;
      const uint64_t covered = committed_;
      lock.unlock();
      const absl::Status status = sync_();
      lock.lock();
      syncing_ = false;
      if (status.ok()) {
        durable_ = defect(Defect::kSyncCoversLater) ? committed_ : covered;
      } else {
        failed_ = status;
      }
      done_.notify_all();
    }
    return absl::OkStatus();
  }

 private:
  const std::function<absl::Status()> sync_;
  mutable Mutex mutex_;
  Condition done_;
  uint64_t committed_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t durable_ SLUICE_GUARDED_BY(mutex_) = 0;
  bool syncing_ SLUICE_GUARDED_BY(mutex_) = false;
  absl::Status failed_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_GROUP_SYNC_H_
