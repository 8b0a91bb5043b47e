#include "control/backup/backup_roles.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/deadline.h"
#include "base/defect.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/status.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_job.h"
#include "control/backup/backup_role.h"
#include "control/backup/local_archives.h"
#include "control/job/job_fence.h"
#include "control/peers/archive_reference.h"
#include "control/peers/rpc.h"
#include "dataplane/archive/folder.h"
#include "dataplane/archive/part_identity.h"
#include "dataplane/archive/writer.h"

namespace sluice {

namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(1000);
constexpr int64_t kOrphansNs = 10'000 * kMs;
constexpr int64_t kFenceWaitMs = 1000;
// For this node's part of a plan.
constexpr int64_t kPlanMs = 5000;
constexpr size_t kLargestManifest = size_t{1} << 30;

bool is_running(BackupState state) {
  return state == BackupState::kEnabled || state == BackupState::kSent ||
         state == BackupState::kCopyCompleted || state == BackupState::kConsolidated;
}

// Beside a committed part: committing ends with the removal of the journal, which a crash may
// prevent and a loss of power undo.
absl::Status remove_left_files(const NodeContext& context, const BackupHead& head) {
  const std::string directory = archive_path(context, head);
  const auto left = left_of_writing(directory);
  if (!left.ok() || left->empty()) return absl::OkStatus();  // whoever needs the part reports it
  const ArchivePartId id{context.cluster().uuid, head.uuid, context.name, head.manifest_digest};
  const auto found = identify_part(directory);
  if (!found.ok() || found->state != FoundPart::State::kFinished ||
      !check_identity(directory, *found, id).ok()) {
    return absl::OkStatus();
  }
  for (const std::string& name : *left) {
    SLUICE_RETURN_IF_ERROR(remove_file(fmt::format("{}/{}", directory, name)));
  }
  spdlog::info("{}: removed what was left of writing its part of backup {}", context.name,
               head.name);
  return absl::OkStatus();
}

// A part that is not in this node's archive directory is gone, unless it stands where it was made:
// the node has another archive directory now.
absl::Status check_moved_away(const NodeContext& context, const BackupHead& head,
                              const ArchivePartId& id) {
  const auto stored = load_part(*context.block, head.uuid, context.name);
  // Damage of the document is no obstacle to a deletion.
  if (absl::IsDataLoss(stored.status())) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const auto part, stored);
  if (!part.has_value() || part->path == archive_path(context, head)) return absl::OkStatus();
  const auto found = identify_part(part->path);
  if (!found.ok() || !check_identity(part->path, *found, id).ok()) return absl::OkStatus();
  return failed_precondition(
      "its part is in {}, and its archive directory is {} now: move the part there", part->path,
      context.archive_folder);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BackupRoles>> BackupRoles::start(const NodeContext& context) {
  auto roles = std::unique_ptr<BackupRoles>(new BackupRoles(context));
  BackupRoles* self = roles.get();
  SLUICE_ASSIGN_OR_RETURN(roles->watch_,
                          context.block->watch(kBackupsPrefix, 0, [self](const WatchEvent&) {
                            {
                              const MutexLock lock(self->mutex_);
                              self->changed_ = true;
                            }
                            self->wake_.notify_all();
                          }));
  roles->thread_ = guarded_thread("following schedules", [self] { self->run(); });
  return roles;
}

BackupRoles::~BackupRoles() {
  watch_.reset();
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  for (auto& [backup, role] : roles_) role->stop();
}

void BackupRoles::run() {
  while (true) {
    {
      MutexLock lock(mutex_);
      wake_.wait_for(lock, kPollInterval,
                     [this]() SLUICE_REQUIRES(mutex_) { return changed_ || stopping_; });
      if (stopping_) return;
      changed_ = false;
    }
    guarded("following schedules", [this] { look(); }).IgnoreError();  // logged, and done again
  }
}

void BackupRoles::look() {
  // It would not be found by the others, nor stamp with its number.
  if (!context_.ready) return;
  const auto list = list_backups(*context_.block);
  if (!list.ok()) {
    spdlog::warn("{}: schedules: {}", context_.name, message_of(list.status()));
    return;
  }
  for (const UnreadableBackup& bad : list->unreadable) {
    if (reported_.insert(std::string(message_of(bad.status))).second) {
      spdlog::error("{}: a schedule is left alone: {}", context_.name, message_of(bad.status));
    }
  }
  std::set<std::string> running;
  for (const StoredBackup& stored : list->backups) {
    if (is_running(stored.head.state)) running.insert(stored.head.uuid);
  }
  end_roles_except(running);
  drop_finished_cuts(*list);
  forget_ended_jobs(*list);
  // Before anything begins: what is left of an earlier backup of its name would be in its way.
  delete_parts(*list);
  remove_orphans();
  remove_left_parts(*list);
  remove_forgotten_parts(*list);
  for (const StoredBackup& stored : list->backups) {
    if (running.contains(stored.head.uuid)) follow(stored);
  }
}

// Whether its deletion is this node's business: it holds a part; or nobody does, and it is the
// first of the live nodes.
absl::StatusOr<bool> BackupRoles::is_to_delete(const BackupHead& head) const {
  SLUICE_ASSIGN_OR_RETURN(const bool holds, is_holder(*context_.block, head.uuid, context_.name));
  if (holds) return true;
  const auto live = context_.directory->snapshot()->live_names();
  if (live.empty() || *std::min_element(live.begin(), live.end()) != context_.name) return false;
  SLUICE_ASSIGN_OR_RETURN(const auto holders, load_holders(*context_.block, head.uuid));
  return holders.empty();
}

// Deletions that reached the document while this node was away, or could not remove its part then.
void BackupRoles::delete_parts(const BackupList& list) {
  for (const StoredBackup& stored : list.backups) {
    const BackupHead& head = stored.head;
    if (!head.deleting) continue;
    const auto ours = is_to_delete(head);
    if (ours.ok() && !*ours) continue;
    const absl::Status status = ours.ok() ? delete_part(head) : ours.status();
    if (!status.ok() &&
        reported_.insert(fmt::format("{} {}", head.uuid, message_of(status))).second) {
      spdlog::warn("{}: its part of backup {}, which is being deleted, remains: {}", context_.name,
                   head.name, message_of(status));
    }
  }
}

// Of backups that were deleted for good while this node was away: at its start, and now and then.
void BackupRoles::remove_orphans() {
  const int64_t now = context_.clock->monotonic_ns();
  if (orphans_ns_ != 0 && now - orphans_ns_ < kOrphansNs) return;
  orphans_ns_ = now;
  const auto orphans = list_orphans(*context_.block);
  if (!orphans.ok()) return;  // it is listed again
  for (const OrphanedPart& orphan : *orphans) {
    if (orphan.node != context_.name) continue;
    const absl::Status status = remove_orphan(orphan);
    if (!status.ok() &&
        reported_.insert(fmt::format("{} {}", orphan.backup, message_of(status))).second) {
      spdlog::warn("{}: its part of backup {}, which was deleted, remains: {}", context_.name,
                   orphan.name, message_of(status));
    }
  }
}

absl::Status BackupRoles::remove_orphan(const OrphanedPart& orphan) {
  const ArchivePartId id{context_.cluster().uuid, orphan.backup, context_.name,
                         orphan.manifest_digest};
  const absl::Status removed = context_.archives->remove(orphan.name, id, Removable::kAny);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  if (!removed.ok() && !orphan.path.empty()) {
    const auto found = identify_part(orphan.path);
    if (found.ok() && check_identity(orphan.path, *found, id).ok()) {
      return failed_precondition(
          "its part is in {}, and its archive directory is {} now: move the part there",
          orphan.path, context_.archive_folder);
    }
  }
  spdlog::info("{}: backup {} was deleted: {}", context_.name, orphan.name,
               removed.ok() ? "its part is removed" : "nothing of its part is there");
  return forget_orphan(*context_.block, orphan);
}

absl::Status BackupRoles::delete_part(const v1::ArchiveReference& reference) {
  SLUICE_ASSIGN_OR_RETURN(const ArchivePartId id, id_of(reference));
  const auto stored = load_backup(*context_.block, id.backup);
  // Somebody else saw its last part gone.
  if (absl::IsNotFound(stored.status())) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(stored.status());
  const BackupHead& head = stored->head;
  if (!head.deleting && !defect(Defect::kPartsGoFirst)) {
    return failed_precondition("backup {} is {}: it is not being deleted", head.name,
                               name_of(head.state));
  }
  if (id.cluster != context_.cluster().uuid || id.node != context_.name ||
      id.manifest_digest != head.manifest_digest) {
    return failed_precondition("{} was asked to remove another part than it holds of backup {}",
                               context_.name, head.name);
  }
  return delete_part(head);
}

absl::Status BackupRoles::delete_part(const BackupHead& head) {
  if (const auto role = take(head.uuid); role != nullptr) role->stop();
  const ArchivePartId id{context_.cluster().uuid, head.uuid, context_.name, head.manifest_digest};
  const absl::Status removed = context_.archives->remove(head.name, id, Removable::kAny);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  if (!removed.ok()) SLUICE_RETURN_IF_ERROR(check_moved_away(context_, head, id));
  spdlog::info("{}: backup {} is being deleted: {}", context_.name, head.name,
               removed.ok() ? "its part is removed" : "nothing of its part is there");
  return strike_part(*context_.block, head.uuid, context_.name);
}

// A target that was away when its backup went on without it, or was cancelled, has a part that is
// nobody's.
void BackupRoles::remove_left_parts(const BackupList& list) {
  for (const StoredBackup& stored : list.backups) {
    const BackupHead& head = stored.head;
    if (!is_terminal(head.state)) continue;
    const std::string key = fmt::format("{} {}", head.uuid, head.deleting);
    if (tidied_.contains(key)) continue;
    const absl::Status removed = remove_left_part(head);
    if (removed.ok()) {
      tidied_.insert(key);
    } else if (reported_.insert("left " + key).second) {
      spdlog::warn("{}: its left part of backup {}: {}", context_.name, head.name,
                   message_of(removed));
    }
  }
}

// What was committed goes with the backup's deletion alone.
absl::Status BackupRoles::remove_left_part(const BackupHead& head) {
  SLUICE_ASSIGN_OR_RETURN(const bool holds, is_holder(*context_.block, head.uuid, context_.name));
  if (defect(Defect::kFinishedPartsAreTidied) && !head.deleting &&
      head.state == BackupState::kCompleted) {
    return delete_archive(archive_path(context_, head));
  }
  if (holds && head.deleting) return absl::OkStatus();
  if (holds && head.state == BackupState::kCompleted) return remove_left_files(context_, head);
  const ArchivePartId id{context_.cluster().uuid, head.uuid, context_.name, {}};
  const absl::Status removed = context_.archives->remove(
      head.name, id, head.deleting ? Removable::kAny : Removable::kUnfinished);
  if (removed.ok()) {
    spdlog::info("{}: removed its left part of backup {}", context_.name, head.name);
  }
  // Nothing is there, or what is not to be removed.
  const bool stays =
      absl::IsNotFound(removed) || absl::IsDataLoss(removed) || absl::IsFailedPrecondition(removed);
  return stays ? absl::OkStatus() : removed;
}

// A backup may be deleted while this node is down. An unfinished part of it would never be used
// again, and would be in the way of a later backup of that name.
void BackupRoles::remove_forgotten_parts(const BackupList& list) {
  // Documents that cannot be read may be of any backup.
  if (!list.unreadable.empty()) return;
  std::set<std::string> known;
  for (const StoredBackup& stored : list.backups) known.insert(stored.head.uuid);
  if (swept_for_ == known) return;
  bool all_gone = true;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(context_.archive_folder, error)) {
    const std::string name = entry.path().filename().string();
    const auto part = unfinished_part(entry.path().string());
    if (!part.ok() || known.contains(part->identity.backup)) continue;
    const ArchivePartId id{context_.cluster().uuid, part->identity.backup, context_.name, {}};
    const absl::Status removed = context_.archives->remove(name, id, Removable::kUnfinished);
    if (removed.ok()) {
      spdlog::info("{}: removed its part of backup {}, which was deleted", context_.name,
                   part->identity.name);
    } else if (!absl::IsNotFound(removed) && !absl::IsDataLoss(removed)) {
      all_gone = false;
      if (reported_.insert(name).second) {
        spdlog::warn("{}: its left part of backup {}: {}", context_.name, part->identity.name,
                     message_of(removed));
      }
    }
  }
  if (all_gone) swept_for_ = std::move(known);
}

