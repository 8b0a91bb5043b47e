// Restores into clusters that are not like the one backed up: other slot_bits, a prefix, live
// records, dead nodes, moving tables, damaged archives.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/status.h"
#include "dataplane/pipeline/restore_ledger.h"
#include "dataplane/pipeline/restore_try.h"
#include "tests/dataplane/pipeline/cluster.h"

namespace sluice {
namespace {

constexpr char kOther[] = "bbbbbbbb-2222-4333-8444-555555555555";

// One backup, made once for all tests of this file: 500 records, tombstones, and values in
// fragments.
class RestoreTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    source = std::make_unique<Cluster>(ClusterOptions{});
    Random random(21);
    std::vector<Record> records;
    for (int i = 0; i < 500; ++i) {
      const std::string key = fmt::format("{}/{:05}", i % 3 == 0 ? "photos" : "mail", i);
      if (i % 11 == 0) {
        records.push_back(make_tombstone(key, -i));
      } else {
        const size_t bytes =
            i % 125 == 1 ? (size_t{3} << 20) + static_cast<size_t>(i) : random.below(4000);
        records.push_back(make_record(key, random_value(random, bytes), -i));
      }
    }
    source->put_all(records);
    source->cut();
    backup = std::make_unique<Backup>(*source, std::vector<size_t>{0, 1});
    backup->start();
    ASSERT_TRUE(backup->send().ok());
    backup->commit();
  }
  static void TearDownTestSuite() {
    backup.reset();
    source.reset();
  }

  static ClusterOptions other(uint32_t slot_bits) {
    ClusterOptions options;
    options.slot_bits = slot_bits;
    options.cluster = kOther;
    return options;
  }
  static std::unique_ptr<ArchiveReader> open() {
    absl::StatusOr<std::unique_ptr<ArchiveReader>> archive = ArchiveReader::open(backup->folders());
    EXPECT_TRUE(archive.ok()) << archive.status();
    return *std::move(archive);
  }
  static RestoreOptions options_for(const char* id) {
    RestoreOptions options;
    options.id = id;
    options.cluster = kOther;
    options.backoff_ms = 5;
    return options;
  }
  static absl::StatusOr<RestoreResult> run(Cluster& into, const RestoreOptions& options) {
    const std::unique_ptr<ArchiveReader> archive = open();
    return restore(*into.node(0).exchange, *archive, into.node(0).router, options);
  }
  static void expect_holds(Cluster& into, const std::map<std::string, Record>& expected) {
    for (size_t i = 0; i < into.size(); ++i) {
      const std::map<std::string, Record> here = contents(*into.node(i).store);
      size_t due = 0;
      for (const auto& [key, record] : expected) {
        const std::vector<size_t> holders = into.holders(slot_of(key, into.options.slot_bits));
        if (std::find(holders.begin(), holders.end(), i) == holders.end()) continue;
        ++due;
        const auto found = here.find(key);
        ASSERT_NE(found, here.end()) << key;
        EXPECT_EQ(found->second.view().summary(), record.view().summary()) << key;
      }
      EXPECT_EQ(here.size(), due) << into.node(i).name;
    }
  }
  static void expect_digests(Cluster& into, RestoreResult& result) {
    for (uint32_t slot = 0; slot < into.slots(); ++slot) {
      for (const size_t i : into.holders(slot)) {
        EXPECT_EQ(into.node(i).store->digest(slot), result.expected[slot]) << "slot " << slot;
      }
    }
  }

  static std::unique_ptr<Cluster> source;
  static std::unique_ptr<Backup> backup;
};

std::unique_ptr<Cluster> RestoreTest::source;
std::unique_ptr<Backup> RestoreTest::backup;

TEST_F(RestoreTest, IntoClustersOfOtherSlotBits) {
  for (const uint32_t bits : {2u, 7u}) {
    SCOPED_TRACE(bits);
    Cluster into(other(bits));
    into.serve_writes();
    absl::StatusOr<RestoreResult> result = run(into, options_for("r"));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_THAT(result->failed, ::testing::IsEmpty());
    EXPECT_EQ(result->records, backup->manifest.records());
    EXPECT_EQ(result->bytes, backup->manifest.bytes());
    EXPECT_EQ(result->written, result->records);
    EXPECT_EQ(result->newest_stamp, backup->manifest.newest_stamp);
    expect_holds(into, source->newest());
    expect_digests(into, *result);
  }
}

