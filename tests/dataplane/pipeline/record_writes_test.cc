// Batches of records over the transport, into real stores of a cluster in this process.
#include "dataplane/pipeline/record_writes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

#include "base/status.h"
#include "dataplane/block/record_batch.h"
#include "tests/dataplane/pipeline/cluster.h"

namespace sluice {
namespace {

using testing::HasSubstr;

class RecordWritesTest : public testing::Test {
 protected:
  static ClusterOptions three_replicas() {
    ClusterOptions options;
    options.nodes = 3;
    options.replicas = 3;
    return options;
  }
  void SetUp() override {
    cluster.serve_writes();
    RequestClient::Options options;
    options.kind = StreamKind::kWrite;
    options.job = "import";
    auto made = cluster.node(0).exchange->arena().make_pool("client", 4);
    ASSERT_TRUE(made.ok());
    pool = *std::move(made);
    client = std::make_unique<RequestClient>(*cluster.node(0).exchange, options);
  }
  // What node `to` answers to a batch of these records.
  absl::StatusOr<RecordWriteReply> write(size_t to, const std::vector<Record>& records,
                                         const Version& version, uint64_t epoch = 1) {
    BlockBuffer buffer = pool->take(10'000);
    RecordBatchBuilder builder;
    builder.begin(buffer.span());
    for (const Record& record : records) EXPECT_TRUE(builder.add(record.view()));
    Envelope envelope;
    envelope.kind = MessageKind::kRecordWrite;
    envelope.payload_bytes = builder.finish();
    envelope.attempt = epoch;
    envelope.sequence = client->next_sequence();
    envelope.version_override = version.stamp;
    envelope.version_node = version.node;
    const uint32_t bytes = Envelope::seal(envelope, buffer);
    std::promise<RequestClient::Outcome> told;
    client->send({cluster.node(to).name, cluster.node(to).exchange->address()}, std::move(buffer),
                 bytes, envelope.sequence, 10'000, 10'000,
                 [&](RequestClient::Outcome outcome) { told.set_value(std::move(outcome)); });
    RequestClient::Outcome outcome = told.get_future().get();
    if (!outcome.reply.ok()) return outcome.reply.status();
    return RecordWriteReply::decode(*outcome.reply);
  }
  std::string value_at(size_t node, const std::string& key) {
    const auto record = cluster.node(node).store->get(key);
    if (!record.ok() || !record->has_value()) return "(none)";
    return (*record)->tombstone ? "(deleted)" : (*record)->value;
  }

  Cluster cluster{three_replicas()};
  std::unique_ptr<BlockPool> pool;
  std::unique_ptr<RequestClient> client;
};

TEST_F(RecordWritesTest, EveryReplicaHasTheRecordsAtTheVersionOfTheRequest) {
  std::vector<Record> records;
  for (int i = 0; i < 300; ++i) {
    records.push_back(make_record(fmt::format("key {}", i), fmt::format("value {}", i), 0));
  }
  records.push_back(make_tombstone("gone", 0));
  const auto reply = write(1, records, {stamp_at(7), 5});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_TRUE(reply->refused.ok()) << reply->refused;
  EXPECT_EQ(reply->as_of, stamp_at(7));
  for (size_t node = 0; node < 3; ++node) {
    // The reply comes with the quorum: the third may be a moment later.
    for (int i = 0; i < 1000 && value_at(node, "gone") != "(deleted)"; ++i) ::usleep(10'000);
    const auto here = contents(*cluster.node(node).store);
    EXPECT_EQ(here.size(), records.size());
    for (const Record& record : records) {
      EXPECT_EQ(here.at(record.key).value, record.value);
      EXPECT_EQ(here.at(record.key).version, (Version{stamp_at(7), 5}));
    }
  }
}

TEST_F(RecordWritesTest, ARepeatIsAcknowledgedAndChangesNothing) {
  const std::vector<Record> records = {make_record("a", "1", 0), make_record("b", "2", 0)};
  ASSERT_EQ(write(0, records, {stamp_at(7), 5})->as_of, stamp_at(7));
  const auto again = write(1, records, {stamp_at(7), 5});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->as_of, stamp_at(7));
}

// A version is above what was acknowledged before: what beats it was written at the same time.
TEST_F(RecordWritesTest, WhatANewerRecordBeatsIsAcknowledgedAndChangesNothing) {
  for (size_t node = 0; node < 3; ++node) {
    cluster.put_at(node, make_record("b", "newer", 50));
  }
  const auto reply =
      write(0, {make_record("a", "1", 0), make_record("b", "2", 0), make_record("c", "3", 0)},
            {stamp_at(7), 5});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->as_of, stamp_at(7));
  EXPECT_EQ(value_at(0, "b"), "newer");
  EXPECT_EQ(value_at(0, "a"), "1");
}

TEST_F(RecordWritesTest, WhoseVersionAnotherValueHasIsNotAcknowledged) {
  std::string first = "one", second = "two";
  const auto digest = [](const std::string& value) {
    return make_record("a", value, 0).view().summary();
  };
  if (digest(first) < digest(second)) std::swap(first, second);
  ASSERT_EQ(write(0, {make_record("a", first, 0)}, {stamp_at(7), 5})->as_of, stamp_at(7));
  const auto reply = write(0, {make_record("a", second, 0)}, {stamp_at(7), 5});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->as_of, 0u);
  EXPECT_THAT(reply->reason, HasSubstr("another value"));
}

TEST_F(RecordWritesTest, ALateBatchCountsAsWrittenBehindTheCut) {
  for (size_t node = 0; node < 3; ++node) {
    Store& store = *cluster.node(node).store;
    ASSERT_TRUE(store.arm_cut({kBackup, stamp_at(10), 1, false}).ok());
    cluster.node(node).clock.set_wall_ms(kStartMs + 11);
    ASSERT_TRUE(store.take_due_cut().ok());
  }
  const auto reply = write(0, {make_record("a", "1", 0)}, {stamp_at(7), 5});
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->as_of, stamp_at(10) + 1);
  EXPECT_EQ(value_at(0, "a"), "1");
}

