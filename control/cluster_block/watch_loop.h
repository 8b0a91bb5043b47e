// Watches of a cluster block that is asked what changed. Internal to control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_WATCH_LOOP_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_WATCH_LOOP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/watchers.h"

namespace sluice::cluster_block {

// What changed after some revision, ascending by revision.
struct WatchBatch {
  std::vector<WatchEvent> events;
  Revision upto = 0;   // all changes up to here are in the batch; not below the asked revision
  Revision head = 0;   // the block's newest revision
  Revision floor = 0;  // erasures up to here are forgotten
};

// A batch ends, at the end of a revision, once its values have this many bytes or it has this many
// events.
inline constexpr size_t kBatchBytes = size_t{4} << 20;
inline constexpr size_t kBatchEvents = 1024;

class WatchSource {
 public:
  virtual ~WatchSource() = default;
  // On the loop's thread. Returns when something may have changed since it returned last, after
  // wake(), and after timeout_ms: what nobody announces (a lease that ends by itself) is looked for
  // then.
  virtual void wait(int64_t timeout_ms) = 0;
  // Ends the wait that goes on, or the next one. From any thread.
  virtual void wake() = 0;
  // On the loop's thread, after each wait: true when something may have changed since the last call
  // that returned true.
  virtual bool poll() = 0;
  virtual absl::StatusOr<WatchBatch> changes(const std::string& prefix, Revision after) = 0;
};

// Polls a source, and reports what it has. Thread-safe. The source must live until stop() returned.
class WatchLoop {
 public:
  WatchLoop(WatchSource* source, int poll_ms);
  ~WatchLoop() { stop(); }

  WatchHandle add(std::string prefix, Revision after, ClusterBlock::WatchCallback callback) {
    return watchers_->add(std::move(prefix), after, std::move(callback));
  }
  // No callback runs afterwards. Not from a callback.
  void stop() { watchers_->stop(); }

 private:
  void run();
  // True when there is more to deliver at once, or it failed and has to be tried again.
  bool pump(const std::shared_ptr<Watcher>& watcher);

  WatchSource* const source_;
  const int poll_ms_;
  const std::shared_ptr<Watchers> watchers_;
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_WATCH_LOOP_H_
