#include "control/restore/restore_position.h"

#include <chrono>
#include <utility>

#include "base/guard.h"

namespace sluice {

namespace {

constexpr auto kStoreEvery = std::chrono::milliseconds(700);

}  // namespace

PositionKeeper::PositionKeeper(ClusterBlock& block, Clock& clock, const RestoreFence& fence)
    : block_(block), clock_(clock), fence_(fence) {
  thread_ = guarded_thread("storing how far a restore is", [this] { keep(); });
}

PositionKeeper::~PositionKeeper() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void PositionKeeper::set(const RestoreProgress& progress) {
  const MutexLock lock(mutex_);
  due_ = progress;
}

void PositionKeeper::keep() {
  MutexLock lock(mutex_);
  for (bool last = false; !last;) {
    last =
        wake_.wait_for(lock, kStoreEvery, [this]() SLUICE_REQUIRES(mutex_) { return stopping_; });
    if (!due_.has_value()) continue;
    const RestoreProgress progress = *std::exchange(due_, std::nullopt);
    lock.unlock();
    store(progress);
    lock.lock();
  }
}

void PositionKeeper::store(const RestoreProgress& progress) {
  const int64_t now = clock_.monotonic_ns();
  if (!first_done_.has_value()) {
    first_done_ = progress.bytes_done;
    first_ns_ = now;
  }
  RestorePosition position;
  position.stage = progress.stage;
  position.bytes_done = progress.bytes_done;
  position.bytes_total = progress.bytes_total;
  const double seconds = static_cast<double>(now - first_ns_) / 1e9;
  if (seconds > 0 && progress.bytes_done > *first_done_) {
    position.bytes_per_second =
        static_cast<uint64_t>(static_cast<double>(progress.bytes_done - *first_done_) / seconds);
  }
  position.changed_ms = clock_.wall_ms();
  store_position(block_, fence_, position).IgnoreError();
}

}  // namespace sluice
