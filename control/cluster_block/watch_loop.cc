#include "control/cluster_block/watch_loop.h"

#include <algorithm>
#include <utility>

#include "base/guard.h"

namespace sluice::cluster_block {

WatchHandle WatchLoop::add(std::string prefix, Revision after,
                           ClusterBlock::WatchCallback callback) {
  auto watcher = std::make_shared<Watcher>();
  watcher->prefix = std::move(prefix);
  watcher->callback = std::move(callback);
  watcher->position = after;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return WatchHandle();
    watchers_.push_back(watcher);
    added_ = true;
    if (!thread_.joinable())
      thread_ = guarded_thread("watching the cluster block", [this] { run(); });
  }
  source_->wake();
  return WatchHandle([self = shared_from_this(), watcher] { self->remove(watcher); });
}

void WatchLoop::stop() {
  {
    std::lock_guard lock(mutex_);
    // The source may be gone by the second time.
    if (std::exchange(stopping_, true)) return;
  }
  source_->wake();
  if (thread_.joinable()) thread_.join();
}

void WatchLoop::remove(const std::shared_ptr<Watcher>& watcher) {
  watcher->ended = true;
  std::unique_lock lock(mutex_);
  std::erase(watchers_, watcher);
  if (thread_.get_id() == std::this_thread::get_id()) return;
  idle_.wait(lock, [&] { return running_ != watcher.get(); });
}

void WatchLoop::run() {
  bool behind = false;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    source_->wait(poll_ms_);
    lock.lock();
    if (stopping_) return;
    const bool added = std::exchange(added_, false);
    const auto watchers = watchers_;
    lock.unlock();
    const absl::Status looked = guarded("watching the cluster block", [&] {
      const bool changed = source_->poll();
      if (changed || added || behind) {
        behind = false;
        for (const auto& watcher : watchers) {
          if (pump(watcher)) behind = true;
        }
      }
    });
    if (!looked.ok()) behind = true;  // what was not delivered is delivered next time
    lock.lock();
  }
}

bool WatchLoop::pump(const std::shared_ptr<Watcher>& watcher) {
  if (watcher->ended) return false;
  auto batch = source_->changes(watcher->prefix, watcher->position);
  if (!batch.ok()) return true;
  if (std::exchange(watcher->fresh, false) && watcher->position == 0) {
    watcher->complete_from = batch->head;
  }
  const bool forgotten = std::max(watcher->position, watcher->complete_from) < batch->floor;
  if (forgotten || watcher->position > batch->head) {
    watcher->position = batch->head;
    deliver(watcher, {WatchEvent::Kind::kResync, {}, {}, batch->head});
    return false;
  }
  for (const WatchEvent& event : batch->events) deliver(watcher, event);
  watcher->position = batch->upto;
  return batch->upto < batch->head;
}

void WatchLoop::deliver(const std::shared_ptr<Watcher>& watcher, const WatchEvent& event) {
  {
    std::lock_guard lock(mutex_);
    if (watcher->ended || stopping_) return;
    running_ = watcher.get();
  }
  guarded("a watcher of the cluster block", [&] { watcher->callback(event); }).IgnoreError();
  {
    std::lock_guard lock(mutex_);
    running_ = nullptr;
  }
  idle_.notify_all();
}

}  // namespace sluice::cluster_block
