// The coordinator of one backup: a state machine over the schedule's head, which can be begun in
// any state that is stored there, so that a resumed backup, or another node after a coordinator's
// death, goes on.
//
// It ends in one of: completed; failed, with the reason in the head (it may be resumed); cancelled;
// or abandoned, which leaves the documents as they are for another coordinator (this node stops, or
// lost the lock). Thread-safe. Runs one thread.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_RUN_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_RUN_H_

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "control/backup/backup_details.h"
#include "control/backup/backup_job.h"
#include "control/backup/backup_store.h"
#include "control/backup/progress_table.h"
#include "control/job/job.h"
#include "control/peers/node_context.h"
#include "control/schedule/plan_parts.h"
#include "control/schedule/rebalance_policy.h"
#include "dataplane/archive/manifest.h"

namespace sluice {

struct BackupRunOptions {
  int64_t grace_ms = 6'000;    // a node that is down for longer is planned without
  int64_t stall_ms = 120'000;  // without any progress of any node: failed
  BackupPatience patience() const { return {stall_ms, stall_ms}; }
  int max_replans = 8;
  int64_t cut_margin_ms = 50;  // of the cut's stamp beyond the largest clock
  RebalanceOptions rebalance;  // when nodes turn out to be slower than planned
};

// Reports of nodes that one commit stores: with a head, its lock and chunks of a plan it has at
// most ClusterBlock::kMaxOps parts.
inline constexpr size_t kReportsInCommit = 64;

class BackupRun {
 public:
  enum class Kind {
    kNew,
    kResumed,  // or taken over: an earlier coordinator may have left cuts and archive parts
    kDryRun,   // leaves no document behind
  };
  // `head` is in the cluster block already, and the job has adopted it, unless it is a dry run.
  // targets, sources: of a new one. No target: all nodes.
  BackupRun(const NodeContext& context, BackupHead head, std::vector<std::string> targets,
            BackupSources sources, std::unique_ptr<Job> job, Kind kind,
            const BackupRunOptions& options);
  // Abandons what still runs.
  ~BackupRun();
  void start();

  struct Report {
    BackupHead head;
    BackupDetails details;  // once finished
    uint64_t bytes_done = 0;
    uint64_t bytes_total = 0;
    std::string message;
    bool finished = false;
    absl::Status status;  // once finished: why it is not completed
    uint64_t version = 0;
  };
  // Waits for a report later than `version`, at most timeout_ms; the newest one either way.
  Report wait(uint64_t version, int64_t timeout_ms);
  void cancel() { job_->cancel(); }
  void abandon() { job_->abandon(); }
  const std::string& uuid() const { return uuid_; }
  // What an attempt has planned for one node: a stored plan's documents. UNAVAILABLE unless this is
  // the attempt that is coordinated here.
  absl::StatusOr<std::vector<std::string>> plan_of(uint64_t attempt, std::string_view node);
  // What a node reports. False once the run has finished.
  bool report(const NodeProgress& progress, const ProgressTable::Order& order);

 private:
  void run();
  // What its followers are told.
  absl::Status conclude(const absl::Status& status);
  absl::Status drive();
  bool stopped() const { return job_->is_stopped(); }
  double now_s() const { return static_cast<double>(context_.clock->monotonic_ns()) / 1e9; }
  void publish(std::string message);
  // As Job's, with the nodes' reports in the same commit.
  absl::Status store(const BackupHead& head, std::string message, std::vector<ClusterOp> with = {});
  absl::Status store_last(const BackupHead& head, std::string message, std::vector<ClusterOp> with);
  absl::Status store_head(BackupHead head, std::string message, std::vector<ClusterOp> with,
                          bool last);

