#include "control/cluster_block/memory_cluster_block.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "control/cluster_block/change_counter.h"
#include "control/cluster_block/checks.h"
#include "control/cluster_block/watch_loop.h"

namespace sluice {

using namespace cluster_block;

namespace {
constexpr size_t kKeptErasures = 4096;
}  // namespace

class MemoryStorage {
 public:
  explicit MemoryStorage(Clock& clock) : clock_(clock) {}

  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) {
    SLUICE_RETURN_IF_ERROR(check_key(key));
    const MutexLock lock(mutex_);
    end_due_leases();
    const auto found = entries_.find(key);
    if (found == entries_.end()) return std::optional<ClusterEntry>();
    return std::optional<ClusterEntry>(found->second);
  }

  absl::StatusOr<ClusterListing> list(std::string_view prefix) {
    SLUICE_RETURN_IF_ERROR(check_prefix(prefix));
    const MutexLock lock(mutex_);
    end_due_leases();
    ClusterListing listing;
    listing.revision = revision_;
    for (auto it = entries_.lower_bound(prefix);
         it != entries_.end() && it->first.starts_with(prefix); ++it) {
      listing.entries.push_back(it->second);
    }
    return listing;
  }

  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) {
    SLUICE_RETURN_IF_ERROR(check_ops(ops));
    Revision revision = 0;
    {
      const MutexLock lock(mutex_);
      end_due_leases();
      SLUICE_RETURN_IF_ERROR(compare(ops));
      revision = ++revision_;
      for (const ClusterOp& op : ops) {
        if (op.kind == ClusterOp::Kind::kPut) put_entry(op);
        if (op.kind == ClusterOp::Kind::kErase) erase_entry(op.key);
      }
    }
    changes_.raise();
    return revision;
  }

  absl::StatusOr<LeaseId> grant(int64_t ttl_ms) {
    SLUICE_RETURN_IF_ERROR(check_ttl(ttl_ms));
    const MutexLock lock(mutex_);
    const LeaseId id = next_lease_++;
    leases_[id] = {ttl_ms, clock_.monotonic_ns() + ttl_ms * 1'000'000, {}};
    return id;
  }

  absl::Status keep_alive(LeaseId lease) {
    const MutexLock lock(mutex_);
    end_due_leases();
    const auto found = leases_.find(lease);
    if (found == leases_.end()) return not_found("lease {} has ended", lease);
    found->second.deadline_ns = clock_.monotonic_ns() + found->second.ttl_ms * 1'000'000;
    return absl::OkStatus();
  }

  absl::Status revoke(LeaseId lease) {
    {
      const MutexLock lock(mutex_);
      end_lease(lease);
    }
    changes_.raise();
    return absl::OkStatus();
  }

  ChangeCounter& counter() { return changes_; }
  // Ends leases whose time is over.
  Revision revision() {
    const MutexLock lock(mutex_);
    end_due_leases();
    return revision_;
  }
  absl::StatusOr<WatchBatch> changes(const std::string& prefix, Revision after) {
    const MutexLock lock(mutex_);
    WatchBatch batch;
    batch.head = revision_;
    batch.floor = floor_;
    batch.upto = std::max(after, revision_);
    auto put = by_revision_.lower_bound({after + 1, std::string()});
    auto erasure = by_erasure_.lower_bound({after + 1, std::string()});
    size_t bytes = 0;
    while (put != by_revision_.end() || erasure != by_erasure_.end()) {
      const bool is_put =
          erasure == by_erasure_.end() || (put != by_revision_.end() && *put < *erasure);
      const auto& [revision, key] = is_put ? *put++ : *erasure++;
      if (!key.starts_with(prefix)) continue;
      const bool full = bytes >= kBatchBytes || batch.events.size() >= kBatchEvents;
      if (full && revision != batch.events.back().revision) {
        batch.upto = batch.events.back().revision;
        break;
      }
      const auto kind = is_put ? WatchEvent::Kind::kPut : WatchEvent::Kind::kErase;
      batch.events.push_back({kind, key, {}, revision});
      if (is_put) batch.events.back().value = entries_.find(key)->second.value;
      bytes += batch.events.back().value.size();
    }
    return batch;
  }

 private:
  struct Lease {
    int64_t ttl_ms = 0;
    int64_t deadline_ns = 0;
    std::set<std::string> keys;
  };

  absl::Status compare(const std::vector<ClusterOp>& ops) const SLUICE_REQUIRES(mutex_) {
    for (const ClusterOp& op : ops) {
      if (op.expected) {
        const auto found = entries_.find(op.key);
        const Revision actual = found == entries_.end() ? 0 : found->second.revision;
        if (actual != *op.expected) return revision_mismatch(op.key, actual, *op.expected);
      }
      if (op.kind == ClusterOp::Kind::kPut && op.lease != 0 && !leases_.contains(op.lease)) {
        return lease_ended(op.lease);
      }
    }
    return absl::OkStatus();
  }

  void put_entry(const ClusterOp& op) SLUICE_REQUIRES(mutex_) {
    forget(op.key);
    entries_[op.key] = {op.key, op.value, revision_, op.lease};
    by_revision_.insert({revision_, op.key});
    if (op.lease != 0) leases_[op.lease].keys.insert(op.key);
  }

  void erase_entry(const std::string& key) SLUICE_REQUIRES(mutex_) {
    if (!entries_.contains(key)) return;
    forget(key);
    erased_[key] = revision_;
    by_erasure_.insert({revision_, key});
    while (by_erasure_.size() > kKeptErasures) {
      floor_ = by_erasure_.begin()->first;
      erased_.erase(by_erasure_.begin()->second);
      by_erasure_.erase(by_erasure_.begin());
    }
  }

  // Takes the key's entry or erasure away, without a trace.
  void forget(const std::string& key) SLUICE_REQUIRES(mutex_) {
    if (const auto found = entries_.find(key); found != entries_.end()) {
      by_revision_.erase({found->second.revision, key});
      if (const auto lease = leases_.find(found->second.lease); lease != leases_.end()) {
        lease->second.keys.erase(key);
      }
      entries_.erase(found);
    }
    if (const auto found = erased_.find(key); found != erased_.end()) {
      by_erasure_.erase({found->second, key});
      erased_.erase(found);
    }
  }

  bool end_lease(LeaseId id) SLUICE_REQUIRES(mutex_) {
    const auto found = leases_.find(id);
    if (found == leases_.end()) return false;
    const std::set<std::string> keys = std::move(found->second.keys);
    leases_.erase(found);
    if (keys.empty()) return false;
    ++revision_;
    for (const std::string& key : keys) erase_entry(key);
    return true;
  }

  bool end_due_leases() SLUICE_REQUIRES(mutex_) {
    const int64_t now = clock_.monotonic_ns();
    std::vector<LeaseId> due;
    for (const auto& [id, lease] : leases_) {
      if (lease.deadline_ns <= now) due.push_back(id);
    }
    bool changed = false;
    for (const LeaseId id : due) changed |= end_lease(id);
    return changed;
  }

  Clock& clock_;
  Mutex mutex_;
  std::map<std::string, ClusterEntry, std::less<>> entries_ SLUICE_GUARDED_BY(mutex_);
  std::map<std::string, Revision> erased_ SLUICE_GUARDED_BY(mutex_);
  std::set<std::pair<Revision, std::string>> by_revision_ SLUICE_GUARDED_BY(mutex_);
  std::set<std::pair<Revision, std::string>> by_erasure_ SLUICE_GUARDED_BY(mutex_);
  std::map<LeaseId, Lease> leases_ SLUICE_GUARDED_BY(mutex_);
  Revision revision_ SLUICE_GUARDED_BY(mutex_) = 0;
  Revision floor_ SLUICE_GUARDED_BY(mutex_) = 0;
  LeaseId next_lease_ SLUICE_GUARDED_BY(mutex_) = 1;
  ChangeCounter changes_;
};

