#include "control/backup/backup_run.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/deadline.h"
#include "base/guard.h"
#include "base/status.h"
#include "control/backup/cut_round.h"

namespace sluice {

namespace {
constexpr int64_t kUpdateRetryMs = 200;
constexpr int64_t kHoldSliceMs = 200;
}  // namespace

BackupRun::BackupRun(const NodeContext& context, StoredBackup stored,
                     std::unique_ptr<LeaseLock> lock, Kind kind, const BackupRunOptions& options)
    : context_(context),
      options_(options),
      dry_run_(kind == Kind::kDryRun),
      resumed_(kind == Kind::kResumed),
      uuid_(stored.head.uuid),
      elapsed_before_ms_(stored.head.elapsed_ms),
      begun_ns_(context.clock->monotonic_ns()),
      lock_(std::move(lock)),
      table_(uuid_),
      stored_(std::move(stored)),
      rebalances_(options.rebalance) {
  report_.head = stored_.head;
}

BackupRun::~BackupRun() {
  abandon();
  if (thread_.joinable()) thread_.join();
}

void BackupRun::start() {
  thread_ = guarded_thread("coordinating a backup", [this] { run(); });
}

BackupRun::Report BackupRun::wait(uint64_t version, int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                    [&] { return report_.version > version; });
  return report_;
}

void BackupRun::publish(std::string message) {
  {
    const std::lock_guard lock(mutex_);
    report_.head = stored_.head;
    report_.bytes_done = bytes_done_;
    report_.bytes_total = plan_.total_bytes();
    report_.message = std::move(message);
    ++report_.version;
  }
  changed_.notify_all();
}

absl::Status BackupRun::update(const BackupHead& head, const std::vector<ClusterOp>& with) {
  return update_backup(*context_.block, stored_, head, with, while_it_may_pass());
}

std::function<bool()> BackupRun::while_it_may_pass() const {
  return [this, deadline = Deadline(*context_.clock, options_.grace_ms)]() mutable {
    return !lock_->lost() && !abandoned_ && deadline.pause(kUpdateRetryMs);
  };
}

bool BackupRun::report(const NodeProgress& progress, const ProgressTable::Order& order) {
  {
    const std::lock_guard lock(mutex_);
    if (report_.finished) return false;
  }
  if (table_.add(progress, order)) wakeup_.wake();
  return true;
}

absl::Status BackupRun::store(const BackupHead& head, std::string message,
                              std::vector<ClusterOp> with) {
  with.push_back(lock_->fence());
  return commit(head, std::move(message), with);
}

absl::Status BackupRun::store_end(const BackupHead& head, std::string message) {
  SLUICE_RETURN_IF_ERROR(commit(head, std::move(message), lock_->release()));
  lock_->set_released();
  return absl::OkStatus();
}

absl::Status BackupRun::commit(const BackupHead& head, std::string message,
                               const std::vector<ClusterOp>& with) {
  BackupHead changed = head;
  changed.coordinator = context_.name;
  changed.changed_ms = context_.clock->wall_ms();
  changed.elapsed_ms =
      elapsed_before_ms_ +
      static_cast<uint64_t>(context_.clock->monotonic_ns() - begun_ns_) / 1'000'000;
  if (dry_run_) {
    stored_.head = std::move(changed);
  } else {
    SLUICE_RETURN_IF_ERROR(hold());
    const std::vector<ClusterOp> reports = table_.take_unstored(kReportsInCommit);
    std::vector<ClusterOp> ops = with;
    ops.insert(ops.end(), reports.begin(), reports.end());
    if (absl::Status status = update(changed, ops); !status.ok()) {
      table_.give_back(reports);
      return status;
    }
  }
  if (!message.empty()) {
    spdlog::info("backup {}: {}: {}", stored_.head.name, name_of(stored_.head.state), message);
  }
  publish(std::move(message));
  return absl::OkStatus();
}

