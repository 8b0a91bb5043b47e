// The store that ships, on a disk that loses its power under it.
#include "dataplane/store/store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "tests/dataplane/store/store_fixture.h"
#include "tests/simulation/disk_store.h"
#include "tests/simulation/mounts.h"
#include "tests/simulation/own_calls.h"
#include "tests/simulation/rocksdb_disk.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kSlots = 16;
constexpr uint64_t kSeeds = 50;

void expect(bool holds, std::string_view what) {
  if (!holds) fail(what);
}

enum class Failure { kPower, kProcess };

// The disk of one node, whose processes end by failures.
class NodeDisk {
 public:
  explicit NodeDisk(uint64_t seed)
      : random_(Random::mix(seed ^ 0x5706)), mount_(mount("n1", disk_)) {
    // Before the first process: one that is killed between making a directory and syncing its name
    // leaves a directory that the next one takes for durable.
    expect(make_folders("/sim/n1/data").ok(), "making the directory");
  }

  Random& random() { return random_; }

  // `serve` runs in a process of its own, until a call on its files that is drawn.
  void run_until(Failure failure, uint64_t most_calls, const std::function<void(Process&)>& serve) {
    Process& node = Process::make("node");
    uint64_t calls = random_.below(most_calls);
    mount_.before = [this, &node, failure, calls](FileCall, std::string_view) mutable {
      if (calls-- > 0) return;
      node.crash();
      if (failure == Failure::kPower) disk_.lose_power(random_);
    };
    node.start("main", [&] { serve(node); });
    while (!node.crashed()) std::this_thread::sleep_for(milliseconds(1));
    mount_.before = nullptr;
  }
  // `look` runs in a process that nothing happens to.
  void run(const std::function<void()>& look) {
    bool done = false;
    Process::make("node").start("main", [&] {
      look();
      done = true;
    });
    while (!done) std::this_thread::sleep_for(milliseconds(1));
  }

 private:
  Disk disk_{1};
  Random random_;
  Mount& mount_;
};

// All records; each slot's digest has to be that of its own.
std::map<std::string, Record> read_store(Store& store) {
  const bool had_failed = testing::Test::HasFailure();  // of what the parent has run
  std::map<std::string, Record> all;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    std::vector<Record> records = read_all(*store.scan(slot));
    expect(digest_of(records) == store.digest(slot), "a digest is not that of the records");
    for (Record& record : records) all[record.key] = std::move(record);
  }
  expect(testing::Test::HasFailure() == had_failed, "a record is not as its summary has it");
  return all;
}

std::map<std::string, Record> read_cut(Store& store) {
  const auto cut = store.open_cut(kBackup);
  if (!cut.ok()) fail(fmt::format("opening the cut: {}", cut.status().ToString()));
  std::map<std::string, Record> all;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    std::vector<Record> records = read_all(*(*cut)->scan(slot));
    expect(digest_of(records) == (*cut)->digests()[slot], "a digest of the cut");
    for (Record& record : records) all[record.key] = std::move(record);
  }
  return all;
}

// At this version, or replaced by a newer one.
void expect_holds(const std::map<std::string, Record>& records, const Record& written,
                  std::string_view where) {
  const auto found = records.find(written.key);
  if (found == records.end()) fail(fmt::format("{} lacks {}", where, written.key));
  const Record& record = found->second;
  if (record.version.stamp < written.version.stamp) {
    fail(fmt::format("{} has an older {}", where, written.key));
  }
  if (record.version == written.version && record.value != written.value) {
    fail(fmt::format("{} has another value of {}", where, written.key));
  }
}

// --- Writes and cuts ---

class WrittenStore {
 public:
  explicit WrittenStore(uint64_t seed) : disk_(seed) {}

  void run_until(Failure failure) {
    ++round_;
    disk_.run_until(failure, 900, [this](Process& node) { serve(node); });
  }
  void check_at_the_end() {
    disk_.run([this] {
      const auto env = make_rocksdb_env();
      const std::unique_ptr<Store> store = open_disk_store(*env);
      check(*store);
    });
  }
  size_t acknowledged() const { return acknowledged_.size(); }
  size_t cuts() const { return cuts_; }

 private:
  struct Written {
    Record record;
    bool after_cut;
  };

