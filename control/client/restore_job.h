// One restore as its operator's process runs it: lock, documents, the parts (here, or on the nodes
// that hold them), and the proof at the end. Confined to one thread; runs further ones.
#ifndef SLUICE_CONTROL_CLIENT_RESTORE_JOB_H_
#define SLUICE_CONTROL_CLIENT_RESTORE_JOB_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/client/cluster_client_impl.h"
#include "control/client/lease_lock.h"
#include "control/client/restore_store.h"
#include "control/proto/sluice.pb.h"

namespace sluice {

class RestoreJob {
 public:
  // `url`: how nodes of other clusters reach this one's block.
  RestoreJob(ClusterClientImpl& client, std::string url, const RestoreRequest& request)
      : client_(client), url_(std::move(url)), request_(request) {}

  // `head` names the archive. Goes on with an interrupted restore of the same.
  absl::StatusOr<RestoreOutcome> run(RestoreHead head,
                                     const ClusterClient::RestoreCallback& progress);
  // Drives the retry list of an earlier one again.
  absl::StatusOr<RestoreOutcome> retry(const std::string& id,
                                       const ClusterClient::RestoreCallback& progress);

 private:
  using Digests = std::map<std::string, std::vector<SlotDigest>>;

  absl::Status check_destination();
  absl::StatusOr<Digests> read_digests();
  absl::Status begin(RestoreHead head);
  absl::Status run_parts(bool retry);
  absl::Status run_here(const std::vector<std::string>& folders, bool retry,
                        v1::RestorePartResult* result);
  absl::Status run_there(const RestoreSource& source, bool retry, v1::RestorePartResult* result);
  void report(const std::string& part, uint64_t bytes);
  void add(const v1::RestorePartResult& part);
  void prove(const Digests& digests);
  void judge_proof();
  absl::Status name_damage();
  absl::Status end(const absl::Status& status, bool retry, const LeaseLock& lock);

  ClusterClientImpl& client_;
  const std::string url_;
  const RestoreRequest request_;
  ClusterClient::RestoreCallback progress_;
  StoredRestore stored_;
  RestoreOutcome outcome_;
  std::map<std::string, RestoreNode> nodes_;
  std::map<uint32_t, SlotDigest> expected_;
  std::mutex mutex_;
  std::map<std::string, uint64_t> done_;
};

// The keys of units that failed, from whoever holds the archive.
absl::Status read_failed_keys(ClusterClientImpl& client, const RestoreHead& head,
                              const RestoreSource& source, const std::vector<RestoreUnit>& units,
                              const std::function<absl::Status(size_t, std::string_view)>& visit);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_RESTORE_JOB_H_