// An attempt is remembered as long as its backup's document is there.
void BackupRoles::forget_ended_jobs(const BackupList& list) {
  if (!list.unreadable.empty()) return;
  std::set<std::string> known;
  for (const StoredBackup& stored : list.backups) known.insert(stored.head.uuid);
  context_.fence->forget_except(known);
}

std::shared_ptr<BackupRole> BackupRoles::take(std::string_view backup) {
  const MutexLock lock(mutex_);
  const auto found = roles_.find(backup);
  if (found == roles_.end()) return nullptr;
  std::shared_ptr<BackupRole> role = std::move(found->second);
  roles_.erase(found);
  return role;
}

std::shared_ptr<BackupRole> BackupRoles::find(std::string_view backup) {
  const MutexLock lock(mutex_);
  const auto found = roles_.find(backup);
  return found == roles_.end() ? nullptr : found->second;
}

// The coordinator tells this node its part. It may have too many to tell at once; where it does not
// answer, the stored plan tells.
absl::StatusOr<Plan> BackupRoles::plan_of(const BackupHead& head) const {
  v1::PlanRequest request;
  request.set_backup(head.uuid);
  request.set_attempt(head.attempt);
  request.set_node(context_.name);
  Deadline deadline(*context_.clock, kPlanMs);
  const auto peer = context_.peers->find(head.coordinator);
  for (bool again = peer.ok(); again;) {
    grpc::ClientContext call;
    set_timeout(call, std::max<int64_t>(deadline.left_ms(), 1));
    v1::PlanReply reply;
    const grpc::Status status = (*peer)->peer().FetchPlan(&call, request, &reply);
    (*peer)->note(status);
    if (status.ok()) {
      const std::vector<std::string> chunks(reply.chunks().begin(), reply.chunks().end());
      const std::string from =
          fmt::format("the plan of backup {} from {}", head.name, head.coordinator);
      auto plan = decode_plan(head.uuid, head.plan_attempt,
                              std::vector<std::string>(chunks.size(), from), chunks);
      if (plan.ok()) return plan;
      spdlog::warn("{}: {}", context_.name, message_of(plan.status()));
      break;
    }
    // Not all nodes at the same times.
    again = status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
            deadline.pause(50 + context_.number % 100);
  }
  return load_plan_of(*context_.block, head, context_.name);
}

