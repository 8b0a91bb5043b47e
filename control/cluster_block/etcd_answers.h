// Whether what etcd answered is an answer to what it was asked. Internal to control/cluster_block.
//
// Everything that the cluster decides hangs on these answers, and what answers at an endpoint may
// be a proxy, a store that only speaks etcd's API, or a broken etcd. An answer that cannot be one
// is an error where it comes in: DATA_LOSS that says what is wrong, in one printable line without
// the endpoint's name. Pure.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_ANSWERS_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_ANSWERS_H_

#include "absl/status/status.h"
#include "control/proto/etcd.pb.h"

namespace sluice::cluster_block {

// Ascending keys of what was asked for, not more of them than asked for, and further ones (`more`)
// only behind those; values that the block may hold; revisions of the past.
absl::Status check_answer(const etcdserverpb::RangeRequest& request,
                          const etcdserverpb::RangeResponse& response);

// An answer to each operation of the branch that was taken, and each of them an answer to its
// operation.
absl::Status check_answer(const etcdserverpb::TxnRequest& request,
                          const etcdserverpb::TxnResponse& response);

// 0 is no lease: what is put with it stays for ever.
absl::Status check_answer(const etcdserverpb::LeaseGrantResponse& response);

// Of a watch that exists: revisions that ascend, and values that the block may hold. Whose keys
// they are is the watch's to compare.
absl::Status check_answer(const etcdserverpb::WatchResponse& response);

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_ANSWERS_H_
