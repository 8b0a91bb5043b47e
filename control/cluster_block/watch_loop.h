// The thread that runs a cluster block's watches. Internal to control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_WATCH_LOOP_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_WATCH_LOOP_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "control/cluster_block/cluster_block.h"

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

// Thread-safe. The source must live until stop() returned. Shared with the handles, which may
// outlive the block.
class WatchLoop : public std::enable_shared_from_this<WatchLoop> {
 public:
  WatchLoop(WatchSource* source, int poll_ms) : source_(source), poll_ms_(poll_ms) {}
  ~WatchLoop() { stop(); }

  WatchHandle add(std::string prefix, Revision after, ClusterBlock::WatchCallback callback);
  // No callback runs afterwards. Not from a callback.
  void stop();

 private:
  struct Watcher {
    std::string prefix;
    ClusterBlock::WatchCallback callback;
    Revision position = 0;
    Revision complete_from = 0;  // forgotten erasures up to here do not concern this watcher
    bool fresh = true;           // nothing was fetched yet
    std::atomic<bool> ended{false};
  };
  void run();
  void remove(const std::shared_ptr<Watcher>& watcher);
  // True when there is more to deliver at once, or it failed and has to be tried again.
  bool pump(const std::shared_ptr<Watcher>& watcher);
  void deliver(const std::shared_ptr<Watcher>& watcher, const WatchEvent& event);

  WatchSource* const source_;
  const int poll_ms_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<std::shared_ptr<Watcher>> watchers_;
  const Watcher* running_ = nullptr;  // whose callback runs
  bool added_ = false;                // a watcher that was not looked at yet
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_WATCH_LOOP_H_
