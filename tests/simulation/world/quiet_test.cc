// Clusters that nothing happens to, or one thing.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/status.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {
namespace {

std::map<std::string, std::string> read_all_of(World& world, const std::string& cluster) {
  std::map<std::string, std::string> records;
  world.with_client(cluster, [&](ClusterClient& client) {
    const auto totals =
        client.export_records({}, [&](std::string_view key, std::string_view value) {
          if (!records.emplace(key, value).second) fail(fmt::format("{} twice", key));
          return absl::OkStatus();
        });
    require_ok(totals.status(), "reading all");
  });
  return records;
}

void require_completed(const absl::StatusOr<RestoreOutcome>& outcome, std::string_view what) {
  require_ok(outcome.status(), what);
  if (outcome->state != RestoreState::kCompleted) {
    fail(fmt::format("{}: {} {}", what, name_of(outcome->state), outcome->reason));
  }
}

void live_quietly(uint64_t seed) {
  trace_logs();
  World& world = *new World(seed);
  world.make_cluster("a", {});
  world.make_cluster("b", {.nodes = 2, .replicas = 2, .slot_bits = 2});
  std::map<std::string, std::string> written;
  world.with_client("a", [&](ClusterClient& client) {
    for (int i = 0; i < 20; ++i) {
      const std::string key = fmt::format("k{}", i);
      require_ok(client.put(key, key + "'s value"), "a put");
      written[key] = key + "'s value";
    }
    const auto import = client.import();
    for (int i = 0; i < 200; ++i) {
      const std::string key = fmt::format("i{}", i);
      const std::string value(static_cast<size_t>(i * 10), 'v');
      require_ok(import->put(key, value), "an imported put");
      written[key] = value;
    }
    if (const WriteTotals totals = import->finish(); totals.failed > 0) {
      fail(fmt::format("an import: {}", totals.failures[0].reason));
    }
    require_ok(client.erase("k7"), "an erasure");
    written.erase("k7");
    const auto backup =
        client.backup_create({.name = "first", .targets = {}, .dry_run = false}, nullptr);
    require_ok(backup.status(), "a backup");
    if (backup->state != BackupState::kCompleted) fail(backup->reason);
    const auto verified = client.backup_verify("first", nullptr);
    require_ok(verified.status(), "verifying");
    if (!verified->bad.empty() || verified->blocks == 0) fail("the archive does not verify");
    for (int i = 0; i < 10; ++i) require_ok(client.erase(fmt::format("k{}", i)), "an erasure");
    require_completed(client.restore(restore_of("first"), nullptr), "a restore");
  });
  // Erasures are newer than the archive.
  std::map<std::string, std::string> expected = written;
  for (int i = 0; i < 10; ++i) expected.erase(fmt::format("k{}", i));
  if (read_all_of(world, "a") != expected) fail("the cluster does not hold what was written");
  world.with_client("b", [&](ClusterClient& client) {
    require_completed(client.restore(restore_of("first", World::url_of("a")), nullptr),
                      "a restore into another cluster");
  });
  if (read_all_of(world, "b") != written) fail("the other cluster does not hold the archive");
  world.with_client(
      "a", [&](ClusterClient& client) { require_ok(client.backup_delete("first"), "a deletion"); });
  for (Host& host : world.all_hosts()) host.stop();
}

TEST(QuietWorld, WritesBacksUpVerifiesAndRestores) {
  const Result result = run(1, {}, [] { live_quietly(1); });
  EXPECT_TRUE(result.passed()) << result.failure;
  RecordProperty("simulated_ms", static_cast<int>(result.simulated_ns / 1'000'000));
}

void fill_a_disk(uint64_t seed) {
  trace_logs();
  World& world = *new World(seed);
  world.make_cluster("a", {.nodes = 1, .replicas = 1, .slot_bits = 2});
  Disk& disk = world.host("a1").disk();
  const uint64_t capacity = disk.capacity_bytes();
  world.with_client("a", [&](ClusterClient& client) {
    for (int i = 0; i < 20; ++i) {
      require_ok(client.put(fmt::format("k{}", i), std::string(1000, 'v')), "a put");
    }
    disk.set_capacity_bytes(capacity - disk.free_bytes());
    absl::Status status;
    for (int i = 0; i < 1000 && status.ok(); ++i) {
      status = client.put(fmt::format("more{}", i), std::string(1000, 'v'));
    }
    if (status.ok()) fail("a full disk took 1 MB");
    sleep_ms(11'000);
    disk.set_capacity_bytes(capacity);
    const auto takes_writes = [&] { return client.put("again", "v").ok(); };
    if (!wait_until(2'500, takes_writes, 250)) fail("takes no writes though there is room");
    for (int i = 0; i < 20; ++i) {
      require_ok(client.get(fmt::format("k{}", i)).status(), "what was acknowledged");
    }
  });
}

TEST(FullDisk, TakesWritesAgainOnceThereIsRoom) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Result result = run(seed, {}, [seed] { fill_a_disk(seed); });
    EXPECT_TRUE(result.passed()) << seed << ": " << result.failure.substr(0, 300);
  }
}

TEST(QuietWorld, IsTheSameTwice) {
  for (const uint64_t seed : {2, 3, 4}) {
    const Result first = run(seed, {}, [&] { live_quietly(seed); });
    const Result second = run(seed, {}, [&] { live_quietly(seed); });
    EXPECT_TRUE(first.passed()) << first.failure;
    EXPECT_EQ(first.trace_hash, second.trace_hash);
    EXPECT_EQ(first.steps, second.steps);
  }
}

}  // namespace
}  // namespace sluice::simulation
