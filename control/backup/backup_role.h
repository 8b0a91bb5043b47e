// What one node does for one attempt of one backup: as a source, as a target, or both, in threads
// of its own.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_ROLE_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_ROLE_H_

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/stage.h"
#include "control/backup/backup_roles.h"
#include "control/backup/backup_store.h"
#include "control/backup/backup_trees.h"
#include "control/backup/progress_report.h"
#include "control/peers/node_context.h"
#include "dataplane/archive/writer.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/pipeline/consolidation.h"
#include "dataplane/pipeline/merge_source.h"
#include "dataplane/pipeline/send_to_targets.h"
#include "dataplane/source/source_set.h"
#include "dataplane/tree_source/tree_source.h"

namespace sluice {

// The folder of a backup's archive on this node.
std::string archive_path(const NodeContext& context, const BackupHead& head);
ArchiveIdentity archive_identity(const NodeContext& context, const BackupHead& head);

// Thread-safe.
class BackupRole {
 public:
  BackupRole(const NodeContext& context, BackupHead head, Plan plan);
  // Stops it; what is durable stays.
  ~BackupRole();

  const BackupHead& head() const { return head_; }
  // When it returns, nothing of it reads the cut or writes the archive any more. Idempotent.
  void stop();
  absl::StatusOr<BackupRoles::Part> part();
  absl::StatusOr<std::vector<uint32_t>> durable();
  absl::Status commit(const Manifest& manifest);

 private:
  // Source.
  void run_source();
  absl::Status send_all();
  // What this node sends of: its cut, and trees by their numbers.
  absl::StatusOr<std::shared_ptr<SourceSet>> open_sources(const std::shared_ptr<CutReader>& cut);
  bool sends_records() const;
  void report_trees();
  std::vector<TargetCopies> copies_by_target() const;
  absl::Status start_merge_source(const std::shared_ptr<CutReader>& cut);
  absl::Status wait_merged();
  bool merges_from_here(const SlotPlan& slot) const;
  // Target.
  void run_target();
  absl::Status consolidate();
  absl::StatusOr<std::unique_ptr<ArchiveWriter>> open_part(const ArchiveWriter::Options& options);
  absl::StatusOr<std::vector<ConsolidationSlot>> target_slots();
  absl::Status add_divergent_digests(std::vector<ConsolidationSlot>& slots);
  void report_target(const Consolidation::Progress& progress);
  std::vector<StageReport> stages() const;

  const NodeContext& context_;
  const BackupHead head_;
  const Plan plan_;
  const int self_;  // in plan_.nodes
  const bool is_target_;
  Cancellation cancellation_;
  Stage scan_;
  Stage check_;
  Stage merge_;
  Stage disk_;
  const StageTimes wire_before_;
  ProgressReport report_;
  Mutex stop_mutex_ SLUICE_ACQUIRED_BEFORE(mutex_);  // one stop at a time
  Mutex mutex_;
  std::unique_ptr<ArchiveWriter> writer_ SLUICE_GUARDED_BY(mutex_);
  std::unique_ptr<Consolidation> consolidation_
      SLUICE_GUARDED_BY(mutex_);  // once it is finished: it answers late sources
  std::optional<PartManifest> part_ SLUICE_GUARDED_BY(mutex_);
  std::set<uint32_t> durable_ SLUICE_GUARDED_BY(mutex_);
  struct SentTree {
    v1::BackupTree tree;
    std::shared_ptr<TreeSource> source;
    std::atomic<uint64_t> sent_bytes{0};
  };
  std::map<uint32_t, SentTree> trees_;         // by number; of the source's thread, its keys fixed
  std::unique_ptr<MergeSource> merge_source_;  // of the source's thread, and then of stop()
  std::thread source_;
  std::thread target_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_ROLE_H_
