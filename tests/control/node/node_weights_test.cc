// Nodes that measure themselves, and what a limit does to a whole cluster.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/status.h"
#include "control/node/measure.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMib = uint64_t{1} << 20;
// Nodes n2 and n3 of three may move four times as much as n1.
constexpr uint64_t kLimits[] = {4 * kMib, 16 * kMib, 16 * kMib};

void limit(size_t i, NodeOptions& options) { options.config.bytes_per_second = kLimits[i]; }

std::vector<NodeView> nodes_of(ClusterClient& client) {
  auto views = client.nodes();
  EXPECT_TRUE(views.ok()) << message_of(views.status());
  return views.ok() ? *std::move(views) : std::vector<NodeView>();
}

// Each node of three holds all records, so no slot differs.
void fill_cluster(ClusterClient& client, int records) {
  const auto import = client.import();
  for (int i = 0; i < records; ++i) {
    ASSERT_TRUE(import->put(fmt::format("key-{:06}", i), std::string(2000, 'v')).ok());
  }
  ASSERT_EQ(import->finish().failed, 0u);
  ASSERT_TRUE(eventually(20'000, [&] {
    const std::vector<NodeView> views = nodes_of(client);
    return std::all_of(views.begin(), views.end(), [&](const NodeView& view) {
      return view.records == static_cast<uint64_t>(records);
    });
  }));
}

BackupView back_up(ClusterClient& client, bool dry_run) {
  const auto backup =
      client.backup_create({.name = "b", .targets = {}, .dry_run = dry_run}, nullptr);
  EXPECT_TRUE(backup.ok()) << message_of(backup.status());
  return backup.ok() ? *backup : BackupView();
}

