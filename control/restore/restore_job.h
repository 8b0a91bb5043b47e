// One restore as its operator's process drives it: a job (control/job/job.h) whose work are the
// parts, here or on the nodes that hold them, and the proof at the end. Confined to one thread;
// runs further ones.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_JOB_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_JOB_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/job/job.h"
#include "control/peers/cluster_connection.h"
#include "control/restore/restore_listing.h"
#include "control/restore/restore_parts.h"
#include "control/restore/restore_position.h"
#include "control/restore/restore_proof.h"
#include "control/restore/restore_store.h"
#include "control/restore/results.h"

namespace sluice {

class RestoreJob {
 public:
  RestoreJob(ClusterConnection& cluster, const RestoreRequest& request,
             const RestoreCallback& progress)
      : cluster_(cluster),
        request_(request),
        progress_(progress),
        parts_(cluster, {request.arena_bytes, [this](const RestoreProgress& each) { report(each); },
                         [this](const RestoreProgress& each) { keep_position(each); }}) {}

  // `head` names the archive, and says what to do with it. Resumes an interrupted restore of the
  // same; but one that undoes takes a new moment, so that what was written since is undone as well.
  absl::StatusOr<RestoreOutcome> run(RestoreHead head);
  // Continues an interrupted restore as it was begun.
  absl::StatusOr<RestoreOutcome> resume(const RestoreHead& head);
  // Drives the retry list of an earlier one again.
  absl::StatusOr<RestoreOutcome> retry(const std::string& id);

 private:
  absl::Status check_destination();
  absl::StatusOr<bool> is_empty();
  absl::StatusOr<std::unique_ptr<Job>> take(const std::string& id, const std::string& name);
  absl::Status load();
  absl::Status store(RestoreHead head);
  absl::StatusOr<RestoreOutcome> drive(const RestoreHead& head, bool at_its_moment);
  absl::Status begin(const RestoreHead& wanted, bool at_its_moment);
  absl::Status foresee(const RestoreHead& head);
  absl::Status check_matches() const;
  absl::Status delete_extra_keys();
  absl::Status stop_status();
  absl::StatusOr<RestoreOutcome> overtaken(const absl::Status& status);
  void report(RestoreProgress progress);
  void keep_position(const RestoreProgress& progress);
  void report_stage(std::string_view stage);
  absl::Status run_parts(bool retry);
  void add(const v1::RestorePartResult& part);
  absl::Status prove(bool retry);
  absl::Status find_lacking(DigestComparison& comparison, const std::set<SlotCopy>& suspect);
  absl::Status judge(const DigestComparison& comparison);
  absl::Status forget(const std::set<SlotCopy>& copies);
  absl::Status end(const absl::Status& status, bool retry);
  void tell_extra();
  void tell_failures(const FailedCounts& counts);

  ClusterConnection& cluster_;
  const RestoreRequest request_;
  const RestoreCallback progress_;
  RestoreParts parts_;
  std::unique_ptr<Job> job_;  // null in a dry run
  StoredRestore stored_;
  RestoreOutcome outcome_;
  uint64_t live_here_ = 0;  // of a dry run
  Mutex position_mutex_;
  // While an attempt is driven.
  std::unique_ptr<PositionKeeper> position_ SLUICE_GUARDED_BY(position_mutex_);
  RestoreProgress last_progress_ SLUICE_GUARDED_BY(position_mutex_);
  uint32_t archive_bits_ = 0;
  std::vector<RestoreList> lists_;  // of this attempt
  std::map<std::string, RestoreNode> nodes_;
  std::vector<StageReport> part_stages_;
  std::map<uint32_t, SlotDigest> expected_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_JOB_H_