absl::Status BackupRun::stop_status() const {
  if (cancelled_) return cancelled("cancelled by the operator");
  if (abandoned_) return aborted("the coordinator {} stops", context_.name);
  if (lock_->lost()) return aborted("another coordinator has taken over");
  return absl::OkStatus();
}

absl::Status BackupRun::hold() {
  const int64_t deadline = context_.clock->monotonic_ns() + options_.stall_ms * 1'000'000;
  while (true) {
    if (abandoned_) return aborted("the coordinator {} stops", context_.name);
    const absl::Status held = lock_->wait_held(kHoldSliceMs);
    if (!is_transient(held) || context_.clock->monotonic_ns() >= deadline) return held;
  }
}

void BackupRun::run() {
  const absl::Status status = guarded("coordinating a backup", [this] { return drive(); });
  absl::Status told;
  const absl::Status concluded =
      guarded("ending a backup's coordination", [&] { told = conclude(status); });
  // Whoever is told may begin another backup.
  if (!lock_->released()) lock_.reset();
  {
    const std::lock_guard lock(mutex_);
    report_.head = stored_.head;
    report_.finished = true;
    report_.status = concluded.ok() ? told : concluded;
    ++report_.version;
  }
  changed_.notify_all();
  lock_.reset();
}

absl::Status BackupRun::drive() {
  last_change_ns_ = context_.clock->monotonic_ns();
  if (resumed_) {
    // Before anything else: from here on nothing that an earlier coordinator does has an effect.
    BackupHead head = stored_.head;
    ++head.attempt;
    SLUICE_RETURN_IF_ERROR(store(head, fmt::format("{} coordinates now", context_.name)));
  }
  if (stored_.head.state == BackupState::kFailed) SLUICE_RETURN_IF_ERROR(resume_plan());
  if (stored_.head.state == BackupState::kPlanning) {
    SLUICE_RETURN_IF_ERROR(plan_backup());
    if (dry_run_) return absl::OkStatus();
  } else {
    SLUICE_ASSIGN_OR_RETURN(plan_, load_plan(*context_.block, stored_.head));
  }
  while (true) {
    SLUICE_RETURN_IF_ERROR(follow());
    const absl::Status finished = finish();
    if (finished.ok() || stopped() || stored_.head.state == BackupState::kConsolidated) {
      return finished;
    }
    // A target died with its part, before the parts were collected: the others take its slots.
    std::set<std::string> dead;
    const auto snapshot = context_.directory->snapshot();
    for (const std::string& target : stored_.head.targets) {
      if (!snapshot->live(target)) dead.insert(target);
    }
    if (dead.empty()) return finished;
    SLUICE_RETURN_IF_ERROR(
        replan_without(dead, fmt::format("planned without {}, which is down", *dead.begin())));
  }
}

// The cuts of a backup that is completed are dropped by the nodes, which watch its head. A dry run
// has none.
absl::Status BackupRun::conclude(const absl::Status& status) {
  if (status.ok() && !dry_run_) return status;
  const bool ours = hold().ok();
  absl::Status told = status;
  // Whatever it stumbled over then: the backup is not at its end, another coordinator goes on.
  if (!ours && !status.ok()) told = aborted("{} does not coordinate it any more", context_.name);
  if (ours && !dry_run_) {
    BackupHead head = stored_.head;
    head.state = cancelled_ ? BackupState::kCancelled : BackupState::kFailed;
    head.error = message_of(status);
    if (const absl::Status stored = store(head, head.error); !stored.ok()) {
      spdlog::error("backup {}: its end cannot be stored: {}", head.name, message_of(stored));
      told = with_context(stored, fmt::format("{}; and that cannot be stored", message_of(status)));
    }
    if (cancelled_ && hold().ok()) drop_backup(context_, uuid_, stored_.head.attempt);
  } else if (dry_run_) {
    drop_cuts(context_, uuid_, stored_.head.attempt);
  }
  return told;
}

}  // namespace sluice
