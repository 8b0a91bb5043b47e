#include "control/backup/backup_run.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/deadline.h"
#include "base/defect.h"
#include "base/guard.h"
#include "base/status.h"
#include "control/backup/cut_round.h"

namespace sluice {

BackupRun::BackupRun(const NodeContext& context, BackupHead head, std::vector<std::string> targets,
                     BackupSources sources, std::unique_ptr<Job> job, Kind kind,
                     const BackupRunOptions& options)
    : context_(context),
      options_(options),
      dry_run_(kind == Kind::kDryRun),
      resumed_(kind == Kind::kResumed),
      uuid_(head.uuid),
      elapsed_before_ms_(head.elapsed_ms),
      begun_ns_(context.clock->monotonic_ns()),
      job_(std::move(job)),
      table_(uuid_),
      head_(std::move(head)),
      targets_(std::move(targets)),
      sources_(std::move(sources)),
      rebalances_(options.rebalance) {
  report_.head = head_;
}

BackupRun::~BackupRun() {
  abandon();
  if (thread_.joinable()) thread_.join();
}

void BackupRun::start() {
  thread_ = guarded_thread("coordinating a backup", [this] { run(); });
}

BackupRun::Report BackupRun::wait(uint64_t version, int64_t timeout_ms) {
  MutexLock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                    [&]() SLUICE_REQUIRES(mutex_) { return report_.version > version; });
  return report_;
}

void BackupRun::publish(std::string message) {
  {
    const MutexLock lock(mutex_);
    report_.head = head_;
    report_.bytes_done = bytes_done_;
    report_.bytes_total = plan_.total_bytes();
    report_.message = std::move(message);
    ++report_.version;
  }
  changed_.notify_all();
}

// Before the head names it: whoever sees that asks at once.
void BackupRun::offer_plan(uint64_t attempt, uint64_t plan_attempt) {
  auto parts = std::make_shared<const PlanParts>(plan_);
  const MutexLock lock(mutex_);
  parts_ = std::move(parts);
  parts_attempt_ = attempt;
  parts_plan_attempt_ = plan_attempt;
}

absl::StatusOr<std::vector<std::string>> BackupRun::plan_of(uint64_t attempt,
                                                            std::string_view node) {
  std::shared_ptr<const PlanParts> parts;
  uint64_t plan_attempt = 0;
  {
    const MutexLock lock(mutex_);
    if (attempt == parts_attempt_) parts = parts_;
    plan_attempt = parts_plan_attempt_;
  }
  if (parts == nullptr) {
    return unavailable("{} has no plan for attempt {} of backup {}", context_.name, attempt, uuid_);
  }
  return encode_plan(parts->part_of(node), uuid_, plan_attempt);
}

bool BackupRun::report(const NodeProgress& progress, const ProgressTable::Order& order) {
  {
    const MutexLock lock(mutex_);
    if (report_.finished) return false;
  }
  if (table_.add(progress, order)) job_->wake();
  return true;
}

absl::Status BackupRun::store(const BackupHead& head, std::string message,
                              std::vector<ClusterOp> with) {
  return store_head(head, std::move(message), std::move(with), false);
}

absl::Status BackupRun::store_last(const BackupHead& head, std::string message,
                                   std::vector<ClusterOp> with) {
  return store_head(head, std::move(message), std::move(with), true);
}

absl::Status BackupRun::store_head(BackupHead head, std::string message,
                                   std::vector<ClusterOp> with, bool last) {
  head.coordinator = context_.name;
  head.changed_ms = context_.clock->wall_ms();
  head.elapsed_ms = elapsed_before_ms_ +
                    static_cast<uint64_t>(context_.clock->monotonic_ns() - begun_ns_) / 1'000'000;
  if (!dry_run_) {
    SLUICE_RETURN_IF_ERROR(check_change(head_, head));
    const std::vector<ClusterOp> reports = table_.take_unstored(kReportsInCommit);
    with.insert(with.end(), reports.begin(), reports.end());
    const Job::Head stored{encode(head), head.attempt};
    if (absl::Status status = last ? job_->store_last(stored, with) : job_->store(stored, with);
        !status.ok()) {
      table_.give_back(reports);
      return status;
    }
  }
  head_ = std::move(head);
  if (!message.empty()) {
    spdlog::info("backup {}: {}: {}", head_.name, name_of(head_.state), message);
  }
  publish(std::move(message));
  return absl::OkStatus();
}

