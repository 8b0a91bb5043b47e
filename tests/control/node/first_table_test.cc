#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/status.h"
#include "control/cluster_block/memory_cluster_block.h"
#include "control/membership/membership.h"
#include "control/membership/table_store.h"
#include "control/node/bootstrap.h"

namespace sluice {
namespace {

// A node that was started by mistake, under another name for instance, and is there no more.
TEST(FirstTable, HoldsCopiesOnNodesThatAreThere) {
  const auto block = make_memory_cluster_block();
  ClusterInfo info;
  info.uuid = make_uuid();
  info.replicas = 2;
  ASSERT_TRUE(create_cluster(*block, info).ok());
  const auto join = [&](const std::string& name) {
    Membership::Options options;
    options.node.name = name;
    options.node.store_id = "store-of-" + name;
    options.node.incarnation = 1;
    auto membership = Membership::join(*block, std::move(options));
    EXPECT_TRUE(membership.ok()) << membership.status();
    return *std::move(membership);
  };
  join("mistake").reset();
  const auto n1 = join("n1");
  const auto n2 = join("n2");
  ASSERT_TRUE(publish_first_table(*block, 2, 5'000, system_clock()).ok());
  const auto table = load_table(*block);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->members().size(), 2);
  EXPECT_LT(table->find_member("mistake"), 0);
}

}  // namespace
}  // namespace sluice