void BackupRoles::follow(const StoredBackup& stored) {
  const BackupHead& head = stored.head;
  const auto old = find(head.uuid);
  if (old != nullptr && old->head().attempt >= head.attempt) return;
  if (without_part_ == std::pair(head.uuid, head.attempt)) return;
  auto plan = plan_of(head);
  if (!plan.ok()) {
    if (reported_.insert(fmt::format("{} {}", head.uuid, head.attempt)).second) {
      spdlog::error("{}: the plan of backup {} is left alone: {}", context_.name, head.name,
                    message_of(plan.status()));
    }
    return;
  }
  const auto pass = context_.fence->enter(head.uuid, head.attempt, kFenceWaitMs);
  if (!pass.ok()) {
    // The next poll sees whether a later attempt has begun, or what was at work has ended.
    spdlog::info("{}: backup {}, attempt {}: {}", context_.name, head.name, head.attempt,
                 message_of(pass.status()));
    return;
  }
  // Whoever takes it out of the map stops it.
  if (const auto taken = take(head.uuid); taken != nullptr) taken->stop();
  if (plan->find_node(context_.name) < 0) {
    without_part_ = {head.uuid, head.attempt};
    return;
  }
  spdlog::info("{}: backup {}, attempt {}", context_.name, head.name, head.attempt);
  auto role = std::make_shared<BackupRole>(context_, head, *std::move(plan));
  const MutexLock lock(mutex_);
  roles_[head.uuid] = std::move(role);
}

