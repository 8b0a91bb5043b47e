// The store that ships, on a disk that loses its power under it.
#include "dataplane/store/store.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "tests/dataplane/store/store_fixture.h"
#include "tests/simulation/mounts.h"
#include "tests/simulation/rocksdb_disk.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

using std::chrono::milliseconds;

void expect(bool holds, std::string_view what) {
  if (!holds) fail(what);
}

// One node's store and the disk that it is on, through failures.
class StoreOnDisk {
 public:
  explicit StoreOnDisk(uint64_t seed)
      : random_(Random::mix(seed ^ 0x5706)), mount_(mount("n1", disk_)) {}

  enum class Failure { kPower, kProcess };
  // Opens the store in a process of its own, checks it, has it written to, and fails it at a call
  // on its files that is drawn.
  void run_until(Failure failure) {
    Process& node = Process::make("node");
    uint64_t calls = random_.below(700);
    mount_.before = [this, &node, failure, calls](FileCall, std::string_view) mutable {
      if (calls-- > 0) return;
      node.crash();
      if (failure == Failure::kPower) disk_.lose_power(random_);
    };
    ++round_;
    node.start("main", [this, &node] { serve(node); });
    while (!node.crashed()) std::this_thread::sleep_for(milliseconds(1));
    mount_.before = nullptr;
  }
  // Opens it once more, checks it, and closes it.
  void check_at_the_end() {
    Process& node = Process::make("node");
    bool done = false;
    node.start("main", [&] {
      const auto env = make_rocksdb_env();
      {
        const std::unique_ptr<Store> store = open(*env);
        check(*store);
      }
      done = true;
    });
    while (!done) std::this_thread::sleep_for(milliseconds(1));
  }
  size_t acknowledged() const { return acknowledged_.size(); }

 private:
  std::unique_ptr<Store> open(rocksdb::Env& env) {
    Store::Options options;
    options.folder = "/sim/n1/data";
    options.cluster = "cluster-uuid";
    options.node = "n1";
    options.node_number = 1;
    options.slot_bits = 4;
    options.memtable_bytes = size_t{1} << 20;
    options.block_cache_bytes = size_t{1} << 20;
    options.env = &env;
    auto store = Store::open(options);
    if (!store.ok()) fail(fmt::format("opening the store: {}", store.status().ToString()));
    return *std::move(store);
  }

  // Ends with its process alone.
  void serve(Process& node) {
    const auto env = make_rocksdb_env();
    const std::unique_ptr<Store> store = open(*env);
    check(*store);
    std::vector<std::thread> writers;
    for (int i = 0; i < 3; ++i) {
      writers.emplace_back([this, &node, &store, i, seed = random_.next()] {
        Random random(seed);
        for (int n = 0; n < 500; ++n) write(node, *store, random, fmt::format("{}-{}", i, n));
      });
    }
    for (std::thread& writer : writers) writer.join();
    for (;;) std::this_thread::sleep_for(milliseconds(100));
  }

  void write(Process& node, Store& store, Random& random, const std::string& name) {
    const auto stamp = store.clock().stamp();
    expect(stamp.ok(), "a stamp");
    std::string key = random.chance(0.5) ? fmt::format("hot-{}", random.below(10))
                                         : fmt::format("{}-{}", round_, name);
    const size_t bytes = random.chance(0.1) ? random.below(60'000) : random.below(300);
    Record record = make_record(std::move(key), random_bytes(random, bytes), *stamp);
    const RecordView view = record.view();
    const auto results = store.apply({&view, 1});
    expect(results.ok(), "a write");
    if (node.crashed()) return;
    Record& newest = acknowledged_[record.key];
    if (record.version.stamp > newest.version.stamp) newest = std::move(record);
  }

  // Each key as it was acknowledged last, or as a later write has it that was not.
  void check(Store& store) {
    for (uint32_t slot = 0; slot < 16; ++slot) {
      const std::vector<Record> records = read_all(*store.scan(slot));
      expect(digest_of(records) == store.digest(slot), "a digest is not that of its records");
    }
    for (const auto& [key, record] : acknowledged_) {
      const auto found = store.get(key);
      expect(found.ok() && found->has_value(), "an acknowledged record is gone: " + key);
      const Version& version = (*found)->version;
      expect(version.stamp >= record.version.stamp, "an acknowledged record is older: " + key);
      expect(version.stamp > record.version.stamp || (*found)->value == record.value,
             "an acknowledged record has another value: " + key);
    }
    expect(testing::Test::HasFailure() == had_failed_, "see above");
  }

  const bool had_failed_ = testing::Test::HasFailure();
  Random random_;
  Disk disk_{1};
  Mount& mount_;
  int round_ = 0;
  std::map<std::string, Record> acknowledged_;
};

Result run_store(uint64_t seed, const std::vector<StoreOnDisk::Failure>& failures) {
  return run(seed, Options(), [&] {
    StoreOnDisk store(seed);
    for (const StoreOnDisk::Failure failure : failures) store.run_until(failure);
    store.check_at_the_end();
    output(std::to_string(store.acknowledged()));
  });
}

void expect_keeps_what_it_acknowledged(const std::vector<StoreOnDisk::Failure>& failures) {
  const uint64_t fresh = entropy();
  size_t acknowledged = 0;
  for (uint64_t i = 0; i < 40; ++i) {
    const uint64_t seed = i < 20 ? i : fresh + i;
    const Result result = run_store(seed, failures);
    ASSERT_TRUE(result.passed()) << "seed " << seed << ": " << result.failure;
    acknowledged += std::stoul(result.output);
  }
  EXPECT_GT(acknowledged, 1000u);
}

TEST(StoreOnDisk, KeepsWhatItAcknowledgedWhenPowerIsLost) {
  using enum StoreOnDisk::Failure;
  expect_keeps_what_it_acknowledged({kPower, kPower, kPower});
}

TEST(StoreOnDisk, KeepsWhatItAcknowledgedWhenItsProcessIsKilled) {
  using enum StoreOnDisk::Failure;
  expect_keeps_what_it_acknowledged({kProcess, kProcess, kPower});
}

TEST(StoreOnDisk, TheSameSeedIsTheSameRun) {
  using enum StoreOnDisk::Failure;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Result first = run_store(seed, {kPower, kProcess, kPower});
    const Result second = run_store(seed, {kPower, kProcess, kPower});
    ASSERT_TRUE(first.passed()) << first.failure;
    EXPECT_EQ(first.trace_hash, second.trace_hash) << "seed " << seed;
    EXPECT_EQ(first.steps, second.steps) << "seed " << seed;
  }
}

}  // namespace
}  // namespace sluice::simulation
