// Watches of a cluster block in etcd. Internal to control/cluster_block.
//
// All watches of a block are on one stream, and one thread creates them, takes what etcd reports,
// and calls back. A stream that breaks is opened again at the next endpoint, and each watch resumes
// behind what it reported last. What etcd has compacted by then cannot be resumed: kResync. A watch
// from revision 0 begins with a listing.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_WATCHES_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_WATCHES_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/etcd_client.h"
#include "control/cluster_block/etcd_keys.h"
#include "control/cluster_block/etcd_stream.h"
#include "control/cluster_block/watchers.h"

namespace sluice::cluster_block {

// Thread-safe. The client and the keys outlive it.
class EtcdWatches {
 public:
  using List = std::function<absl::StatusOr<ClusterListing>(const std::string& prefix)>;
  EtcdWatches(EtcdClient& client, const EtcdKeys& keys, List list);
  ~EtcdWatches() { stop(); }

  WatchHandle add(std::string prefix, Revision after, ClusterBlock::WatchCallback callback) {
    return watchers_->add(std::move(prefix), after, std::move(callback));
  }
  // No callback runs afterwards. Not from a callback. After the client is closed, so that it waits
  // for no call.
  void stop() { watchers_->stop(); }

 private:
  using WatcherPtr = std::shared_ptr<Watcher>;
  void run();
  // Until the stream breaks. True when etcd answered on it.
  bool serve();
  void serve_on(EtcdStream& stream, size_t endpoint, bool* answered);
  void wake();
  void set_stream(EtcdStream* stream);

  // Once, until it works again.
  void warn(std::string_view what, const absl::Status& status);
  // False when a watcher could not be given a watch yet.
  bool create_watches(EtcdStream& stream);
  absl::Status create_watch(EtcdStream& stream, const WatcherPtr& watcher);
  void cancel_watch(EtcdStream& stream, int64_t id);
  // These are false when the stream must be opened anew.
  bool handle(EtcdStream& stream, const etcdserverpb::WatchResponse& response);
  bool handle_cancelled(int64_t id, const WatcherPtr& watcher, bool compacted);
  bool check_position(EtcdStream& stream, int64_t id, const WatcherPtr& watcher);
  bool resync(int64_t id, const WatcherPtr& watcher);
  void report(const WatcherPtr& watcher, const etcdserverpb::WatchResponse& response);

  EtcdClient& client_;
  const EtcdKeys& keys_;
  const List list_;
  Mutex mutex_;
  EtcdStream* stream_ SLUICE_GUARDED_BY(mutex_) = nullptr;  // that the thread waits on, if any
  // Of the thread: etcd's numbers of the watches on this stream. Each is used once.
  std::map<int64_t, WatcherPtr> watches_;
  int64_t last_id_ = 0;
  bool is_unwell_ = false;  // and that was logged
  const std::shared_ptr<Watchers> watchers_;
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_WATCHES_H_