void BackupRoles::end_roles_except(const std::set<std::string>& running) {
  std::vector<std::shared_ptr<BackupRole>> ended;
  {
    const MutexLock lock(mutex_);
    for (const auto& [backup, role] : roles_) {
      if (!running.contains(backup)) ended.push_back(role);
    }
  }
  // They stay in the map until they have stopped: drop() waits for them, too.
  for (const auto& role : ended) role->stop();
  const MutexLock lock(mutex_);
  for (const auto& role : ended) {
    const auto found = roles_.find(role->head().uuid);
    if (found != roles_.end() && found->second == role) roles_.erase(found);
  }
}

// A cut is kept for a backup that runs, and for a failed one that may be resumed, until a later
// backup completes. A store that takes no writes keeps all of them.
void BackupRoles::drop_finished_cuts(const BackupList& list) {
  if (!context_.store->writable().ok()) return;
  for (const CutInfo& cut : context_.store->cuts()) {
    const auto stored =
        std::find_if(list.backups.begin(), list.backups.end(),
                     [&](const StoredBackup& s) { return s.head.uuid == cut.backup; });
    bool over = false;
    if (stored == list.backups.end()) {
      // Documents that cannot be read may be this backup's; a dry run has none, but holds the lock.
      if (!list.unreadable.empty()) continue;
      const auto lock = context_.block->get(kBackupLockKey);
      over = lock.ok() && (!lock->has_value() || !(*lock)->value.starts_with(cut.backup));
      // The list may be older than the cut.
      const auto head = context_.block->get(backup_head_key(cut.backup));
      over = over && head.ok() && !head->has_value();
    } else if (stored->head.state == BackupState::kFailed) {
      // By their cuts: clocks may have been set between the two.
      over = std::any_of(list.backups.begin(), list.backups.end(), [&](const StoredBackup& other) {
        return other.head.state == BackupState::kCompleted && other.head.cut > cut.cut;
      });
    } else {
      over = is_terminal(stored->head.state);
    }
    if (!over) continue;
    // Of an attempt that is over by now its successor decides.
    std::optional<JobFence::Pass> pass;
    if (stored != list.backups.end()) {
      auto entered = context_.fence->enter(cut.backup, stored->head.attempt, 0);
      if (!entered.ok()) continue;
      pass.emplace(*std::move(entered));
    }
    if (const absl::Status status = context_.store->drop_cut(cut.backup); !status.ok()) {
      spdlog::warn("{}: dropping the cut of {}: {}", context_.name, cut.backup, message_of(status));
    }
  }
}