  // Ends with its process alone.
  void serve(Process& node) {
    const auto env = make_rocksdb_env();
    const std::unique_ptr<Store> store = open_disk_store(*env);
    check(*store);
    arm_cut(*store);
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([this, &node, &store, i, seed = disk_.random().next()] {
        Random random(seed);
        for (int n = 0; n < 400; ++n) write(node, *store, random, fmt::format("{}-{}", i, n));
      });
    }
    threads.emplace_back([this, &node, &store, seed = disk_.random().next()] {
      Random random(seed);
      for (;;) read(node, *store, fmt::format("hot-{}", random.below(10)));
    });
    for (;;) {
      std::this_thread::sleep_for(milliseconds(10));
      expect(store->take_due_cut().ok(), "taking the cut");
      expect(store->flush_if_idle().ok(), "flushing");
    }
  }

  void arm_cut(Store& store) {
    const uint64_t cut = store.clock().now() + Version::make_stamp(1 + disk_.random().below(30), 0);
    expect(store.arm_cut({std::string(kBackup), cut, 1, false}).ok(), "arming");
    cut_ = cut;
  }

  void write(Process& node, Store& store, Random& random, const std::string& name) {
    const auto stamp = store.clock().stamp();
    expect(stamp.ok(), "a stamp");
    std::string key = random.chance(0.4) ? fmt::format("hot-{}", random.below(10))
                                         : fmt::format("{}-{}", round_, name);
    const size_t bytes = random.chance(0.1) ? random.below(60'000) : random.below(300);
    Record record = make_record(std::move(key), random_bytes(random, bytes), *stamp);
    const RecordView view = record.view();
    const auto results = store.apply({&view, 1});
    expect(results.ok(), "a write");
    if (node.crashed()) return;
    acknowledged_.push_back({std::move(record), results->at(0).after_cut});
  }

  // What somebody has seen stays, acknowledged or not.
  void read(Process& node, Store& store, const std::string& key) {
    auto record = store.get(key);
    expect(record.ok(), "a read");
    if (!node.crashed() && record->has_value()) seen_[key] = **std::move(record);
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }

  void check(Store& store) {
    const auto records = read_store(store);
    for (const Written& written : acknowledged_) expect_holds(records, written.record, "the store");
    for (const auto& [key, record] : seen_) expect_holds(records, record, "a reader's store");
    if (cut_ != 0) check_cut(store);
    // From here on it may be gone.
    cut_ = 0;
    for (Written& written : acknowledged_) written.after_cut = false;
    expect(store.drop_cut(kBackup).ok(), "dropping the cut");
  }

  // It was armed: opening the store has taken it, if it was not taken before.
  void check_cut(Store& store) {
    const auto cuts = store.cuts();
    expect(cuts.size() == 1 && cuts[0].taken && cuts[0].cut == cut_, "the armed cut");
    const auto in_cut = read_cut(store);
    for (const auto& [key, record] : in_cut) {
      expect(record.version.stamp <= cut_, "a record of after the cut is in it");
    }
    for (const Written& written : acknowledged_) {
      if (written.record.version.stamp > cut_ || written.after_cut) continue;
      expect_holds(in_cut, written.record, "the cut");
    }
    ++cuts_;
  }

  NodeDisk disk_;
  int round_ = 0;
  uint64_t cut_ = 0;  // that is armed or taken
  size_t cuts_ = 0;
  std::vector<Written> acknowledged_;
  std::map<std::string, Record> seen_;  // by key: what was read last
};

Result run_written(uint64_t seed, const std::vector<Failure>& failures) {
  return run(seed, Options(), [&] {
    WrittenStore store(seed);
    for (const Failure failure : failures) store.run_until(failure);
    store.check_at_the_end();
    output(fmt::format("{} {}", store.acknowledged(), store.cuts()));
  });
}

void expect_keeps_what_it_acknowledged(const std::vector<Failure>& failures) {
  size_t acknowledged = 0;
  size_t cuts = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Result result = run_written(seed, failures);
    ASSERT_TRUE(result.passed()) << "seed " << seed << ": " << result.failure;
    size_t read = 0;
    acknowledged += std::stoul(result.output, &read);
    cuts += std::stoul(result.output.substr(read));
  }
  // Otherwise this test would have tested nothing.
  EXPECT_GT(acknowledged, 2000u);
  EXPECT_GT(cuts, 20u);
}