// Keys that take megabytes once they are whole make a block too large to be kept for the lot's end;
// the value that begins in it goes on in blocks that are kept.
TEST(RestoreOfLongKeys, AValueIsWrittenWhereItsFirstBlockWasNotKept) {
  ClusterOptions options;
  options.slot_bits = 1;
  Cluster from(options);
  const std::string prefix(3'900, 'p');
  std::vector<Record> records;
  for (int i = 0; i < 6'000; ++i) {
    records.push_back(make_record(fmt::format("{}{:06}", prefix, i), "v", -1));
  }
  Random random(22);
  for (int i = 0; i < 6; ++i) {  // some of them in each slot
    records.push_back(
        make_record(fmt::format("{}z{}", prefix, i), random_value(random, size_t{3} << 20), -1));
  }
  from.put_all(records);
  from.cut();
  Backup backup(from, {0});
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  backup.commit();

  ClusterOptions target = options;
  target.cluster = kOther;
  Cluster into(target);
  into.serve_writes();
  const auto archive = ArchiveReader::open(backup.folders());
  ASSERT_TRUE(archive.ok()) << archive.status();
  RestoreOptions restoring;
  restoring.id = "r";
  restoring.cluster = kOther;
  restoring.backoff_ms = 5;
  auto result = restore(*into.node(0).exchange, **archive, into.node(0).router, restoring);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->failed, ::testing::IsEmpty());
  for (size_t i = 0; i < into.size(); ++i) {
    const std::map<std::string, Record> here = contents(*into.node(i).store);
    for (const Record& record : records) {
      const auto holders = into.holders(slot_of(record.key, options.slot_bits));
      if (std::find(holders.begin(), holders.end(), i) == holders.end()) continue;
      const auto found = here.find(record.key);
      ASSERT_NE(found, here.end()) << record.key.substr(prefix.size()) << " on node " << i;
      EXPECT_TRUE(found->second.value == record.value) << record.key.substr(prefix.size());
    }
  }
}

TEST(UnitTry, AReplicaWithTheBlocksInTwoPlacesHasNotTheUnit) {
  const SlotRoute route{1, {{"n1", "a"}, {"n2", "b"}}};
  const auto answer = [](uint64_t keeping) {
    WriteReply reply;
    reply.holders = {{"n1", "s1", 5}, {"n2", "s2", keeping}};
    return absl::StatusOr<WriteReply>(reply);
  };
  for (const auto& [first, second] : {std::pair(0, 7), std::pair(7, 8), std::pair(7, 0)}) {
    UnitTry unit;
    auto one = answer(static_cast<uint64_t>(first));
    auto two = answer(static_cast<uint64_t>(second));
    EXPECT_FALSE(unit.take_reply(route, one, 3, {}).has_value());
    const auto failure = unit.take_reply(route, two, 3, {});
    ASSERT_TRUE(failure.has_value()) << first << " " << second;
    EXPECT_EQ(failure->node, "n2");
    EXPECT_FALSE(failure->permanent);
  }
  UnitTry unit;
  auto one = answer(7);
  auto two = answer(7);
  EXPECT_FALSE(unit.take_reply(route, one, 3, {}).has_value());
  EXPECT_FALSE(unit.take_reply(route, two, 3, {}).has_value());
}

TEST_F(RestoreTest, OnlyAPrefix) {
  Cluster into(other(4));
  into.serve_writes();
  RestoreOptions options = options_for("r");
  options.mapping.prefix = "photos/";
  absl::StatusOr<RestoreResult> result = run(into, options);
  ASSERT_TRUE(result.ok()) << result.status();
  std::map<std::string, Record> expected;
  uint64_t live = 0;
  for (const auto& [key, record] : source->newest()) {
    if (!key.starts_with("photos/")) continue;
    expected[key] = record;
    live += !record.tombstone;
  }
  EXPECT_EQ(result->records, live);
  EXPECT_EQ(result->written, live);
  expect_holds(into, expected);
  expect_digests(into, *result);
}