  // Planning.
  absl::Status plan_backup();
  absl::StatusOr<std::vector<std::string>> live_targets();
  // None is used twice, also where its head was not stored.
  uint64_t next_attempt() {
    highest_attempt_ = std::max(highest_attempt_, head_.attempt) + 1;
    return highest_attempt_;
  }
  void offer_plan(uint64_t attempt, uint64_t plan_attempt);
  absl::Status make_backup_plan(BackupHead* head);
  // As stored before the head that names the plan.
  absl::Status store_trees();
  std::vector<PlanTarget> plan_targets(const Plan& plan,
                                       const std::set<std::string>& without) const;
  void take_totals(BackupHead* head) const;
  absl::Status resume_plan();
  absl::Status replan_without(const std::set<std::string>& dead, std::string message);
  absl::Status follow_replan(Plan plan, std::vector<uint8_t> done, std::string message);
  std::vector<std::string> plan_sources() const;
  // Targets of the plan that are down.
  std::set<std::string> dead_targets() const;
  std::vector<uint32_t> plan_nodes(const std::set<std::string>& names) const;
  PlanProgress plan_progress(const std::vector<uint8_t>& done) const;
  struct DurableSlots {
    std::vector<uint8_t> done;  // by plan slot: whether its target says that it has it durably
    bool all_have_said = true;  // of the targets but `without`
  };
  // Each target that lives is asked for up to patience_ms.
  DurableSlots durable_slots(int64_t patience_ms, const std::set<std::string>& without = {}) const;

  // Following.
  absl::Status follow();
  absl::StatusOr<std::vector<WatchHandle>> watch_documents();
  absl::Status look(Progresses* progress);
  absl::Status load_documents();
  void note_movement(const Progresses& progress);
  absl::Status save_progress();
  absl::Status advance(const Progresses& progress);
  absl::Status handle_errors(const Progresses& progress);
  absl::Status handle_deaths(const Progresses& progress);
  absl::Status handle_slow_nodes(const Progresses& progress);
  double done_share(const Progresses& progress) const;
  bool sends(uint32_t node) const;
  std::set<std::string> still_needed(const std::set<std::string>& gone);
  BackupState reached(const Progresses& progress) const;

  // Finishing.
  absl::Status finish();
  // Calls all targets at once, each again until it succeeds, the grace is over, or the run stops.
  // `once` is told which of the plan's targets it calls, on several threads.
  std::vector<absl::Status> call_targets(
      const std::function<grpc::Status(size_t, PeerNode&, grpc::ClientContext&)>& once);
  absl::StatusOr<Manifest> collect_parts();
  absl::Status commit_everywhere(const Manifest& manifest);
  absl::Status wait_for_wall_clocks();
  void add_progress_totals(BackupTotals* totals);

  const NodeContext& context_;
  const BackupRunOptions options_;
  const bool dry_run_;
  const bool resumed_;
  const std::string uuid_;
  const uint64_t elapsed_before_ms_;  // of earlier coordinators
  const int64_t begun_ns_;
  const std::unique_ptr<Job> job_;
  ProgressTable table_;

  // Of the run's thread alone.
  BackupHead head_;
  uint64_t highest_attempt_ = 0;
  std::vector<std::string> targets_;  // that were asked for; of a resumed one, once it is planned
  BackupSources sources_;             // the same
  BackupTrees trees_;                 // of the plan
  Plan plan_;
  std::vector<ArchivePart> archives_;  // that were made
  std::vector<StageReport> stages_;    // of all nodes, in the end
  int replans_ = 0;
  RebalancePolicy rebalances_;
  std::vector<uint8_t> done_before_;  // by plan slot, when nodes began to follow the plan
  std::map<std::string, int64_t> down_since_ns_;
  std::map<std::string, int64_t> spared_until_ns_;  // sources that are gone, and were not needed
  bool loaded_ = false;
  int64_t saved_ns_ = 0;
  std::vector<uint64_t> last_seen_;
  int64_t last_change_ns_ = 0;
  uint64_t bytes_done_ = 0;
  int64_t cut_due_ns_ = 0;  // when wall clocks have passed the cut

  Mutex mutex_;
  Condition changed_;
  Report report_ SLUICE_GUARDED_BY(mutex_);
  // What nodes are told of their parts in it.
  std::shared_ptr<const PlanParts> parts_ SLUICE_GUARDED_BY(mutex_);
  uint64_t parts_attempt_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t parts_plan_attempt_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_RUN_H_
