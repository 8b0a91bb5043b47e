// Commits to etcd, each executed once whatever answers are lost. Internal to
// control/cluster_block.
//
// etcd has no request numbers: a transaction whose answer is lost was executed, or not, or will be
// soon. So each transaction also writes a mark, a small key of this client that no other commit
// uses at the same time, and compares the mark's revision with the one it had before. Sent again,
// it can succeed only if it was not executed before; and when it fails, the mark's new revision
// tells that it was, and when. A mark serves one commit after the other. Marks vanish with a lease
// that is not renewed: the first commit after half of its time takes a new one.
//
// Commits that change nothing are reads and need no mark. Where etcd has no space for a mark, a
// commit that only erases is tried once without: that may be how space is made.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_COMMITS_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_COMMITS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/etcd_client.h"
#include "control/cluster_block/etcd_keys.h"

namespace sluice::cluster_block {

// Thread-safe. The client and the keys outlive it.
class EtcdCommits {
 public:
  EtcdCommits(EtcdClient& client, const EtcdKeys& keys) : client_(client), keys_(keys) {}
  // As ClusterBlock::commit(), of operations that were checked.
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops);

 private:
  struct Mark {
    LeaseId lease = 0;
    int64_t granted_ms = 0;  // of the lease, at the earliest
    std::string key;
    Revision revision = 0;
  };
  absl::StatusOr<Mark> take_mark();
  void give_back(Mark mark);
  void forget_lease(LeaseId lease);

  // nullopt: the mark is gone, and nothing was changed; it may be tried with another one.
  absl::StatusOr<std::optional<Revision>> commit_marked(const std::vector<ClusterOp>& ops,
                                                        Mark mark);
  absl::StatusOr<Revision> commit_unmarked(const std::vector<ClusterOp>& ops, bool repeats);
  // The mark's revision now; 0: it is not there.
  absl::StatusOr<Revision> revision_of_mark(const std::string& key);
  // `sent`: how often, but for those that etcd refused as overloaded or full.
  absl::StatusOr<etcdserverpb::TxnResponse> send(const etcdserverpb::TxnRequest& request,
                                                 bool repeats, int* sent);
  // The ABORTED of the first comparison that failed, by the answers from `first` on.
  absl::Status mismatch(const std::vector<ClusterOp>& ops,
                        const etcdserverpb::TxnResponse& response, int first) const;
  // FAILED_PRECONDITION, naming it, when a put's lease has ended.
  absl::Status check_leases(const std::vector<ClusterOp>& ops);
  absl::Status why_invalid(const absl::Status& refused, const std::vector<ClusterOp>& ops);
  etcdserverpb::TxnRequest request_of(const std::vector<ClusterOp>& ops, const Mark* mark) const;

  EtcdClient& client_;
  const EtcdKeys& keys_;
  Mutex mutex_;
  // Of the marks that are handed out now. 0: none yet.
  LeaseId lease_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t granted_ms_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t next_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::vector<Mark> free_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_COMMITS_H_
