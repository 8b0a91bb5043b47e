#include "dataplane/pipeline/send_to_targets.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/random.h"
#include "base/status.h"
#include "tests/dataplane/pipeline/cluster.h"

namespace sluice {
namespace {

constexpr size_t kNodes = 7;

void fill(Cluster& cluster, int records, size_t value_bytes) {
  Random random(7);
  std::vector<Record> all;
  for (int i = 0; i < records; ++i) {
    all.push_back(
        make_record(fmt::format("key-{}", i), random_value(random, value_bytes), i % 900));
  }
  cluster.put_all(all);
  cluster.cut();
}

struct Sending {
  explicit Sending(size_t most) : most_(most) {
    ClusterOptions options;
    options.nodes = kNodes;
    options.replicas = kNodes;  // every node is a source of every target
    options.slot_bits = 8;
    cluster = std::make_unique<Cluster>(options);
    fill(*cluster, 1000, 5000);
    std::vector<size_t> all;
    for (size_t i = 0; i < kNodes; ++i) all.push_back(i);
    backup = std::make_unique<Backup>(*cluster, all);
    for (Backup::Target& target : backup->targets) {
      target.options.agreed_streams = most;
      target.options.sync_ms = 5;
    }
  }

  std::vector<TargetCopies> copies_of(size_t source) const {
    std::vector<TargetCopies> copies;
    for (const Backup::Target& target : backup->targets) {
      if (target.agreed[source].empty()) continue;
      copies.push_back({cluster->node(target.node).name, target.agreed[source]});
    }
    return copies;
  }

  SendToTargetsOptions options() {
    SendToTargetsOptions options;
    options.each.job = kBackup;
    options.each.attempt = backup->attempt;
    options.each.slot_bits = cluster->options.slot_bits;
    options.targets_at_a_time = most_;
    options.address_of = [this](const std::string& name) -> absl::StatusOr<std::string> {
      for (const auto& node : cluster->nodes) {
        if (node->name == name) return node->exchange->address();
      }
      return not_found("no node {}", name);
    };
    options.on_crowded = [this](const std::string&, const absl::Status&) { ++crowded; };
    return options;
  }

  const size_t most_;
  std::unique_ptr<Cluster> cluster;
  std::unique_ptr<Backup> backup;
  std::atomic<int> crowded{0};
  Cancellation cancellation;
};

// All sources begin with the same target, so that most of them are turned away at first.
TEST(SendToTargets, MoreSourcesAndTargetsThanThereAreStreams) {
  Sending sending(2);
  sending.backup->start();
  std::atomic<bool> over{false};
  size_t most_streams = 0;
  std::thread watch([&] {
    while (!over) {
      for (const auto& node : sending.cluster->nodes) {
        most_streams = std::max(most_streams, node->exchange->streams());
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  std::vector<absl::Status> statuses(kNodes);
  std::vector<std::thread> sources;
  for (size_t i = 0; i < kNodes; ++i) {
    sources.emplace_back([&, i] {
      statuses[i] = send_to_targets(*sending.cluster->node(i).exchange, *sending.backup->cuts[i],
                                    sending.copies_of(i), sending.options(), sending.cancellation);
    });
  }
  for (std::thread& source : sources) source.join();
  over = true;
  watch.join();
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
  sending.backup->commit();
  EXPECT_GT(sending.crowded, 0) << "no target was short of streams";
  EXPECT_GT(most_streams, 2u);
  // Two in, two out, both ends of one to itself, and one that is being closed in each direction.
  EXPECT_LE(most_streams, 7u);
}

TEST(SendToTargets, ATargetThatComesLateUnderAnotherAddressIsFound) {
  Sending sending(4);
  std::mutex mutex;
  std::map<std::string, int> asked;
  std::thread starts_late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    sending.backup->start();
  });
  SendToTargetsOptions options = sending.options();
  options.address_of = [&, plain = options.address_of](const std::string& name) {
    {
      const std::lock_guard lock(mutex);
      // Nobody listens there.
      if (++asked[name] == 1) return absl::StatusOr<std::string>("127.0.0.1:1");
    }
    return plain(name);
  };
  options.each.give_up_ms = 50;
  std::vector<absl::Status> statuses(kNodes);
  std::vector<std::thread> sources;
  for (size_t i = 0; i < kNodes; ++i) {
    sources.emplace_back([&, i] {
      statuses[i] = send_to_targets(*sending.cluster->node(i).exchange, *sending.backup->cuts[i],
                                    sending.copies_of(i), options, sending.cancellation);
    });
  }
  for (std::thread& source : sources) source.join();
  starts_late.join();
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
  sending.backup->commit();
  EXPECT_EQ(asked.size(), kNodes);
}

TEST(SendToTargets, GivesUpOnATargetThatStaysAwayAndEndsSoonWhenCancelled) {
  Sending sending(4);
  SendToTargetsOptions options = sending.options();
  options.address_of = [](const std::string&) -> absl::StatusOr<std::string> {
    return "127.0.0.1:1";
  };
  options.each.give_up_ms = 20;
  options.give_up_ms = 200;
  const auto send = [&] {
    return send_to_targets(*sending.cluster->node(0).exchange, *sending.backup->cuts[0],
                           sending.copies_of(0), options, sending.cancellation);
  };
  EXPECT_TRUE(absl::IsUnavailable(send()));
  options.give_up_ms = 3'600'000;
  std::thread cancels([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    sending.cancellation.cancel();
  });
  EXPECT_TRUE(absl::IsCancelled(send()));
  cancels.join();
}

// One target at a time: what the second one waits while the first is slow is not its fault.
TEST(SendToTargets, PatienceWithATargetBeginsWithItsTurn) {
  Sending sending(1);
  for (Backup::Target& target : sending.backup->targets) target.options.agreed_streams = kNodes;
  sending.backup->start();
  SendToTargetsOptions options = sending.options();
  const std::string slow = sending.cluster->node(sending.backup->targets[0].node).name;
  std::map<std::string, int> asked;
  options.address_of = [&, plain = options.address_of](const std::string& name) {
    if (++asked[name] == 1 && name != slow) return absl::StatusOr<std::string>("127.0.0.1:1");
    return plain(name);
  };
  options.each.give_up_ms = 20;
  options.give_up_ms = 400;
  std::atomic<bool> slept{false};
  options.each.on_slot_durable = [&](uint32_t) {
    if (!slept.exchange(true)) std::this_thread::sleep_for(std::chrono::milliseconds(700));
  };
  const absl::Status status =
      send_to_targets(*sending.cluster->node(0).exchange, *sending.backup->cuts[0],
                      sending.copies_of(0), options, sending.cancellation);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(slept);
}

TEST(SendToTargets, AnErrorThatNoTryMendsEndsAllOfIt) {
  Sending sending(4);
  SendToTargetsOptions options = sending.options();
  options.address_of = [](const std::string& name) -> absl::StatusOr<std::string> {
    return not_found("target {} is no member any more", name);
  };
  EXPECT_TRUE(
      absl::IsNotFound(send_to_targets(*sending.cluster->node(0).exchange, *sending.backup->cuts[0],
                                       sending.copies_of(0), options, sending.cancellation)));
}

}  // namespace
}  // namespace sluice
