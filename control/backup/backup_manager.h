// The backups that this node coordinates: begins them, resumes them, and takes over those whose
// coordinator died. Thread-safe.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_MANAGER_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_MANAGER_H_

#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/backup/backup_run.h"
#include "control/peers/node_context.h"
#include "control/proto/peer.pb.h"

namespace sluice {

struct BackupRequest {
  std::string name;                  // empty: made from the date
  std::vector<std::string> targets;  // empty: all live nodes
  BackupSources sources;
  bool dry_run = false;
};

class BackupManager {
 public:
  static absl::StatusOr<std::unique_ptr<BackupManager>> start(const NodeContext& context,
                                                              const BackupRunOptions& options = {});
  ~BackupManager();
  // Abandons its runs: other nodes take them over. Begins no more. Idempotent.
  void stop();
  BackupManager(const BackupManager&) = delete;
  BackupManager& operator=(const BackupManager&) = delete;

  // ALREADY_EXISTS for a name in use and while another backup runs (naming it); NOT_FOUND naming a
  // target that is no member.
  absl::StatusOr<std::shared_ptr<BackupRun>> create(const BackupRequest& request);
  // Goes on with a failed or orphaned backup. FAILED_PRECONDITION when it is completed or
  // cancelled; ALREADY_EXISTS while it runs.
  absl::StatusOr<std::shared_ptr<BackupRun>> resume(std::string_view backup);
  // What a node reports of its part in a backup that this node coordinates, or did until a moment
  // ago. Under a pass of the fence.
  absl::Status report(const v1::ProgressRequest& request);
  // What the plan of a backup that this node coordinates says of one node. UNAVAILABLE of others.
  absl::StatusOr<std::vector<std::string>> plan_of(const v1::PlanRequest& request);
  // Ends a backup that runs, here or elsewhere, or a failed one, for good. FAILED_PRECONDITION when
  // it is completed.
  absl::Status cancel(std::string_view backup);

 private:
  BackupManager(const NodeContext& context, const BackupRunOptions& options)
      : context_(context), options_(options) {}
  std::shared_ptr<BackupRun> find(std::string_view uuid);
  std::shared_ptr<BackupRun> begin(BackupHead head, std::vector<std::string> targets,
                                   BackupSources sources, std::unique_ptr<Job> job,
                                   BackupRun::Kind kind);
  void run();
  void take_over_orphans();

  const NodeContext& context_;
  const BackupRunOptions options_;
  Mutex mutex_;
  Condition wake_;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<BackupRun>> runs_ SLUICE_GUARDED_BY(mutex_);
  bool lock_was_free_ = false;  // of the thread alone
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_MANAGER_H_
