#include "tests/simulation/world/sim_block.h"

#include <fmt/format.h>

#include <utility>

#include "base/status.h"
#include "control/backup/documents.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

// How often a watch looks for leases that have ended by themselves.
constexpr int kWatchPollMs = 500;

class SimBlock final : public ClusterBlock {
 public:
  SimBlock(BlockWorld& world, const BlockFaults& faults)
      : world_(world),
        faults_(faults),
        block_(make_memory_cluster_block(world.storage, kWatchPollMs)) {}

  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    SLUICE_RETURN_IF_ERROR(reach());
    return block_->get(key);
  }
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override {
    SLUICE_RETURN_IF_ERROR(reach());
    return block_->list(prefix);
  }
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    if (world_.before_commit && !Process::current().crashed()) world_.before_commit(ops);
    if (world_.watch_commit && !Process::current().crashed()) world_.watch_commit(ops);
    SLUICE_RETURN_IF_ERROR(reach());
    if (world_.random.chance(faults_.fails_late)) {
      const auto delay =
          static_cast<int64_t>(world_.random.below(static_cast<uint64_t>(faults_.longest_late_ns)));
      at(now_ns() + delay, [&world = world_, ops] {
        const auto committed = world.late->commit(ops);
        if (committed.ok()) world.keep(ops, *committed);
      });
      return lost();
    }
    const bool silent = world_.random.chance(faults_.fails_after);
    auto committed = block_->commit(ops);
    if (committed.ok()) world_.keep(ops, *committed);
    return silent ? lost() : std::move(committed);
  }
  absl::StatusOr<LeaseId> grant(int64_t ttl_ms) override {
    SLUICE_RETURN_IF_ERROR(reach());
    return block_->grant(ttl_ms);
  }
  absl::Status keep_alive(LeaseId lease) override {
    SLUICE_RETURN_IF_ERROR(reach());
    return block_->keep_alive(lease);
  }
  absl::Status revoke(LeaseId lease) override {
    SLUICE_RETURN_IF_ERROR(reach());
    return block_->revoke(lease);
  }
  absl::StatusOr<WatchHandle> watch(std::string_view prefix, Revision after,
                                    WatchCallback callback) override {
    SLUICE_RETURN_IF_ERROR(reach());
    return block_->watch(prefix, after, std::move(callback));
  }
  void limit_calls(int64_t) override {}

 private:
  static absl::Status lost() { return unavailable("the cluster block does not answer"); }
  absl::Status reach() const {
    const auto spread = static_cast<uint64_t>(faults_.slowest_ns - faults_.fastest_ns + 1);
    system_clock().sleep_ns(faults_.fastest_ns + static_cast<int64_t>(world_.random.below(spread)));
    if (Process::current().crashed() || faults_.unreachable ||
        world_.random.chance(faults_.fails)) {
      return lost();
    }
    return absl::OkStatus();
  }

  BlockWorld& world_;
  const BlockFaults& faults_;
  const std::unique_ptr<ClusterBlock> block_;
};

}  // namespace

void BlockWorld::keep(const std::vector<ClusterOp>& ops, Revision revision) {
  const NoSwitch whole;
  for (const ClusterOp& op : ops) {
    if (op.kind == ClusterOp::Kind::kPut && op.key.starts_with(kept_prefix)) {
      kept[op.key][revision] = op.value;
      if (const auto head = decode_backup_head(op.key, op.value); head.ok()) {
        trace(fmt::format("head of {}: {}{}, attempt {} by {}", head->name, name_of(head->state),
                          head->deleting ? ", deleting" : "", head->attempt, head->coordinator));
      }
    }
  }
}

std::unique_ptr<ClusterBlock> make_sim_block(BlockWorld& world, const BlockFaults& faults) {
  return std::make_unique<SimBlock>(world, faults);
}

}  // namespace sluice::simulation
