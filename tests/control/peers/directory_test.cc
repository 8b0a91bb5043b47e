#include "control/peers/directory.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/random.h"
#include "base/status.h"
#include "control/cluster_block/memory_cluster_block.h"
#include "control/membership/membership.h"
#include "tests/control/node/forwarding_block.h"

namespace sluice {
namespace {

class UnreachableBlock final : public ForwardingBlock {
 public:
  using ForwardingBlock::ForwardingBlock;
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override {
    if (unreachable) {
      ++refused;
      return unavailable("the cluster block does not answer");
    }
    return ForwardingBlock::list(prefix);
  }
  std::atomic<bool> unreachable{false};
  std::atomic<int> refused{0};
};

// The change is told of once.
TEST(Directory, RepeatsAReadThatFailedWhenSomethingHadChanged) {
  const auto storage = make_memory_storage();
  const auto memory = make_memory_cluster_block(storage);
  ClusterInfo info;
  info.uuid = make_uuid();
  ASSERT_TRUE(create_cluster(*memory, info).ok());
  UnreachableBlock block(make_memory_cluster_block(storage));
  const auto directory = Directory::open(block);
  ASSERT_TRUE(directory.ok()) << directory.status();
  block.unreachable = true;
  Membership::Options joining;
  joining.node.name = "n1";
  joining.node.store_id = "store-of-n1";
  const auto membership = Membership::join(*memory, std::move(joining));
  ASSERT_TRUE(membership.ok()) << membership.status();
  while (block.refused < 2) std::this_thread::yield();
  block.unreachable = false;
  const auto snapshot =
      (*directory)->wait(10'000, [](const Directory::Snapshot& seen) { return seen.live("n1"); });
  EXPECT_TRUE(snapshot->live("n1"));
}

TEST(Directory, EndsWhileItRepeatsARead) {
  const auto storage = make_memory_storage();
  const auto memory = make_memory_cluster_block(storage);
  ClusterInfo info;
  info.uuid = make_uuid();
  ASSERT_TRUE(create_cluster(*memory, info).ok());
  UnreachableBlock block(make_memory_cluster_block(storage));
  auto directory = Directory::open(block);
  ASSERT_TRUE(directory.ok()) << directory.status();
  block.unreachable = true;
  ASSERT_TRUE(memory->put(live_key("n1"), "changed").ok());
  while (block.refused == 0) std::this_thread::yield();
  directory->reset();
}

}  // namespace
}  // namespace sluice
