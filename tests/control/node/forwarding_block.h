// Cluster blocks that hand everything on to another one: what tests derive their faults from.
#ifndef SLUICE_TESTS_CONTROL_NODE_FORWARDING_BLOCK_H_
#define SLUICE_TESTS_CONTROL_NODE_FORWARDING_BLOCK_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "base/status.h"
#include "control/backup/documents.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice {

class ForwardingBlock : public ClusterBlock {
 public:
  explicit ForwardingBlock(ClusterBlock& block) : block_(block) {}
  explicit ForwardingBlock(std::unique_ptr<ClusterBlock> block)
      : owned_(std::move(block)), block_(*owned_) {}
  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    return block_.get(key);
  }
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override {
    return block_.list(prefix);
  }
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    return block_.commit(ops);
  }
  absl::StatusOr<LeaseId> grant(int64_t ttl_ms) override { return block_.grant(ttl_ms); }
  absl::Status keep_alive(LeaseId lease) override { return block_.keep_alive(lease); }
  void limit_calls(int64_t ms) override { block_.limit_calls(ms); }
  absl::Status revoke(LeaseId lease) override { return block_.revoke(lease); }
  absl::StatusOr<WatchHandle> watch(std::string_view prefix, Revision after,
                                    WatchCallback callback) override {
    return block_.watch(prefix, after, std::move(callback));
  }

 private:
  const std::unique_ptr<ClusterBlock> owned_;

 protected:
  ClusterBlock& block_;
};

// Holds the commits that bring a backup to a state, in the blocks of all nodes that share it.
class StateGate {
 public:
  explicit StateGate(BackupState state) : state_(state) {}
  // Waits, bounded, until a commit is held.
  bool wait_until_held() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [this] { return held_ > 0; });
  }
  void open() { set(Mode::kOpen); }
  // What is held fails, and whatever comes until open(): UNAVAILABLE.
  void fail() { set(Mode::kFail); }

  absl::Status pass(const std::vector<ClusterOp>& ops) {
    for (const ClusterOp& op : ops) {
      if (op.kind != ClusterOp::Kind::kPut || !op.key.starts_with(kBackupsPrefix)) continue;
      const auto head = decode_backup_head(op.key, op.value);
      if (!head.ok() || head->state != state_) continue;
      std::unique_lock lock(mutex_);
      ++held_;
      changed_.notify_all();
      changed_.wait_for(lock, std::chrono::seconds(60), [this] { return mode_ != Mode::kHold; });
      --held_;
      if (mode_ != Mode::kOpen) return unavailable("held by the test");
    }
    return absl::OkStatus();
  }

 private:
  enum class Mode { kHold, kOpen, kFail };
  void set(Mode mode) {
    {
      const std::lock_guard lock(mutex_);
      mode_ = mode;
    }
    changed_.notify_all();
  }

  const BackupState state_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Mode mode_ = Mode::kHold;
  int held_ = 0;
};

class GatedBlock final : public ForwardingBlock {
 public:
  GatedBlock(std::unique_ptr<ClusterBlock> inner, StateGate& gate)
      : ForwardingBlock(std::move(inner)), gate_(gate) {}
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    SLUICE_RETURN_IF_ERROR(gate_.pass(ops));
    return block_.commit(ops);
  }

 private:
  StateGate& gate_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_NODE_FORWARDING_BLOCK_H_
