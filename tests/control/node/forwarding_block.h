// A cluster block that hands everything on to another one: what tests derive their faults from.
#ifndef SLUICE_TESTS_CONTROL_NODE_FORWARDING_BLOCK_H_
#define SLUICE_TESTS_CONTROL_NODE_FORWARDING_BLOCK_H_

#include <memory>
#include <utility>

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

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_NODE_FORWARDING_BLOCK_H_
