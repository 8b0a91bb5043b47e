#include "control/job/job_fence.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "base/defect.h"
#include "base/status.h"

namespace sluice {

JobFence::JobFence(Store& store, std::string kind, AttemptCheck check)
    : store_(store), kind_(std::move(kind)), check_(std::move(check)) {
  for (const auto& [job, attempt] : store_.attempts()) jobs_[job].attempt = attempt;
}

absl::StatusOr<JobFence::Pass> JobFence::enter(std::string_view name_of_job, uint64_t attempt,
                                               int64_t wait_ms, Store::Sync sync) {
  if (name_of_job.empty() || name_of_job.size() > Store::kMaxJobBytes || attempt == 0) {
    return invalid_argument("a call of a {} without its UUID or attempt", kind_);
  }
  const std::string name(name_of_job);
  const auto over = [&](const Job& job) {
    return failed_precondition("{} {} is at attempt {} here; attempt {} is over", kind_, name,
                               job.attempt, attempt);
  };
  MutexLock lock(mutex_);
  // An entry that somebody uses is not forgotten, and map entries stay in place.
  Job& job = jobs_[name];
  ++job.waiting;
  const bool settled = changed_.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] {
    return job.attempt > attempt || (!job.raising && (job.attempt == attempt || job.at_work == 0));
  });
  --job.waiting;
  if (job.attempt > attempt && !defect(Defect::kLowerAttemptPasses)) return over(job);
  if (!settled) {
    return unavailable("attempt {} of {} {} is still at work here", job.attempt, kind_, name);
  }
  if (job.attempt < attempt) {
    job.raising = true;
    lock.unlock();
    absl::Status status = check_(name, attempt);
    if (status.ok()) {
      if (const absl::Status kept = store_.raise_attempt(name, attempt, sync); !kept.ok()) {
        spdlog::warn("{} {}: its attempt {} is not kept over a restart: {}", kind_, name, attempt,
                     message_of(kept));
      }
    }
    lock.lock();
    job.raising = false;
    if (status.ok()) job.attempt = attempt;
    changed_.notify_all();
    if (!status.ok()) return status;
  }
  ++job.at_work;
  return Pass(this, name);
}

void JobFence::leave(const std::string& job) {
  {
    const MutexLock lock(mutex_);
    --jobs_.find(job)->second.at_work;
  }
  changed_.notify_all();
}

void JobFence::forget_except(const std::set<std::string>& known) {
  const MutexLock lock(mutex_);
  for (auto it = jobs_.begin(); it != jobs_.end();) {
    const Job& job = it->second;
    if (known.contains(it->first) || job.at_work > 0 || job.waiting > 0 || job.raising) {
      ++it;
      continue;
    }
    if (const absl::Status status = store_.forget_attempt(it->first); !status.ok()) {
      ++it;
      continue;
    }
    it = jobs_.erase(it);
  }
}

}  // namespace sluice
