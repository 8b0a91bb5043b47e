#include "control/backup/backup_manager.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>

#include "base/guard.h"
#include "base/random.h"
#include "base/status.h"
#include "base/text.h"
#include "control/backup/backup_job.h"
#include "control/backup/cut_round.h"

namespace sluice {

namespace {

constexpr auto kOrphanInterval = std::chrono::milliseconds(1000);
constexpr int64_t kCancelWaitNs = 10'000'000'000;
constexpr int kLockTries = 4;
constexpr size_t kMaxProgressBytes = size_t{16} << 10;

std::string made_name(int64_t wall_ms, std::string_view uuid) {
  const std::time_t seconds = wall_ms / 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  // With milliseconds, so that names sort by time; the rest tells apart what two nodes begin.
  return fmt::format("{:04}{:02}{:02}-{:02}{:02}{:02}-{:03}-{}", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     wall_ms % 1000, uuid.substr(0, 4));
}

}  // namespace

absl::StatusOr<std::unique_ptr<BackupManager>> BackupManager::start(
    const NodeContext& context, const BackupRunOptions& options) {
  auto manager = std::unique_ptr<BackupManager>(new BackupManager(context, options));
  BackupManager* self = manager.get();
  manager->thread_ = guarded_thread("looking for orphaned backups", [self] { self->run(); });
  return manager;
}

BackupManager::~BackupManager() { stop(); }

void BackupManager::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    for (const auto& run : runs_) run->abandon();
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<BackupRun> BackupManager::begin(BackupHead head, std::vector<std::string> targets,
                                                BackupSources sources, std::unique_ptr<Job> job,
                                                BackupRun::Kind kind) {
  auto run = std::make_shared<BackupRun>(context_, std::move(head), std::move(targets),
                                         std::move(sources), std::move(job), kind, options_);
  run->start();
  // Destroyed without the mutex: a run may still be giving its lease up.
  std::vector<std::shared_ptr<BackupRun>> finished;
  const MutexLock guard(mutex_);
  if (stopping_) run->abandon();
  const auto old = std::stable_partition(runs_.begin(), runs_.end(), [](const auto& each) {
    return !each->wait(~uint64_t{0}, 0).finished;
  });
  std::move(old, runs_.end(), std::back_inserter(finished));
  runs_.erase(old, runs_.end());
  runs_.push_back(run);
  return run;
}

absl::StatusOr<std::shared_ptr<BackupRun>> BackupManager::create(const BackupRequest& request) {
  BackupHead head;
  head.uuid = make_uuid();
  head.created_ms = head.changed_ms = context_.clock->wall_ms();
  head.name = request.name.empty() ? made_name(head.created_ms, head.uuid) : request.name;
  SLUICE_RETURN_IF_ERROR(check_backup_name(head.name));
  head.coordinator = context_.name;
  head.slot_bits = context_.cluster().slot_bits;
  SLUICE_RETURN_IF_ERROR(context_.directory->refresh());
  const auto snapshot = context_.directory->snapshot();
  std::vector<std::string> targets = request.targets;
  std::sort(targets.begin(), targets.end());
  targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
  for (const std::string& target : targets) {
    const Member* member = snapshot->find(target);
    if (member == nullptr) {
      return not_found("target {}: no node of this name is in the cluster", target);
    }
    // Not UNAVAILABLE: another coordinator could do no more.
    if (!member->live) {
      return failed_precondition("target {} is down; start it, or name other targets", target);
    }
  }
  for (const std::string& tree : request.sources.trees) {
    const auto has = [&tree](const Member& member) {
      const auto& names = member.info.trees;
      return std::find(names.begin(), names.end(), tree) != names.end();
    };
    if (std::any_of(snapshot->members.begin(), snapshot->members.end(), has)) continue;
    return not_found("tree {}: no node has one of this name", printable(tree));
  }
  std::vector<ClusterOp> creation;
  if (!request.dry_run) {
    SLUICE_ASSIGN_OR_RETURN(creation, targets_put(head.uuid, targets));
    for (ClusterOp& op : sources_put(head.uuid, request.sources)) creation.push_back(std::move(op));
    for (ClusterOp& op : creation_of(head)) creation.push_back(std::move(op));
  }
  absl::StatusOr<std::unique_ptr<Job>> job;
  for (int tries = 0; tries < kLockTries; ++tries) {
    job = take_backup_job(context_, head.uuid, head.name, options_.patience(), creation);
    if (!absl::IsAborted(job.status())) break;
    // Otherwise somebody had the lock and has let go of it since.
    SLUICE_RETURN_IF_ERROR(check_name_is_free(*context_.block, head.name));
  }
  SLUICE_RETURN_IF_ERROR(job.status());
  if (!request.dry_run) (*job)->adopt((*job)->taken_at(), head.attempt);
  return begin(std::move(head), std::move(targets), request.sources, *std::move(job),
               request.dry_run ? BackupRun::Kind::kDryRun : BackupRun::Kind::kNew);
}

absl::StatusOr<std::shared_ptr<BackupRun>> BackupManager::resume(std::string_view backup) {
  SLUICE_ASSIGN_OR_RETURN(StoredBackup stored, load_backup(*context_.block, backup));
  if (is_terminal(stored.head.state)) {
    return failed_precondition("backup {} is {}", stored.head.name, name_of(stored.head.state));
  }
  SLUICE_ASSIGN_OR_RETURN(
      auto job, take_backup_job(context_, stored.head.uuid, stored.head.name, options_.patience()));
  // What it was before the lock was ours may be old.
  SLUICE_ASSIGN_OR_RETURN(stored, load_backup(*context_.block, stored.head.uuid));
  if (is_terminal(stored.head.state)) {
    return failed_precondition("backup {} is {}", stored.head.name, name_of(stored.head.state));
  }
  job->adopt(stored.revision, stored.head.attempt);
  return begin(std::move(stored.head), {}, {}, std::move(job), BackupRun::Kind::kResumed);
}

std::shared_ptr<BackupRun> BackupManager::find(std::string_view uuid) {
  const MutexLock lock(mutex_);
  // The last one: of a backup that was resumed there are several.
  for (auto run = runs_.rbegin(); run != runs_.rend(); ++run) {
    if ((*run)->uuid() == uuid) return *run;
  }
  return nullptr;
}

absl::Status BackupManager::report(const v1::ProgressRequest& request) {
  if (request.progress().size() > kMaxProgressBytes) {
    return invalid_argument("a report of {} bytes: at most {}", request.progress().size(),
                            kMaxProgressBytes);
  }
  SLUICE_ASSIGN_OR_RETURN(
      const NodeProgress progress,
      decode_node_progress(backup_progress_key(request.backup(), request.node()),
                           request.progress()));
  if (progress.attempt != request.attempt()) {
    return invalid_argument("a report of attempt {} in attempt {}", progress.attempt,
                            request.attempt());
  }
  const ProgressTable::Order order{request.attempt(), request.joined(), request.number()};
  const auto run = find(request.backup());
  if (run != nullptr && run->report(progress, order)) return absl::OkStatus();
  // The last numbers of a backup that has ended, or whose coordinator is yet to come back.
  return store_progress(*context_.block, request.backup(), progress);
}

absl::StatusOr<std::vector<std::string>> BackupManager::plan_of(const v1::PlanRequest& request) {
  const auto run = find(request.backup());
  if (run == nullptr) {
    return unavailable("{} does not coordinate backup {}", context_.name, request.backup());
  }
  return run->plan_of(request.attempt(), request.node());
}

absl::Status BackupManager::cancel(std::string_view backup) {
  SLUICE_ASSIGN_OR_RETURN(StoredBackup stored, load_backup(*context_.block, backup));
  const std::string uuid = stored.head.uuid;
  const std::shared_ptr<BackupRun> ours = find(uuid);
  if (ours != nullptr) ours->cancel();
  const int64_t deadline = context_.clock->monotonic_ns() + kCancelWaitNs;
  uint64_t version = 0;
  while (ours != nullptr && context_.clock->monotonic_ns() < deadline) {
    const auto report = ours->wait(version, 200);
    version = report.version;
    if (report.finished) break;
  }
  // A run elsewhere sees by the head's change that it is over.
  for (int tries = 0; tries < 20; ++tries) {
    SLUICE_ASSIGN_OR_RETURN(stored, load_backup(*context_.block, uuid));
    if (stored.head.state == BackupState::kCancelled) {
      drop_backup(context_, uuid, stored.head.attempt);
      return absl::OkStatus();
    }
    BackupHead head = stored.head;
    // Nothing that the run elsewhere still does has an effect.
    ++head.attempt;
    head.state = BackupState::kCancelled;
    head.error = "cancelled by the operator";
    head.changed_ms = context_.clock->wall_ms();
    const absl::Status status = update_backup(*context_.block, stored, head);
    if (!status.ok() && status.code() != absl::StatusCode::kAborted) return status;
  }
  return aborted("backup {} keeps changing", stored.head.name);
}

void BackupManager::run() {
  while (true) {
    {
      MutexLock lock(mutex_);
      wake_.wait_for(lock, kOrphanInterval, [this]() SLUICE_REQUIRES(mutex_) { return stopping_; });
      if (stopping_) return;
    }
    // What goes wrong is logged, and done again.
    guarded("looking for orphaned backups", [this] { take_over_orphans(); }).IgnoreError();
  }
}

void BackupManager::take_over_orphans() {
  if (!context_.ready) return;
  const auto held = context_.block->get(kBackupLockKey);
  if (!held.ok()) return;
  // Free for two polls in a row: a coordinator whose lease ended because the cluster block was away
  // takes its lock again as soon as the block is back.
  const bool was_free = std::exchange(lock_was_free_, !held->has_value());
  if (held->has_value() || !was_free) return;
  const auto list = list_backups(*context_.block);
  if (!list.ok()) return;
  for (const StoredBackup& stored : list->backups) {
    if (has_ended(stored.head.state)) continue;
    auto run = resume(stored.head.uuid);
    if (run.ok()) {
      spdlog::info("{}: takes over backup {} of {}", context_.name, stored.head.name,
                   stored.head.coordinator);
      return;
    }
    // Another node was faster.
    if (absl::IsAlreadyExists(run.status())) return;
    spdlog::warn("{}: backup {} of {} is not taken over: {}", context_.name, stored.head.name,
                 stored.head.coordinator, message_of(run.status()));
  }
}

}  // namespace sluice
