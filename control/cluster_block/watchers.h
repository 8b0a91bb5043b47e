// Who watches a cluster block, and the one thread that serves them. Internal to
// control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_WATCHERS_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_WATCHERS_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice::cluster_block {

// What is not const or atomic belongs to the thread.
struct Watcher {
  Watcher(std::string watched, Revision after, ClusterBlock::WatchCallback told)
      : prefix(std::move(watched)), callback(std::move(told)), position(after) {}
  const std::string prefix;
  const ClusterBlock::WatchCallback callback;
  Revision position;           // what changed up to here was reported
  Revision complete_from = 0;  // forgotten erasures up to here do not concern this watcher
  bool fresh = true;           // nothing was fetched yet
  std::atomic<bool> ended{false};
};

// Thread-safe. Shared with the handles, which may outlive the block.
class Watchers : public std::enable_shared_from_this<Watchers> {
 public:
  // `run` is the body of the thread, which starts with the first watcher; it must return soon after
  // `wake` once stopping() is true. `wake` is called from any thread, also for each new watcher.
  // Neither is called after stop() returned.
  Watchers(std::function<void()> run, std::function<void()> wake)
      : run_(std::move(run)), wake_(std::move(wake)) {}
  ~Watchers() { stop(); }
  Watchers(const Watchers&) = delete;
  Watchers& operator=(const Watchers&) = delete;

  WatchHandle add(std::string prefix, Revision after, ClusterBlock::WatchCallback callback);
  // No callback runs afterwards. Not from a callback.
  void stop();

  // For the thread.
  bool stopping() const;
  std::vector<std::shared_ptr<Watcher>> all() const;
  // Whether there are new ones since it was asked last.
  bool take_added();
  // Calls back, unless the watcher has ended.
  void deliver(const std::shared_ptr<Watcher>& watcher, const WatchEvent& event);

 private:
  void remove(const std::shared_ptr<Watcher>& watcher);

  const std::function<void()> run_;
  const std::function<void()> wake_;
  mutable Mutex mutex_;
  Condition idle_;
  std::vector<std::shared_ptr<Watcher>> watchers_ SLUICE_GUARDED_BY(mutex_);
  const Watcher* running_ SLUICE_GUARDED_BY(mutex_) = nullptr;  // whose callback runs
  bool added_ SLUICE_GUARDED_BY(mutex_) = false;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread thread_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_WATCHERS_H_
