// The highest attempt of each job that this node has seen: rows of `meta`.
#include <mutex>

#include "base/status.h"
#include "dataplane/store/store_impl.h"

namespace sluice {

absl::Status StoreImpl::load_attempts() {
  return db_->each_meta(kAttemptPrefix, [this](std::string_view job, std::string_view row) {
    uint64_t attempt = 0;
    if (!decode_u64(row, &attempt)) {
      return data_loss("the attempt of job {} in {} is unreadable", job, options_.folder);
    }
    const MutexLock lock(attempts_mutex_);
    attempts_.emplace(job, attempt);
    return absl::OkStatus();
  });
}

absl::Status StoreImpl::raise_attempt(std::string_view job, uint64_t attempt, Sync sync) {
  if (job.empty() || job.size() > kMaxJobBytes) {
    return invalid_argument("a job's name of {} bytes: 1 to {}", job.size(), kMaxJobBytes);
  }
  const MutexLock lock(attempts_mutex_);
  const auto known = attempts_.find(job);
  if (known != attempts_.end() && known->second >= attempt) {
    if (known->second == attempt) return absl::OkStatus();
    return failed_precondition("job {} is at attempt {} here; attempt {} is over", job,
                               known->second, attempt);
  }
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(rocksdb_status(
      batch.Put(db_->meta(), attempt_row_key(job), encode_u64(attempt)), "making a batch"));
  SLUICE_RETURN_IF_ERROR(sync == Sync::kNow ? write_durably(batch) : write(batch));
  attempts_.insert_or_assign(std::string(job), attempt);
  return absl::OkStatus();
}

std::map<std::string, uint64_t, std::less<>> StoreImpl::attempts() const {
  const MutexLock lock(attempts_mutex_);
  return attempts_;
}

absl::Status StoreImpl::forget_attempt(std::string_view job) {
  const MutexLock lock(attempts_mutex_);
  const auto known = attempts_.find(job);
  if (known == attempts_.end()) return absl::OkStatus();
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(
      rocksdb_status(batch.Delete(db_->meta(), attempt_row_key(job)), "making a batch"));
  SLUICE_RETURN_IF_ERROR(write_durably(batch));
  attempts_.erase(known);
  return absl::OkStatus();
}

}  // namespace sluice
