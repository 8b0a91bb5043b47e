// Calls to etcd of one request and one answer. Internal to control/cluster_block.
//
// DATA_LOSS, naming etcd, for an answer that cannot be one (etcd_answers.h).
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CALLS_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CALLS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/etcd_client.h"

namespace sluice::cluster_block {

// Rounded up to whole seconds, and by etcd to its shortest. One whose answer is lost ends by
// itself.
absl::StatusOr<LeaseId> grant_lease(EtcdClient& client, int64_t ttl_ms);
// NOT_FOUND when it has ended. Where its time is over, etcd answers once it has erased the keys.
absl::Status renew_lease(EtcdClient& client, LeaseId lease);
absl::Status revoke_lease(EtcdClient& client, LeaseId lease);
absl::StatusOr<bool> has_lease(EtcdClient& client, LeaseId lease);

absl::StatusOr<etcdserverpb::RangeResponse> get_range(EtcdClient& client,
                                                      const etcdserverpb::RangeRequest& request);
// Of all of etcd, by a majority of its members. The key, which need not be there, is one that the
// user may read.
absl::StatusOr<Revision> newest_revision(EtcdClient& client, const std::string& key);

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CALLS_H_