void BackupRun::run() {
  const absl::Status status = guarded("coordinating a backup", [this] { return drive(); });
  absl::Status told;
  const absl::Status concluded =
      guarded("ending a backup's coordination", [&] { told = conclude(status); });
  // Whoever is told may begin another backup.
  if (!job_->has_released()) job_->release();
  {
    const MutexLock lock(mutex_);
    report_.head = head_;
    report_.details = {planned_nodes(plan_), archives_, stages_, trees_};
    report_.finished = true;
    parts_ = nullptr;
    report_.status = concluded.ok() ? told : concluded;
    ++report_.version;
  }
  changed_.notify_all();
  job_->release();
}

absl::Status BackupRun::drive() {
  last_change_ns_ = context_.clock->monotonic_ns();
  if (resumed_) {
    BackupHead head = head_;
    if (!defect(Defect::kTakeoverKeepsAttempt) || has_ended(head.state)) {
      head.attempt = next_attempt();
    }
    if (!has_ended(head.state) && head.state != BackupState::kPlanning) {
      SLUICE_ASSIGN_OR_RETURN(plan_, load_plan(*context_.block, head));
      offer_plan(head.attempt, head.plan_attempt);
    }
    // From here on nothing that an earlier coordinator does has an effect.
    SLUICE_RETURN_IF_ERROR(store(head, fmt::format("{} coordinates now", context_.name)));
  }
  if (head_.state == BackupState::kFailed) SLUICE_RETURN_IF_ERROR(resume_plan());
  if (head_.state == BackupState::kPlanning) {
    SLUICE_RETURN_IF_ERROR(plan_backup());
    if (dry_run_) return absl::OkStatus();
  }
  while (true) {
    SLUICE_RETURN_IF_ERROR(follow());
    const absl::Status finished = finish();
    if (finished.ok() || stopped() || head_.state == BackupState::kConsolidated) {
      return finished;
    }
    // A target died with its part, before the parts were collected: the others take its slots.
    const std::set<std::string> dead = dead_targets();
    if (dead.empty()) return finished;
    SLUICE_RETURN_IF_ERROR(
        replan_without(dead, fmt::format("planned without {}, which is down", *dead.begin())));
  }
}

// The cuts of a backup that is completed are dropped by the nodes, which watch its head. A dry run
// has none.
absl::Status BackupRun::conclude(const absl::Status& status) {
  if (status.ok() && !dry_run_) return status;
  const bool ours = job_->hold().ok();
  absl::Status told = status;
  // Whatever it stumbled over then: the backup is not at its end, another coordinator goes on.
  if (!ours && !status.ok()) told = aborted("{} does not coordinate it any more", context_.name);
  if (ours && !dry_run_) {
    BackupHead head = head_;
    // Of one that may have been stored, though its answer was lost.
    head.attempt = std::max(head.attempt, highest_attempt_);
    head.state = job_->is_cancelled() ? BackupState::kCancelled : BackupState::kFailed;
    head.error = message_of(status);
    if (const absl::Status stored = store(head, head.error); !stored.ok()) {
      spdlog::error("backup {}: its end cannot be stored: {}", head.name, message_of(stored));
      told = with_context(stored, fmt::format("{}; and that cannot be stored", message_of(status)));
    } else if (head.state == BackupState::kCancelled && job_->hold().ok()) {
      drop_backup(context_, uuid_, head_.attempt);
    }
  } else if (dry_run_) {
    drop_cuts(context_, uuid_, head_.attempt);
  }
  return told;
}

}  // namespace sluice