TEST_F(RecordWritesTest, AQuorumIsEnoughAndLessIsUndecided) {
  cluster.node(2).writes.reset();
  EXPECT_EQ(write(0, {make_record("a", "1", 0)}, {stamp_at(7), 5})->as_of, stamp_at(7));
  cluster.node(1).writes.reset();
  const auto reply = write(0, {make_record("b", "2", 0)}, {stamp_at(8), 5});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->as_of, 0u) << "it is on one replica";
  EXPECT_THAT(reply->reason, HasSubstr(cluster.node(1).name));
}

TEST_F(RecordWritesTest, WhatCannotBeAppliedIsRefusedBeforeAnythingIs) {
  const std::vector<Record> records = {make_record("a", "1", 0)};
  EXPECT_EQ(write(0, records, {stamp_at(7), 5}, /*epoch=*/2)->refused.code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(write(0, records, {0, 0})->refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(write(0, {}, {stamp_at(7), 5})->refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(value_at(0, "a"), "(none)");
}

// The records of one batch go to the same replicas: of another slot's the coordinator would tell
// what its replicas never got.
TEST_F(RecordWritesTest, RecordsOfDifferentReplicasAreRefused) {
  for (size_t node = 0; node < 3; ++node) cluster.node(node).router.replicas = 2;
  std::vector<Record> records;
  for (int i = 0; i < 20; ++i) records.push_back(make_record(fmt::format("key {}", i), "v", 0));
  EXPECT_EQ(write(0, records, {stamp_at(7), 5})->refused.code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(value_at(0, "key 0"), "(none)");
}

TEST(RecordWriteReply, GivesBackWhatWasEncodedAndRefusesAnythingElse) {
  RecordWriteReply reply;
  reply.reason = "n2: is down";
  reply.as_of = 77;
  const std::string bytes = reply.encode();
  const auto decoded = RecordWriteReply::decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->reason, reply.reason);
  EXPECT_EQ(decoded->as_of, 77u);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(RecordWriteReply::decode(bytes.substr(0, size)).ok()) << size;
  }
}

TEST(ApplyAnswer, GivesBackWhatWasEncodedAndRefusesAnythingElse) {
  ApplyAnswer answer;
  answer.token = "token";
  answer.sequence = 12;
  answer.missed_cut = 99;
  const std::string bytes = answer.encode();
  const auto decoded = ApplyAnswer::decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->missed_cut, 99u);
  EXPECT_EQ(decoded->token, "token");
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ApplyAnswer::decode(bytes.substr(0, size)).ok()) << size;
  }
}

}  // namespace
}  // namespace sluice