TEST_F(RestoreTest, NewerRecordsOfALiveClusterStayAndRepeatsChangeNothing) {
  Cluster into(other(4));
  into.serve_writes();
  into.put(make_record("mail/00001", "newer than the archive", 10));
  into.put(make_record("unrelated", "stays", -5));
  absl::StatusOr<RestoreResult> result = run(into, options_for("r"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->kept.newer, 1);
  std::map<std::string, Record> expected = source->newest();
  for (const auto& [key, record] : into.newest()) expected[key] = record;
  expect_holds(into, expected);

  absl::StatusOr<RestoreResult> again = run(into, options_for("again"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->written, again->records);
  EXPECT_EQ(again->kept.newer, result->kept.newer);  // what is equal is not newer
  expect_holds(into, expected);
}

// What a restore that undoes leaves of some records.
std::map<std::string, Record> restamped(std::map<std::string, Record> records,
                                        const RestoreMapping& mapping) {
  std::map<std::string, Record> restored;
  for (auto& [key, record] : records) {
    if (!mapping.takes(key)) continue;
    if (!record.tombstone) record.version = mapping.restamp;
    EXPECT_TRUE(mapping.name(key, &record.key).ok());
    restored[record.key] = record;
  }
  return restored;
}

TEST_F(RestoreTest, RestampedRecordsWinOverOlderWritesAndLoseAgainstNewerOnes) {
  for (const uint32_t bits : {4u, 6u}) {
    SCOPED_TRACE(bits);
    Cluster into(other(bits));
    into.serve_writes();
    into.put(make_record("mail/00001", "a mistake", 10));
    into.put(make_tombstone("mail/00002", 11));
    into.put(make_record("mail/00004", "written after the restore began", 30));
    into.put(make_record("unrelated", "stays", 10));
    RestoreOptions options = options_for("r");
    options.mapping.restamp = {stamp_at(20), 5};
    std::map<std::string, Record> expected = restamped(source->newest(), options.mapping);
    expected["mail/00004"] = into.newest().at("mail/00004");
    expected["unrelated"] = into.newest().at("unrelated");
    for (const bool again : {false, true}) {
      const auto result = run(into, options);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_THAT(result->failed, ::testing::IsEmpty());
      EXPECT_EQ(result->written, result->records);
      EXPECT_EQ(result->kept, (KeptRecords{1, 0, again ? 0u : 2u}));
      expect_holds(into, expected);
    }
  }
}

TEST_F(RestoreTest, UnderAnotherName) {
  Cluster into(other(5));
  into.serve_writes();
  RestoreOptions options = options_for("r");
  options.mapping.prefix = "photos/";
  options.mapping.renames = true;
  options.mapping.renamed = "copies of photos/";
  absl::StatusOr<RestoreResult> result = run(into, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->failed, ::testing::IsEmpty());
  std::map<std::string, Record> expected;
  for (auto [key, record] : source->newest()) {
    if (!key.starts_with("photos/")) continue;
    record.key = "copies of " + key;
    expected[record.key] = record;
  }
  expect_holds(into, expected);
  expect_digests(into, *result);
}

// Slots with the same replicas go out in the same requests.
TEST(RestoreRequestsTest, BlocksOfSmallSlotsGoTogether) {
  ClusterOptions options;
  options.slot_bits = 9;
  Cluster source(options);
  Random random(5);
  std::vector<Record> records;
  for (int i = 0; i < 3000; ++i) {
    records.push_back(make_record(fmt::format("key-{:05}", i), random_value(random, 300), -i));
  }
  source.put_all(records);
  source.cut();
  Backup backup(source, {0, 1});
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  backup.commit();

  options.cluster = kOther;
  Cluster into(options);
  into.serve_writes();
  Record newer = records[7];
  newer.version.stamp = stamp_at(10);
  newer.value = "newer";
  into.put(newer);
  const auto archive = ArchiveReader::open(backup.folders());
  ASSERT_TRUE(archive.ok()) << archive.status();
  RestoreOptions restoring;
  restoring.id = "r";
  restoring.cluster = kOther;
  const auto result = restore(*into.node(0).exchange, **archive, into.node(0).router, restoring);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->written, records.size());
  EXPECT_EQ(result->retried, 0u);
  EXPECT_EQ(result->kept.newer, 1u);
  uint64_t requests = 0;
  for (const auto& node : into.nodes) requests += node->writes->counters().requests;
  EXPECT_GE(requests, 3u);
  EXPECT_LE(requests, 24u);  // for 512 slots, three sets of replicas and two parts
  std::map<std::string, Record> expected = source.newest();
  expected[newer.key] = newer;
  for (size_t i = 0; i < into.size(); ++i) {
    for (const auto& [key, record] : contents(*into.node(i).store)) {
      EXPECT_EQ(record.view().summary(), expected.at(key).view().summary()) << key;
    }
  }
  for (uint32_t slot = 0; slot < into.slots(); ++slot) {
    const std::vector<size_t> holders = into.holders(slot);
    EXPECT_EQ(into.node(holders[0]).store->digest(slot), into.node(holders[1]).store->digest(slot));
  }
}

TEST_F(RestoreTest, WhatADeadNodeMissesIsListedNamedAndCanBeDrivenAgain) {
  Cluster into(other(4));
  into.serve_writes();
  const auto node = into.node(2).exchange->address();
  into.node(2).writes.reset();  // it is reachable, but serves no writes
  RestoreOptions options = options_for("r");
  options.tries = 2;
  absl::StatusOr<RestoreResult> result = run(into, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->failed.empty());
  EXPECT_GT(result->retried, 0);
  EXPECT_LT(result->written, result->records);
  EXPECT_EQ(result->written + result->failed_records, result->records);
  for (const RestoreUnit& unit : result->failed) {
    EXPECT_EQ(unit.node, "n3");
    EXPECT_THAT(unit.reason, ::testing::HasSubstr("does not serve"));
    const std::vector<size_t> holders = into.holders(unit.slot);
    EXPECT_NE(std::find(holders.begin(), holders.end(), 2), holders.end());
  }

  WriteServer::Options server;
  server.node = "n3";
  into.node(2).writes =
      *WriteServer::start(*into.node(2).exchange, *into.node(2).store, into.node(2).router, server);
  RestoreOptions only = options_for("r");
  only.only = result->failed;
  absl::StatusOr<RestoreResult> rest = run(into, only);
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_THAT(rest->failed, ::testing::IsEmpty());
  EXPECT_EQ(result->written + rest->written, result->records);
  expect_holds(into, source->newest());
}

// A block of the archive goes to many slots of such a cluster: one dead replica must not keep the
// others' records back.
TEST_F(RestoreTest, ADeadNodeOfAClusterOfOtherSlotBitsCostsOnlyItsOwnSlots) {
  Cluster into(other(7));
  into.serve_writes();
  into.node(2).writes.reset();
  RestoreOptions options = options_for("r");
  options.tries = 2;
  absl::StatusOr<RestoreResult> result = run(into, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->failed.empty());
  std::map<std::string, Record> healthy;
  for (const auto& [key, record] : source->newest()) {
    const std::vector<size_t> holders = into.holders(slot_of(key, 7));
    if (std::find(holders.begin(), holders.end(), 2) == holders.end()) healthy[key] = record;
  }
  ASSERT_FALSE(healthy.empty());
  const std::map<std::string, Record> first = contents(*into.node(0).store);
  const std::map<std::string, Record> second = contents(*into.node(1).store);
  for (const auto& [key, record] : healthy) {
    EXPECT_TRUE(first.contains(key) || second.contains(key)) << key;
  }
}

TEST_F(RestoreTest, AStaleEpochIsRefusedAndTriedAgainWithTheNewOne) {
  Cluster into(other(4));
  for (auto& node : into.nodes) node->router.current = 7;
  into.node(0).router.nodes = into.node(1).router.nodes;
  into.serve_writes();
  TestRouter client;
  client.replicas = 2;
  client.nodes = into.node(0).router.nodes;
  client.current = 6;
  client.refreshed_to = 7;
  const std::unique_ptr<ArchiveReader> archive = open();
  absl::StatusOr<RestoreResult> result =
      restore(*into.node(0).exchange, *archive, client, options_for("r"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->failed, ::testing::IsEmpty());
  EXPECT_GT(client.refreshes, 0);
  EXPECT_GT(result->retried, 0);
  // Whichever node is asked first says so; the others may see the new epoch only.
  EXPECT_GT(into.node(0).writes->counters().refused + into.node(1).writes->counters().refused, 0);
  expect_holds(into, source->newest());
}

TEST_F(RestoreTest, CompletedSlotsAreNotSentAgain) {
  Cluster into(other(4));
  into.serve_writes();
  std::set<uint32_t> completed;
  Cancellation cancellation;
  RestoreOptions options = options_for("r");
  options.requests = 1;
  options.lot_share_bytes = 1;  // the smallest lots
  options.cancellation = &cancellation;
  options.on_slot_complete = [&](const RestoredSlot& slot) {
    completed.insert(slot.slot);
    std::vector<WriteReply::Holder> holders;
    for (const size_t i : into.holders(slot.slot)) {
      holders.push_back({into.node(i).name, into.node(i).store->store_id()});
    }
    std::sort(holders.begin(), holders.end());
    EXPECT_EQ(slot.holders, holders);
    if (completed.size() >= 4) cancellation.cancel();
  };
  absl::StatusOr<RestoreResult> first = run(into, options);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->cancelled);
  ASSERT_GE(completed.size(), 4);
  ASSERT_LT(completed.size(), 16);

  RestoreOptions rest = options_for("r");
  rest.completed_slots = completed;
  std::set<uint32_t> later;
  rest.on_slot_complete = [&](const RestoredSlot& slot) { later.insert(slot.slot); };
  absl::StatusOr<RestoreResult> second = run(into, rest);
  ASSERT_TRUE(second.ok()) << second.status();
  for (const uint32_t slot : completed) EXPECT_FALSE(later.contains(slot));
  EXPECT_EQ(second->written, second->records);
  EXPECT_EQ(second->records, backup->manifest.records());
  expect_holds(into, source->newest());
  expect_digests(into, *second);
}

TEST_F(RestoreTest, ADamagedBlockIsAFailedUnitAndTheRestIsRestored) {
  const std::string segment = backup->folders()[0] + "/" + segment_file(0);
  const std::unique_ptr<ArchiveReader> archive = open();
  const BlockLocation victim = archive->parts()[0].blocks.front();
  const int fd = ::open(segment.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  uint8_t byte = 0;
  const auto at = static_cast<off_t>(victim.offset + victim.bytes / 2);
  ASSERT_EQ(::pread(fd, &byte, 1, at), 1);
  byte ^= 4;
  ASSERT_EQ(::pwrite(fd, &byte, 1, at), 1);
  {
    Cluster into(other(4));
    into.serve_writes();
    absl::StatusOr<RestoreResult> result = run(into, options_for("r"));
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->failed.size(), 1);
    EXPECT_EQ(result->failed[0].slot, victim.slot);
    EXPECT_TRUE(result->failed[0].damaged) << result->failed[0].node;
    EXPECT_THAT(result->failed[0].node, ::testing::HasSubstr(archive->parts()[0].node));
    EXPECT_LT(result->written, result->records);
    EXPECT_GT(result->written, 0);
    // What nobody can read is counted all the same, to the record.
    EXPECT_EQ(result->records, backup->manifest.records());
    EXPECT_EQ(result->written + result->failed_records, result->records);
    EXPECT_EQ(result->failed[0].records, result->failed_records);
    EXPECT_EQ(result->failed[0].deletions, result->failed_deletions);
  }
  {
    // Also where its replica is down besides: each unit has one cause, and all records are counted.
    Cluster into(other(4));
    into.serve_writes();
    into.node(2).writes.reset();
    RestoreOptions options = options_for("r");
    options.tries = 2;
    absl::StatusOr<RestoreResult> result = run(into, options);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->written + result->failed_records, result->records);
    EXPECT_EQ(std::count_if(result->failed.begin(), result->failed.end(),
                            [](const RestoreUnit& unit) { return unit.damaged; }),
              1);
    // Driven again with the replica back, the damaged block alone is left, with as many records.
    WriteServer::Options server;
    server.node = "n3";
    into.node(2).writes = *WriteServer::start(*into.node(2).exchange, *into.node(2).store,
                                              into.node(2).router, server);
    RestoreOptions only = options_for("r");
    only.only = result->failed;
    absl::StatusOr<RestoreResult> rest = run(into, only);
    ASSERT_TRUE(rest.ok()) << rest.status();
    ASSERT_EQ(rest->failed.size(), 1);
    EXPECT_TRUE(rest->failed[0].damaged);
    EXPECT_EQ(rest->records, result->failed_records);
    EXPECT_EQ(result->written + rest->written + rest->failed_records, result->records);
  }
  byte ^= 4;
  EXPECT_EQ(::pwrite(fd, &byte, 1, at), 1);
  ::close(fd);
}