namespace {

class MemoryClusterBlock final : public ClusterBlock, public WatchSource {
 public:
  MemoryClusterBlock(std::shared_ptr<MemoryStorage> storage, int poll_ms)
      : storage_(std::move(storage)), loop_(std::make_unique<WatchLoop>(this, poll_ms)) {}
  ~MemoryClusterBlock() override { loop_->stop(); }

  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    return storage_->get(key);
  }
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override {
    return storage_->list(prefix);
  }
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    return storage_->commit(ops);
  }
  absl::StatusOr<LeaseId> grant(int64_t ttl_ms) override { return storage_->grant(ttl_ms); }
  absl::Status keep_alive(LeaseId lease) override { return storage_->keep_alive(lease); }
  absl::Status revoke(LeaseId lease) override { return storage_->revoke(lease); }
  absl::StatusOr<WatchHandle> watch(std::string_view prefix, Revision after,
                                    WatchCallback callback) override {
    SLUICE_RETURN_IF_ERROR(check_prefix(prefix));
    return loop_->add(std::string(prefix), after, std::move(callback));
  }
  void limit_calls(int64_t) override {}

 private:
  void wait(int64_t timeout_ms) override {
    storage_->counter().wait(seen_, timeout_ms);
    seen_ = storage_->counter().value();
  }
  void wake() override { storage_->counter().raise(); }
  bool poll() override {
    const Revision revision = storage_->revision();
    return std::exchange(polled_, revision) != revision;
  }
  absl::StatusOr<WatchBatch> changes(const std::string& prefix, Revision after) override {
    return storage_->changes(prefix, after);
  }

  const std::shared_ptr<MemoryStorage> storage_;
  // Of the loop's thread.
  Revision polled_ = 0;
  uint32_t seen_ = 0;
  std::unique_ptr<WatchLoop> loop_;
};

}  // namespace

std::shared_ptr<MemoryStorage> make_memory_storage(Clock& clock) {
  return std::make_shared<MemoryStorage>(clock);
}

std::unique_ptr<ClusterBlock> make_memory_cluster_block(std::shared_ptr<MemoryStorage> storage,
                                                        int poll_ms) {
  return std::make_unique<MemoryClusterBlock>(std::move(storage), poll_ms);
}

std::unique_ptr<ClusterBlock> make_memory_cluster_block(Clock& clock) {
  return make_memory_cluster_block(make_memory_storage(clock));
}

}  // namespace sluice