TEST(NodeWeights, WorkReplacesTheProbeAndIsRememberedOverARestart) {
  TestCluster::Options options;
  options.adjust = [](size_t, NodeOptions& node) {
    node.config.weight.reset();
    node.least_work_seconds = 1e-9;
  };
  TestCluster cluster(options);
  const auto client = cluster.client();
  for (const NodeView& view : nodes_of(*client)) {
    EXPECT_EQ(view.weight_from.from, WeightFrom::kProbe) << view.name;
    EXPECT_GT(view.rates.disk_write.rate, 0) << view.name;
    EXPECT_GT(view.rates.checksum.rate, 0) << view.name;
    EXPECT_GT(view.rates.free_bytes, 0u) << view.name;
    EXPECT_EQ(view.rates.ingest.rate, 0) << view.name;
  }
  fill_cluster(*client, 3000);
  const BackupView backup = back_up(*client, false);
  ASSERT_EQ(backup.state, BackupState::kCompleted) << backup.reason;
  TestCluster other(options);
  const auto into = other.client();
  RestoreRequest request;
  request.backup = "b";
  request.source_cluster = cluster.url();
  ASSERT_TRUE(into->restore(request, nullptr).ok());
  const auto knows_disk = [](const NodeView& view) {
    return view.rates.disk_write.work_seconds > 0;
  };
  const auto knows_ingestion = [](const NodeView& view) {
    return view.rates.ingest.work_seconds > 0;
  };
  const auto all = [](ClusterClient& of, const auto& what) {
    const std::vector<NodeView> views = nodes_of(of);
    return std::all_of(views.begin(), views.end(), what);
  };
  // The role in a backup ends when its node has seen that the backup has.
  EXPECT_TRUE(eventually(20'000, [&] { return all(*client, knows_disk); }));
  ASSERT_TRUE(eventually(20'000, [&] { return all(*into, knows_ingestion); }));
  const NodeView before = nodes_of(*into)[0];
  other.stop(0);
  other.start(0);
  EXPECT_EQ(nodes_of(*into)[0].rates.ingest, before.rates.ingest);
}

TEST(NodeWeights, APlanGivesMeasuredNodesWhatTheyCanMove) {
  TestCluster::Options options;
  options.adjust = [](size_t i, NodeOptions& node) {
    limit(i, node);
    node.config.weight.reset();
  };
  TestCluster cluster(options);
  const auto client = cluster.client();
  const std::vector<NodeView> views = nodes_of(*client);
  for (size_t i = 0; i < views.size(); ++i) {
    EXPECT_EQ(views[i].weight * kMib, kLimits[i]) << views[i].name;
    EXPECT_STREQ(views[i].weight_from.what, "limit") << views[i].name;
  }
  fill_cluster(*client, 3000);
  const PlanView plan = back_up(*client, true).plan;
  ASSERT_EQ(plan.nodes.size(), 3u);
  const double slow = static_cast<double>(plan.nodes[0].receive_bytes);
  EXPECT_NEAR(slow * 4, static_cast<double>(plan.nodes[1].receive_bytes), slow);
  EXPECT_NEAR(slow * 4, static_cast<double>(plan.nodes[2].receive_bytes), slow);
  const double sent = static_cast<double>(plan.nodes[0].send_bytes);
  EXPECT_NEAR(sent * 4, static_cast<double>(plan.nodes[1].send_bytes), 1.5 * sent);
}

TEST(NodeWeights, AnOperatorsWeightDecidesASharesAndALimitTheTimes) {
  TestCluster::Options options;
  options.adjust = limit;
  TestCluster cluster(options);
  const auto client = cluster.client();
  for (const NodeView& view : nodes_of(*client)) {
    EXPECT_EQ(view.weight, 1);
    EXPECT_EQ(view.weight_from.from, WeightFrom::kOperator);
  }
  fill_cluster(*client, 3000);
  const PlanView plan = back_up(*client, true).plan;
  ASSERT_EQ(plan.nodes.size(), 3u);
  const double share = static_cast<double>(plan.nodes[0].receive_bytes);
  EXPECT_NEAR(share, static_cast<double>(plan.nodes[1].receive_bytes), 0.2 * share);
  // A third of all, at n1's limit.
  EXPECT_GE(plan.makespan_s, share / static_cast<double>(kLimits[0]));
  EXPECT_LT(plan.nodes[0].send_bytes, plan.nodes[1].send_bytes);
}

TEST(NodeWeights, ABackupAndARestoreOfLimitedNodesAreWhole) {
  TestCluster::Options options;
  options.adjust = limit;
  TestCluster cluster(options);
  const auto client = cluster.client();
  fill_cluster(*client, 3000);
  const BackupView backup = back_up(*client, false);
  ASSERT_EQ(backup.state, BackupState::kCompleted) << backup.reason;
  EXPECT_EQ(read_archive(backup.archives).size(), 3000u);
  TestCluster other(options);
  const auto into = other.client();
  RestoreRequest request;
  request.backup = "b";
  request.source_cluster = cluster.url();
  const auto restored = into->restore(request, nullptr);
  ASSERT_TRUE(restored.ok()) << message_of(restored.status());
  EXPECT_EQ(restored->written, 3000u);
  EXPECT_EQ(read_cluster(*into), read_cluster(*client));
}

TEST(Measure, ReadsTheSpeedOfTheDeviceThatHasTheAddress) {
  const std::string devices = testing::TempDir() + "/sluice-devices";
  std::filesystem::create_directories(devices + "/lo");
  const auto reported = [&](const std::string& speed) {
    std::ofstream(devices + "/lo/speed") << speed;
    return reported_link_rate("127.0.0.1:7001", devices);
  };
  EXPECT_EQ(reported("25000\n"), 25e9 / 8);
  EXPECT_EQ(reported("-1\n"), 0);
  EXPECT_EQ(reported("unknown\n"), 0);
  EXPECT_EQ(reported_link_rate("192.0.2.1:7001", devices), 0);
  EXPECT_EQ(reported_link_rate("", devices), 0);
  std::filesystem::remove_all(devices);
  EXPECT_EQ(reported_link_rate("127.0.0.1:7001", devices), 0);
  EXPECT_EQ(reported_link_rate("127.0.0.1:7001", kNetworkDevices), 0) << "no device has a loopback";
}

TEST(Measure, FindsWhatTheMachineCanDoInShortTime) {
  const std::string folder = testing::TempDir();
  const auto rates = measure_rates(folder, system_clock());
  ASSERT_TRUE(rates.ok()) << message_of(rates.status());
  EXPECT_GT(rates->disk_write.rate, 0);
  EXPECT_GT(rates->checksum.rate, 0);
  EXPECT_GT(rates->free_bytes, 0u);
  EXPECT_FALSE(std::filesystem::exists(folder + "/measure.tmp"));
  EXPECT_THAT(std::string(message_of(measure_rates(folder + "/nowhere", system_clock()).status())),
              HasSubstr("nowhere"));
}

}  // namespace
}  // namespace sluice
