#include "control/cluster_block/lease_keeper.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/guard.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kRenewals = 5;  // in the time of a lease
constexpr int64_t kRetries = 20;  // after a renewal that failed

}  // namespace

LeaseKeeper::LeaseKeeper(ClusterBlock& block, LeaseId lease, Options options)
    : block_(block),
      lease_(lease),
      options_(std::move(options)),
      clock_(options_.clock == nullptr ? system_clock() : *options_.clock) {}

absl::StatusOr<std::unique_ptr<LeaseKeeper>> LeaseKeeper::grant(ClusterBlock& block,
                                                                Options options) {
  const Clock& clock = options.clock == nullptr ? system_clock() : *options.clock;
  const int64_t asked_ns = clock.monotonic_ns();
  SLUICE_ASSIGN_OR_RETURN(const LeaseId lease, block.grant(options.ttl_ms));
  std::unique_ptr<LeaseKeeper> keeper(new LeaseKeeper(block, lease, std::move(options)));
  keeper->extend(asked_ns);
  SLUICE_RETURN_IF_ERROR(keeper->start());
  return keeper;
}

absl::StatusOr<std::unique_ptr<LeaseKeeper>> LeaseKeeper::adopt(ClusterBlock& block, LeaseId lease,
                                                                Options options) {
  std::unique_ptr<LeaseKeeper> keeper(new LeaseKeeper(block, lease, std::move(options)));
  SLUICE_RETURN_IF_ERROR(keeper->start());
  return keeper;
}

LeaseKeeper::~LeaseKeeper() { stop(); }

absl::Status LeaseKeeper::start() {
  if (!options_.has_thread) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(thread_, start_thread("renewing a lease", [this] { run(); }));
  return absl::OkStatus();
}

void LeaseKeeper::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LeaseKeeper::extend(int64_t asked_ns) {
  held_until_ns_ = asked_ns + options_.ttl_ms * 3 / 4 * kMs;
}

absl::Status LeaseKeeper::status() const {
  const MutexLock lock(mutex_);
  return status_;
}

absl::Status LeaseKeeper::renew() {
  const int64_t asked_ns = clock_.monotonic_ns();
  const absl::Status kept = block_.keep_alive(lease_);
  if (kept.ok()) {
    extend(asked_ns);
    if (options_.renewed) options_.renewed(asked_ns);
  }
  if (absl::IsNotFound(kept)) {
    ended_ = true;
    held_until_ns_ = 0;
  }
  {
    const MutexLock lock(mutex_);
    status_ = kept;
  }
  if (options_.changed) options_.changed();
  return kept;
}

absl::Status LeaseKeeper::revoke() {
  stop();
  held_until_ns_ = 0;
  return block_.revoke(lease_);
}

void LeaseKeeper::run() {
  absl::Status renewed;
  MutexLock lock(mutex_);
  while (!stopping_ && !ended_) {
    const int64_t pause_ms = options_.ttl_ms / (renewed.ok() ? kRenewals : kRetries);
    if (wake_.wait_for(lock, std::chrono::milliseconds(std::max<int64_t>(pause_ms, 1)),
                       [this]() SLUICE_REQUIRES(mutex_) { return stopping_; })) {
      return;
    }
    lock.unlock();
    renewed = guarded("renewing a lease", [this] { return renew(); });
    lock.lock();
  }
}

}  // namespace sluice
