// A process that is killed at random moments of ingestions and of batches of records: what was
// confirmed is there, and each slot of an ingestion and each batch is there as a whole or not at
// all.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <set>
#include <thread>

#include "base/file.h"
#include "dataplane/store/store.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

constexpr const char* kIngestFolder = "SLUICE_TEST_INGEST_FOLDER";
constexpr const char* kIngestPipe = "SLUICE_TEST_INGEST_PIPE";
constexpr const char* kIngestRound = "SLUICE_TEST_INGEST_ROUND";
constexpr int kKills = 200;
constexpr int kRoundsOfFolder = 20;

// One ingestion or batch: its records are a function of it.
struct Lot {
  enum Kind : uint32_t { kIngestion = 1, kBatch = 2 };
  uint32_t kind = 0;
  uint32_t round = 0;
  uint32_t number = 0;
  friend auto operator<=>(const Lot&, const Lot&) = default;

  std::string prefix() const {
    return fmt::format("{}-{:04}-{:06}/", kind == kIngestion ? "lot" : "batch", round, number);
  }
  std::vector<Record> records() const {
    const std::string begin = prefix();
    Random random(xxh3_64(begin));
    std::vector<Record> records;
    const size_t count = 20 + random.below(60);
    for (size_t i = 0; i < count; ++i) {
      const bool large = kind == kIngestion && random.chance(0.02);
      const size_t bytes = large ? 100'000 + random.below(1'500'000) : random.below(2'000);
      records.push_back(make_record(fmt::format("{}{:03}", begin, i), random_bytes(random, bytes),
                                    stamp_at(1 + round, static_cast<uint16_t>(number))));
    }
    return records;
  }
};

Store::Options ingesting_options(const std::string& folder) {
  Store::Options options;
  options.folder = folder;
  options.cluster = "c";
  options.node = "n";
  options.slot_bits = 4;
  options.memtable_bytes = size_t{4} << 20;
  options.block_cache_bytes = size_t{4} << 20;
  return options;
}

void report(int pipe, const Lot& lot) {
  if (::write(pipe, &lot, sizeof(lot)) != sizeof(lot)) std::abort();
}

void ingest_lots(Store& store, int pipe, uint32_t round) {
  for (uint32_t number = 0;; ++number) {
    const Lot lot{Lot::kIngestion, round, number};
    std::map<uint32_t, std::vector<Record>> slots;
    for (Record& record : lot.records()) slots[slot_of(record.key, 4)].push_back(std::move(record));
    const std::unique_ptr<SlotIngest> ingest = store.begin_ingest();
    for (const auto& [slot, records] : slots) {
      for (const Block& block : pack(records)) {
        if (!ingest->add(block).ok()) std::abort();
      }
    }
    if (!ingest->commit().ok()) std::abort();
    report(pipe, lot);
  }
}

void apply_batches(Store& store, int pipe, uint32_t round) {
  for (uint32_t number = 0;; ++number) {
    const Lot lot{Lot::kBatch, round, number};
    const std::vector<Record> records = lot.records();
    std::vector<RecordView> views;
    for (const Record& record : records) views.push_back(record.view());
    if (!store.apply(views).ok()) std::abort();
    report(pipe, lot);
  }
}

// Run only as the child of the test below, until it is killed.
TEST(IngestKillChild, DISABLED_Run) {
  const char* folder = std::getenv(kIngestFolder);
  if (folder == nullptr) GTEST_SKIP() << "this is the child of IngestKill, not a test of its own";
  const int pipe = std::atoi(std::getenv(kIngestPipe));
  const auto round = static_cast<uint32_t>(std::atoi(std::getenv(kIngestRound)));
  auto store = Store::open(ingesting_options(folder));
  ASSERT_TRUE(store.ok()) << store.status();
  std::thread ingesting([&] { ingest_lots(**store, pipe, round); });
  apply_batches(**store, pipe, round);
  ingesting.join();
}

