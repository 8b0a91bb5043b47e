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
#include "control/restore/restore_proof.h"
#include "control/restore/restore_store.h"
#include "control/restore/results.h"

namespace sluice {

class RestoreJob {
 public:
  RestoreJob(ClusterConnection& cluster, const RestoreRequest& request,
             const RestoreCallback& progress)
      : cluster_(cluster), request_(request), parts_(cluster, {request.arena_bytes, progress}) {}

  // `head` names the archive. Resumes an interrupted restore of the same.
  absl::StatusOr<RestoreOutcome> run(RestoreHead head);
  // Drives the retry list of an earlier one again.
  absl::StatusOr<RestoreOutcome> retry(const std::string& id);

 private:
  absl::Status check_destination();
  absl::StatusOr<bool> is_empty();
  absl::StatusOr<std::unique_ptr<Job>> take(const std::string& id, const std::string& name);
  absl::Status load();
  absl::Status store(RestoreHead head);
  absl::Status begin(const RestoreHead& wanted);
  absl::Status run_parts(bool retry);
  void add(const v1::RestorePartResult& part);
  absl::Status prove();
  absl::Status find_lacking(DigestComparison& comparison, const std::set<SlotCopy>& suspect);
  absl::Status judge(const DigestComparison& comparison);
  absl::Status forget(const std::set<SlotCopy>& copies);
  absl::Status end(const absl::Status& status, bool retry);
  void tell_failures(const FailedCounts& counts);

  ClusterConnection& cluster_;
  const RestoreRequest request_;
  RestoreParts parts_;
  std::unique_ptr<Job> job_;  // null in a dry run
  StoredRestore stored_;
  RestoreOutcome outcome_;
  uint32_t archive_bits_ = 0;
  std::vector<RestoreList> lists_;  // of this attempt
  std::map<std::string, RestoreNode> nodes_;
  std::vector<StageReport> part_stages_;
  std::map<uint32_t, SlotDigest> expected_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_JOB_H_
