// A serving node's part in backups: source (sends copies from its cut) and target (consolidates
// into its archive), as the schedules in the cluster block say.
//
// It watches the schedules, with polling as a fallback, begins a role when a schedule is enabled,
// restarts it under a higher attempt, ends it when the schedule ends, and drops cuts whose backup
// is over. Of what its archive directory holds it removes its own unfinished parts of backups that
// ended without them, and its own finished part of a backup whose deletion has begun; nothing else.
// A schedule that cannot be read is logged and left alone. Thread-safe.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_ROLES_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_ROLES_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/backup/backup_store.h"
#include "control/peers/node_context.h"
#include "control/proto/common.pb.h"
#include "dataplane/archive/manifest.h"

namespace sluice {

class BackupRole;

class BackupRoles {
 public:
  static absl::StatusOr<std::unique_ptr<BackupRoles>> start(const NodeContext& context);
  ~BackupRoles();
  BackupRoles(const BackupRoles&) = delete;
  BackupRoles& operator=(const BackupRoles&) = delete;

  struct Part {
    PartManifest manifest;
    uint64_t newest_stamp = 0;
    std::string folder;
  };
  // All four of an attempt that the caller has a pass of the fence for. UNAVAILABLE while this node
  // has not begun that attempt yet.
  //
  // What this target made of the backup. FAILED_PRECONDITION before it is consolidated.
  absl::StatusOr<Part> part(std::string_view backup, uint64_t attempt);
  // Slots durable at this target. UNAVAILABLE until it has opened its part.
  absl::StatusOr<std::vector<uint32_t>> durable(std::string_view backup, uint64_t attempt);
  // Stores the root manifest in this target's part; the directory that it stands in. A repeat with
  // the same manifest is OK; ALREADY_EXISTS for another one than is stored.
  absl::StatusOr<std::string> commit(std::string_view backup, uint64_t attempt,
                                     std::string_view manifest);
  // Ends this node's part: stops its roles, drops its cut, removes what it stored of an archive
  // that was not finished. Idempotent.
  absl::Status drop(std::string_view backup, uint64_t attempt);
  // Removes this node's part of a backup whose deletion has begun, and strikes it off the backup's
  // document. OK where nothing of it is there (any more). FAILED_PRECONDITION for a backup that is
  // not being deleted, and while the part is being read; DATA_LOSS, and nothing removed, where
  // something else stands in its place.
  absl::Status delete_part(const v1::ArchiveReference& reference);

 private:
  explicit BackupRoles(const NodeContext& context) : context_(context) {}
  void run();
  void look();
  void follow(const StoredBackup& stored);
  void end_roles_except(const std::set<std::string>& running);
  void drop_finished_cuts(const BackupList& list);
  void forget_ended_jobs(const BackupList& list);
  void delete_parts(const BackupList& list);
  void remove_orphans();
  absl::Status remove_orphan(const OrphanedPart& orphan);
  absl::Status delete_part(const BackupHead& head);
  void remove_left_parts(const BackupList& list);
  absl::Status remove_left_part(const BackupHead& head);
  void remove_forgotten_parts(const BackupList& list);
  absl::StatusOr<bool> is_to_delete(const BackupHead& head) const;
  absl::StatusOr<Plan> plan_of(const BackupHead& head) const;
  std::shared_ptr<BackupRole> take(std::string_view backup);
  std::shared_ptr<BackupRole> find(std::string_view backup);
  // The role of this attempt. UNAVAILABLE without.
  absl::StatusOr<std::shared_ptr<BackupRole>> role_of(std::string_view backup, uint64_t attempt);

  const NodeContext& context_;
  Mutex mutex_;
  Condition wake_;
  bool changed_ SLUICE_GUARDED_BY(mutex_) = true;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  std::map<std::string, std::shared_ptr<BackupRole>, std::less<>> roles_
      SLUICE_GUARDED_BY(mutex_);  // by backup
  // Of the thread alone.
  int64_t orphans_ns_ = 0;                          // when they were listed last
  std::set<std::string> reported_;                  // unreadable schedules that were logged
  std::set<std::string> tidied_;                    // ended backups whose left parts are gone, by
                                                    // state
  std::optional<std::set<std::string>> swept_for_;  // backups there were when parts of others went
  std::pair<std::string, uint64_t> without_part_;   // backup and attempt that it has no part in
  WatchHandle watch_;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_ROLES_H_
