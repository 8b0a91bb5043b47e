#include "control/cluster_block/watchers.h"

#include <utility>

#include "base/guard.h"

namespace sluice::cluster_block {

WatchHandle Watchers::add(std::string prefix, Revision after,
                          ClusterBlock::WatchCallback callback) {
  auto watcher = std::make_shared<Watcher>(std::move(prefix), after, std::move(callback));
  {
    const MutexLock lock(mutex_);
    if (stopping_) return WatchHandle();
    watchers_.push_back(watcher);
    added_ = true;
    if (!thread_.joinable()) thread_ = guarded_thread("watching the cluster block", run_);
  }
  wake_();
  return WatchHandle([self = shared_from_this(), watcher] { self->remove(watcher); });
}

void Watchers::stop() {
  std::thread thread;
  {
    const MutexLock lock(mutex_);
    // What `wake` reaches may be gone by the second time.
    if (std::exchange(stopping_, true)) return;
    thread = std::move(thread_);
  }
  wake_();
  if (thread.joinable()) thread.join();
}

bool Watchers::stopping() const {
  const MutexLock lock(mutex_);
  return stopping_;
}

std::vector<std::shared_ptr<Watcher>> Watchers::all() const {
  const MutexLock lock(mutex_);
  return watchers_;
}

bool Watchers::take_added() {
  const MutexLock lock(mutex_);
  return std::exchange(added_, false);
}

void Watchers::remove(const std::shared_ptr<Watcher>& watcher) {
  watcher->ended = true;
  MutexLock lock(mutex_);
  std::erase(watchers_, watcher);
  if (thread_.get_id() == std::this_thread::get_id()) return;
  idle_.wait(lock, [&]() SLUICE_REQUIRES(mutex_) { return running_ != watcher.get(); });
}

void Watchers::deliver(const std::shared_ptr<Watcher>& watcher, const WatchEvent& event) {
  {
    const MutexLock lock(mutex_);
    if (watcher->ended || stopping_) return;
    running_ = watcher.get();
  }
  guarded("a watcher of the cluster block", [&] { watcher->callback(event); }).IgnoreError();
  {
    const MutexLock lock(mutex_);
    running_ = nullptr;
  }
  idle_.notify_all();
}

}  // namespace sluice::cluster_block
