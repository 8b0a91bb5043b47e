#include "control/cluster_block/watch_loop.h"

#include <algorithm>
#include <utility>

#include "base/guard.h"

namespace sluice::cluster_block {

WatchLoop::WatchLoop(WatchSource* source, int poll_ms)
    : source_(source),
      poll_ms_(poll_ms),
      watchers_(std::make_shared<Watchers>([this] { run(); }, [source] { source->wake(); })) {}

void WatchLoop::run() {
  bool behind = false;
  for (;;) {
    source_->wait(poll_ms_);
    if (watchers_->stopping()) return;
    const bool added = watchers_->take_added();
    const auto watchers = watchers_->all();
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
    watchers_->deliver(watcher, {WatchEvent::Kind::kResync, {}, {}, batch->head});
    return false;
  }
  for (const WatchEvent& event : batch->events) watchers_->deliver(watcher, event);
  watcher->position = batch->upto;
  return batch->upto < batch->head;
}

}  // namespace sluice::cluster_block