// A node that comes back with another store in the middle of a slot has the slot nowhere as a
// whole.
TEST(SlotLedgerTest, ASlotWhoseUnitsMetTwoStoresOfOneNodeIsNotComplete) {
  SlotLedger ledger;
  SlotLedger::Unit unit;
  unit.add(1, {{"n1", "a"}, {"n2", "b"}});
  SlotLedger::Unit other;
  other.add(1, {{"n1", "a"}, {"n2", "c"}});
  SlotLedger::Unit later;
  later.add(2, {{"n1", "a"}, {"n2", "b"}});
  ledger.add(1, unit, {2, 1, 0});
  ledger.add(1, unit, {3, 0, 4});
  const auto complete = ledger.complete(1);
  ASSERT_TRUE(complete.has_value());
  EXPECT_EQ(complete->kept, (KeptRecords{5, 1, 4}));
  EXPECT_EQ(complete->holders.size(), 2);
  ledger.add(2, unit, {});
  ledger.add(2, other, {});
  EXPECT_FALSE(ledger.complete(2).has_value());
  ledger.add(3, unit, {});
  ledger.add(3, later, {});  // another table
  EXPECT_FALSE(ledger.complete(3).has_value());
  // One unit, whose blocks met two stores or two tables.
  SlotLedger::Unit stores;
  stores.add(1, {{"n1", "a"}, {"n2", "b"}});
  stores.add(1, {{"n1", "a"}, {"n2", "c"}});
  ledger.add(4, stores, {});
  EXPECT_FALSE(ledger.complete(4).has_value());
  SlotLedger::Unit tables;
  tables.add(1, {{"n1", "a"}});
  tables.add(2, {{"n1", "a"}});
  ledger.add(5, tables, {});
  EXPECT_FALSE(ledger.complete(5).has_value());
}

TEST(WriteReplyTest, RoundTripsAndRefusesDamage) {
  WriteReply reply;
  reply.changed = 3;
  reply.kept_newer = 5;
  reply.kept_equal = 4;
  reply.kept = {{7, {3, 1, 2}}};
  reply.failures.push_back({"n2", unavailable("gone")});
  reply.holders = {{"n1", "store-1"}, {"n3", "store-3"}};
  const std::string bytes = reply.encode();
  absl::StatusOr<WriteReply> decoded = WriteReply::decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->kept_newer, 5);
  EXPECT_EQ(decoded->kept, reply.kept);
  ASSERT_EQ(decoded->failures.size(), 1);
  EXPECT_EQ(decoded->failures[0].node, "n2");
  EXPECT_EQ(decoded->holders, reply.holders);
  EXPECT_EQ(decoded->failures[0].status, unavailable("gone"));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(WriteReply::decode(bytes.substr(0, size)).ok()) << size;
  }
}

}  // namespace
}  // namespace sluice
