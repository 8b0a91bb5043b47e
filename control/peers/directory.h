// Who is in the cluster, and which table holds: kept up to date by watching the cluster block.
//
// Thread-safe. The block must outlive it. What a snapshot says may be old by the time it is used:
// table epochs and failing calls tell, upon which refresh() reads the block itself.
#ifndef SLUICE_CONTROL_PEERS_DIRECTORY_H_
#define SLUICE_CONTROL_PEERS_DIRECTORY_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/cluster_block/cluster_block.h"
#include "control/membership/documents.h"
#include "control/membership/membership.h"
#include "control/table/table.h"

namespace sluice {

class Directory {
 public:
  struct Snapshot {
    std::vector<Member> members;                     // by number
    std::shared_ptr<const DistributionTable> table;  // null before there is one
    uint64_t epoch() const { return table == nullptr ? 0 : table->epoch(); }
    // Null for an unknown name.
    const Member* find(std::string_view name) const;
    bool live(std::string_view name) const;
    std::vector<std::string> live_names() const;
  };

  // NOT_FOUND when the block describes no cluster.
  static absl::StatusOr<std::unique_ptr<Directory>> open(ClusterBlock& block);
  ~Directory();

  const ClusterInfo& cluster() const { return info_; }
  ClusterBlock& block() { return block_; }
  std::shared_ptr<const Snapshot> snapshot() const;
  // Reads the block now.
  absl::Status refresh();
  // Waits until `done` says so of a snapshot, or the time is over; the last snapshot either way.
  // Wakes up at changes.
  std::shared_ptr<const Snapshot> wait(int64_t timeout_ms,
                                       const std::function<bool(const Snapshot&)>& done);

 private:
  Directory(ClusterBlock& block, ClusterInfo info);
  // On the block's thread of watches. A read that failed is repeated: nobody tells of a change
  // twice.
  void follow();

  ClusterBlock& block_;
  const ClusterInfo info_;
  Mutex refreshing_;
  mutable Mutex mutex_;
  Condition changed_;
  std::shared_ptr<const Snapshot> snapshot_ SLUICE_GUARDED_BY(mutex_);
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  std::unique_ptr<MemberWatch> members_;
  WatchHandle table_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_DIRECTORY_H_
