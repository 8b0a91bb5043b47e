// Clusters some of whose machines have wrong clocks.
#include <gtest/gtest.h>

#include "base/status.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

constexpr int64_t kHour = 3600 * int64_t{1000};
constexpr int64_t kDay = 24 * kHour;

// Every write wins at once, whoever coordinates it, and a backup holds all of them in its usual
// time.
void write_and_back_up(TestCluster& cluster, const std::string& name) {
  const auto client = cluster.client();
  for (int i = 0; i < 30; ++i) {
    const absl::Status put = client->put(fmt::format("key{}", i), name);
    ASSERT_TRUE(put.ok()) << name << ": " << put;
  }
  const auto records = read_cluster(*client);
  ASSERT_EQ(records.size(), 30u);
  for (const auto& [key, value] : records) EXPECT_EQ(value, name) << key;
  const int64_t begun = system_clock().monotonic_ns();
  const auto backup =
      client->backup_create({.name = name, .targets = {}, .dry_run = false}, nullptr);
  ASSERT_TRUE(backup.ok()) << name << ": " << backup.status();
  EXPECT_EQ(name_of(backup->state), "completed") << name << ": " << backup->reason;
  EXPECT_EQ(backup->records, 30u) << name;
  EXPECT_GE(backup->seconds, 0) << name;
  EXPECT_LT(system_clock().monotonic_ns() - begun, 25'000'000'000) << name;
}

int64_t offset_of(TestCluster& cluster, const std::string& name) {
  const auto nodes = cluster.client()->nodes();
  EXPECT_TRUE(nodes.ok()) << nodes.status();
  for (const NodeView& node : *nodes) {
    if (node.name == name && node.reached) return node.clock_offset_ms;
  }
  return 0;
}

TEST(Clocks, ANodeThatIsFarOffStampsWithTheOthersTimeAndIsShown) {
  TestCluster::Options options;
  options.skews_ms = {0, 8 * kHour, 0};
  TestCluster cluster(options);
  EXPECT_TRUE(eventually(10'000, [&] { return offset_of(cluster, "n2") > 7 * kHour; }));
  write_and_back_up(cluster, "ahead");
  cluster.clock(1).skew(-kDay);
  write_and_back_up(cluster, "behind");
  EXPECT_TRUE(eventually(10'000, [&] { return offset_of(cluster, "n2") < -23 * kHour; }));
  cluster.clock(1).skew(0);
  write_and_back_up(cluster, "right");
  EXPECT_TRUE(eventually(10'000, [&] { return offset_of(cluster, "n2") == 0; }));
  const auto nodes = cluster.client()->nodes();
  ASSERT_TRUE(nodes.ok()) << nodes.status();
  for (const NodeView& node : *nodes) {
    EXPECT_LT(node.stamps_ahead_ms, 10'000) << node.name << " was taken along";
  }
}

TEST(Clocks, AllMayJumpADayForwardAndBack) {
  TestCluster cluster;
  write_and_back_up(cluster, "before");
  for (size_t i = 0; i < 3; ++i) cluster.clock(i).skew(kDay);
  write_and_back_up(cluster, "forward");
  // Stamps are from the future by the time that this has been measured.
  ASSERT_TRUE(eventually(10'000, [&] {
    cluster.client()->put("key0", "future").IgnoreError();
    for (size_t i = 0; i < 3; ++i) cluster.clock(i).skew(kDay);
    const auto nodes = cluster.client()->nodes();
    return nodes.ok() && nodes->front().clock_offset_ms == 0;
  }));
  write_and_back_up(cluster, "still-forward");
  for (size_t i = 0; i < 3; ++i) cluster.clock(i).skew(0);
  write_and_back_up(cluster, "back");
  cluster.stop(1);
  cluster.start(1);
  write_and_back_up(cluster, "after-a-restart");
}

TEST(Clocks, TheSecondsOfABackupAreNotThoseOfAWallClock) {
  TestCluster cluster;
  const auto client = cluster.client();
  ASSERT_TRUE(client->put("key", "value").ok());
  for (const int64_t jump : {kHour, -kHour}) {
    const int64_t begun = system_clock().monotonic_ns();
    const auto backup = client->backup_create(
        {.name = jump > 0 ? "forward" : "back", .targets = {}, .dry_run = false},
        [&](const BackupProgress& progress) {
          if (progress.state == BackupState::kPlanning) return;
          for (size_t i = 0; i < 3; ++i) cluster.clock(i).skew(jump);
        });
    ASSERT_TRUE(backup.ok()) << backup.status();
    EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
    EXPECT_GT(backup->seconds, 0);
    EXPECT_LE(backup->seconds, static_cast<double>(system_clock().monotonic_ns() - begun) / 1e9);
  }
}

TEST(Clocks, WithinWhatIsAllowedNothingIsSaid) {
  TestCluster::Options options;
  options.skews_ms = {0, 1200, 0};
  TestCluster cluster(options);
  write_and_back_up(cluster, "skewed");
}

}  // namespace
}  // namespace sluice