TEST(StoreOnDisk, KeepsWhatItAcknowledgedOrGaveOutWhenPowerIsLost) {
  using enum Failure;
  expect_keeps_what_it_acknowledged({kPower, kPower, kPower});
}

TEST(StoreOnDisk, KeepsWhatItAcknowledgedWhenItsProcessIsKilled) {
  using enum Failure;
  expect_keeps_what_it_acknowledged({kProcess, kProcess, kPower});
}

TEST(StoreOnDisk, TheSameSeedIsTheSameRun) {
  using enum Failure;
  for (uint64_t seed = 1; seed <= 15; ++seed) {
    const Result first = run_written(seed, {kPower, kProcess, kPower});
    const Result second = run_written(seed, {kPower, kProcess, kPower});
    ASSERT_TRUE(first.passed()) << first.failure;
    EXPECT_EQ(first.trace_hash, second.trace_hash) << "seed " << seed;
    EXPECT_EQ(first.steps, second.steps) << "seed " << seed;
  }
}

// --- Ingestion ---

using Slots = std::map<uint32_t, std::vector<Record>>;

Slots random_slots(Random& random) {
  Slots slots;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    for (const std::string& key : keys(20, slot)) {
      const size_t bytes = random.chance(0.03) ? random.below(300'000) : random.below(1'000);
      slots[slot].push_back(make_record(key, random_bytes(random, bytes), stamp_at(5)));
    }
  }
  return slots;
}

// Four slots in each ingestion; a slot that was confirmed is added to `confirmed`.
void ingest_all(Store& store, const Slots& slots, Process& node, std::vector<uint32_t>& confirmed) {
  for (uint32_t first = 0; first < kSlots; first += 4) {
    const std::unique_ptr<SlotIngest> ingest = store.begin_ingest();
    for (uint32_t slot = first; slot < first + 4; ++slot) {
      for (const Block& block : pack(slots.at(slot))) expect(ingest->add(block).ok(), "a block");
    }
    expect(ingest->commit().ok(), "an ingestion");
    for (uint32_t slot = first; slot < first + 4 && !node.crashed(); ++slot) {
      confirmed.push_back(slot);
    }
  }
}

// Otherwise the crash of one process could leave all others unable to close theirs.
TEST(StoreOnDisk, SharesNoTimerWithStoresOfOtherProcesses) {
  constexpr std::array kNames = {
      "_ZN7rocksdb21PeriodicTaskScheduler8RegisterENS_16PeriodicTaskTypeERKSt8functionIFvvEE",
      "_ZN7rocksdb21PeriodicTaskScheduler8RegisterENS_16PeriodicTaskTypeERKSt8functionIFvvEEm"};
  expect_own_calls(reinterpret_cast<const void*>(&open_disk_store), kNames);
}

TEST(StoreOnDisk, AnIngestionIsWholeOrAbsent) {
  size_t whole = 0;
  size_t absent = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Result result = run(seed, Options(), [&] {
      NodeDisk disk(seed);
      const Slots slots = random_slots(disk.random());
      std::vector<uint32_t> confirmed;
      disk.run_until(Failure::kPower, 600, [&](Process& node) {
        const auto env = make_rocksdb_env();
        const std::unique_ptr<Store> store = open_disk_store(*env);
        ingest_all(*store, slots, node, confirmed);
        while (std::filesystem::exists("/sim/n1")) {
        }
      });
      disk.run([&] {
        const auto env = make_rocksdb_env();
        const std::unique_ptr<Store> store = open_disk_store(*env);
        read_store(*store);
        std::string found(kSlots, '0');
        for (const auto& [slot, records] : slots) {
          const bool is_here = store->digest(slot) == digest_of(records);
          expect(is_here || store->digest(slot).empty(), "a slot is here in part");
          if (is_here) found[slot] = '1';
        }
        for (const uint32_t slot : confirmed) expect(found[slot] == '1', "a slot is gone");
        output(found);
      });
    });
    ASSERT_TRUE(result.passed()) << "seed " << seed << ": " << result.failure;
    whole += static_cast<size_t>(std::count(result.output.begin(), result.output.end(), '1'));
    absent += static_cast<size_t>(std::count(result.output.begin(), result.output.end(), '0'));
  }
  // Otherwise this test would have tested nothing.
  EXPECT_GT(whole, 50u);
  EXPECT_GT(absent, 50u);
}

}  // namespace
}  // namespace sluice::simulation
