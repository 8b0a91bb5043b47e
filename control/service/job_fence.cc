#include "control/service/job_fence.h"

#include <spdlog/spdlog.h>

#include <chrono>

#include "base/status.h"
#include "control/schedule/documents.h"
#include "control/service/backup_lock.h"

namespace sluice {

JobFence::JobFence(Store& store, ClusterBlock& block) : store_(store), block_(block) {
  for (const auto& [backup, attempt] : store_.attempts()) jobs_[backup].attempt = attempt;
}

absl::StatusOr<JobFence::Pass> JobFence::enter(std::string_view backup, uint64_t attempt,
                                               int64_t wait_ms, Store::Sync sync) {
  if (backup.empty() || backup.size() > Store::kMaxJobBytes || attempt == 0) {
    return invalid_argument("a call of a backup without its UUID or attempt");
  }
  const std::string name(backup);
  const auto over = [&](const Job& job) {
    return failed_precondition("backup {} is at attempt {} here; attempt {} is over", name,
                               job.attempt, attempt);
  };
  std::unique_lock lock(mutex_);
  // An entry that somebody uses is not forgotten, and map entries stay in place.
  Job& job = jobs_[name];
  ++job.waiting;
  const bool settled = changed_.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] {
    return job.attempt > attempt || (!job.raising && (job.attempt == attempt || job.at_work == 0));
  });
  --job.waiting;
  if (job.attempt > attempt) return over(job);
  if (!settled) {
    return unavailable("attempt {} of backup {} is still at work here", job.attempt, name);
  }
  if (job.attempt < attempt) {
    job.raising = true;
    lock.unlock();
    absl::Status status = check_document(name, attempt);
    if (status.ok()) {
      if (const absl::Status kept = store_.raise_attempt(name, attempt, sync); !kept.ok()) {
        spdlog::warn("backup {}: its attempt {} is not kept over a restart: {}", name, attempt,
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

void JobFence::leave(const std::string& backup) {
  {
    const std::lock_guard lock(mutex_);
    --jobs_.find(backup)->second.at_work;
  }
  changed_.notify_all();
}

absl::Status JobFence::check_document(const std::string& backup, uint64_t attempt) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block_.get(backup_head_key(backup)));
  if (!entry.has_value()) {
    SLUICE_ASSIGN_OR_RETURN(const auto holder, block_.get(kBackupLockKey));
    if (holder.has_value() && holder->value.starts_with(backup + " ")) return absl::OkStatus();
    return not_found("there is no backup {} (any more)", backup);
  }
  const auto head = decode_backup_head(entry->key, entry->value);
  // A damaged document tells nothing; it is erased by whoever has the lock.
  if (!head.ok() || head->attempt == attempt) return absl::OkStatus();
  return failed_precondition("backup {} is at attempt {}; attempt {} is {}", head->name,
                             head->attempt, attempt,
                             attempt < head->attempt ? "over" : "not begun");
}

void JobFence::forget_except(const std::set<std::string>& known) {
  const std::lock_guard lock(mutex_);
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