// What the child confirmed before it was killed: up to `after_us` after it had confirmed something,
// and so many ingestions.
std::vector<Lot> run_child_and_kill_it(const std::string& folder, int round, uint64_t ingestions,
                                       uint64_t after_us) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  const UniqueFd from(ends[0]);
  UniqueFd into(ends[1]);
  ::setenv(kIngestFolder, folder.c_str(), 1);
  ::setenv(kIngestPipe, std::to_string(into.get()).c_str(), 1);
  ::setenv(kIngestRound, std::to_string(round).c_str(), 1);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("/proc/self/exe", "child", "--gtest_filter=IngestKillChild.DISABLED_Run",
            "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
    ::_exit(127);
  }
  into.reset();
  std::vector<Lot> all;
  Lot lot;
  uint64_t ingested = 0;
  std::thread killer;
  while (::read(from.get(), &lot, sizeof(lot)) == sizeof(lot)) {
    all.push_back(lot);
    ingested += lot.kind == Lot::kIngestion;
    if (killer.joinable() || ingested < ingestions) continue;
    killer = std::thread([child, after_us] {
      ::usleep(static_cast<useconds_t>(after_us));
      ::kill(child, SIGKILL);
    });
  }
  if (killer.joinable()) killer.join();
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
      << "the child ended by itself: " << status;
  return all;
}

// The records of the store by what wrote them.
std::map<std::string, std::vector<Record>> read_store(Store& store) {
  std::map<std::string, std::vector<Record>> found;
  for (uint32_t slot = 0; slot < 16; ++slot) {
    const std::vector<Record> records = read_all(*store.scan(slot));
    EXPECT_EQ(digest_of(records), store.digest(slot)) << "slot " << slot;
    for (const Record& record : records) {
      found[record.key.substr(0, record.key.find('/') + 1)].push_back(record);
    }
  }
  return found;
}

Lot lot_of(const std::string& prefix) {
  Lot lot;
  lot.kind = prefix.starts_with("lot") ? Lot::kIngestion : Lot::kBatch;
  const size_t dash = prefix.find('-');
  lot.round = static_cast<uint32_t>(std::atoi(prefix.c_str() + dash + 1));
  lot.number = static_cast<uint32_t>(std::atoi(prefix.c_str() + prefix.find('-', dash + 1) + 1));
  return lot;
}

void expect_whole(const Lot& lot, const std::vector<Record>& here, bool confirmed) {
  std::map<std::string, const Record*> by_key;
  for (const Record& record : here) by_key[record.key] = &record;
  struct Count {
    size_t due = 0;
    size_t here = 0;
  };
  std::map<uint32_t, Count> parts;  // that are there together: slots, or all of a batch
  for (const Record& record : lot.records()) {
    Count& part = parts[lot.kind == Lot::kIngestion ? slot_of(record.key, 4) : 0];
    ++part.due;
    const auto found = by_key.find(record.key);
    if (found == by_key.end()) continue;
    ++part.here;
    ASSERT_TRUE(found->second->value == record.value) << record.key;
  }
  for (const auto& [slot, part] : parts) {
    ASSERT_TRUE(part.here == part.due || (part.here == 0 && !confirmed))
        << lot.prefix() << ": " << part.here << " of " << part.due << " records of part " << slot;
  }
}

TEST(IngestKill, NothingConfirmedIsLostAndNothingIsThereInPart) {
  const uint64_t seed = entropy();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  Random random(seed);
  size_t confirmed_lots = 0;
  size_t unconfirmed = 0;
  for (int round = 0; round < kKills;) {
    const TempFolder folder;
    std::set<Lot> confirmed;
    for (int i = 0; i < kRoundsOfFolder && round < kKills; ++i, ++round) {
      const uint64_t ingestions = random.below(2);
      const uint64_t after_us = random.below(40'000);
      for (const Lot& lot : run_child_and_kill_it(folder.path(), round, ingestions, after_us)) {
        confirmed.insert(lot);
        confirmed_lots += lot.kind == Lot::kIngestion;
      }
      auto store = Store::open(ingesting_options(folder.path()));
      ASSERT_TRUE(store.ok()) << store.status();
      if (i % 5 != 4 && i + 1 < kRoundsOfFolder) continue;  // read now and then: it grows
      const auto found = read_store(**store);
      for (const Lot& lot : confirmed) {
        ASSERT_TRUE(found.contains(lot.prefix())) << lot.prefix() << " was confirmed and is gone";
      }
      for (const auto& [prefix, here] : found) {
        const Lot lot = lot_of(prefix);
        unconfirmed += !confirmed.contains(lot);
        expect_whole(lot, here, confirmed.contains(lot));
      }
    }
  }
  // Otherwise the kills hit nothing.
  EXPECT_GT(confirmed_lots, 20u);
  EXPECT_GT(unconfirmed, 0u);
}

}  // namespace
}  // namespace sluice