absl::StatusOr<std::shared_ptr<BackupRole>> BackupRoles::role_of(std::string_view backup,
                                                                 uint64_t attempt) {
  auto role = find(backup);
  if (role != nullptr && role->head().attempt == attempt) return role;
  return unavailable("{} has not begun attempt {} of backup {}", context_.name, attempt, backup);
}

absl::StatusOr<BackupRoles::Part> BackupRoles::part(std::string_view backup, uint64_t attempt) {
  SLUICE_ASSIGN_OR_RETURN(const auto role, role_of(backup, attempt));
  return role->part();
}

absl::StatusOr<std::vector<uint32_t>> BackupRoles::durable(std::string_view backup,
                                                           uint64_t attempt) {
  SLUICE_ASSIGN_OR_RETURN(const auto role, role_of(backup, attempt));
  return role->durable();
}

absl::StatusOr<std::string> BackupRoles::commit(std::string_view backup, uint64_t attempt,
                                                std::string_view manifest) {
  SLUICE_ASSIGN_OR_RETURN(const Manifest decoded, Manifest::decode(manifest));
  if (decoded.identity.backup != backup) {
    return invalid_argument("a manifest of backup {} for backup {}", decoded.identity.backup,
                            backup);
  }
  const auto role = role_of(backup, attempt);
  if (role.ok()) {
    SLUICE_RETURN_IF_ERROR((*role)->commit(decoded));
    return archive_path(context_, (*role)->head());
  }
  // A repeat after this node's role ended, or restarted.
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(*context_.block, backup));
  std::string folder = archive_path(context_, stored.head);
  const auto there = read_file(folder + "/" + kManifestFile, kLargestManifest);
  if (!there.ok()) return role.status();
  if (*there == manifest) {
    SLUICE_RETURN_IF_ERROR(sync_folder(folder));  // as ArchiveWriter::commit() does
    return folder;
  }
  return already_exists("{}: another manifest of backup {} is stored", context_.name,
                        stored.head.name);
}

absl::Status BackupRoles::drop(std::string_view backup, uint64_t attempt) {
  std::shared_ptr<BackupRole> role;
  {
    const MutexLock lock(mutex_);
    const auto found = roles_.find(backup);
    if (found != roles_.end()) {
      // It waits for the fence's pass that the caller has.
      if (found->second->head().attempt > attempt) {
        return failed_precondition("backup {} is at attempt {} here; attempt {} is over", backup,
                                   found->second->head().attempt, attempt);
      }
      role = std::move(found->second);
      roles_.erase(found);
    }
  }
  if (role != nullptr) role->stop();
  role.reset();
  SLUICE_RETURN_IF_ERROR(context_.store->drop_cut(backup));
  const auto stored = load_backup(*context_.block, backup);
  if (!stored.ok() || stored->head.state == BackupState::kCompleted) return absl::OkStatus();
  return remove_left_part(stored->head);
}

}  // namespace sluice
