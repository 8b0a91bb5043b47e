// A cluster block in etcd 3.4 or later, for nodes on any number of machines.
//
// Durable, and linearizable, as etcd is: what commit() returned OK for a majority of its members
// has on disk; get() and list() see what was committed before they began. Revisions are etcd's, so
// other programs' changes take some. All keys are below PREFIX/ (docs/formats.md); nothing else in
// etcd is read or written.
//
// Each call asks one endpoint after the other for 10 s at most (keep_alive(): 3 s), and is
// UNAVAILABLE then; so it is where etcd is overloaded for so long. RESOURCE_EXHAUSTED: its
// space is used up. All endpoints are members of one etcd cluster: those that answer are compared
// when the block is opened, and each before it is used; FAILED_PRECONDITION, naming both, where
// they differ. A commit is made once, whatever answers are lost meanwhile; only after UNAVAILABLE
// it is not known whether it was. Leases run in etcd: a lease's time is rounded up to
// whole seconds and to etcd's shortest, 2 s unless its election timeout was changed; etcd notices
// its end within another second, and after a change of its leader every lease runs its whole time
// again.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLUSTER_BLOCK_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLUSTER_BLOCK_H_

#include <memory>
#include <string>
#include <vector>

#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/etcd_access.h"

namespace sluice {

struct EtcdClusterBlockOptions {
  std::vector<std::string> endpoints;  // HOST:PORT each, all of one etcd cluster
  std::string prefix;                  // without a slash at its end
  cluster_block::EtcdAccess access;
  int64_t call_ms = 10'000;  // of each call, at most
};

// UNAVAILABLE, naming the endpoints, where none answers; PERMISSION_DENIED, with what to set, where
// etcd does not serve this user; FAILED_PRECONDITION for what is not etcd's API, and for endpoints
// of two etcd clusters.
absl::StatusOr<std::unique_ptr<ClusterBlock>> open_etcd_cluster_block(
    const EtcdClusterBlockOptions& options);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_CLUSTER_BLOCK_H_
