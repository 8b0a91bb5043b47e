#include "dataplane/block/record_batch.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/arena.h"
#include "base/random.h"

namespace sluice {
namespace {

std::vector<Record> random_records(uint64_t seed, size_t count) {
  Random random(seed);
  std::vector<Record> records;
  for (size_t i = 0; i < count; ++i) {
    Record record;
    record.key.assign(1 + random.below(random.chance(0.1) ? kMaxKeyBytes : 40),
                      static_cast<char>('a' + i % 26));
    record.tombstone = random.chance(0.1);
    if (!record.tombstone) record.value.assign(random.below(3000), static_cast<char>(i));
    records.push_back(std::move(record));
  }
  return records;
}

std::vector<uint8_t> pack(const std::vector<Record>& records, size_t* packed) {
  std::vector<uint8_t> memory(kMaxBlockBytes);
  RecordBatchBuilder builder;
  builder.begin(memory);
  size_t bytes = RecordBatchBuilder::kHeaderBytes;
  for (*packed = 0; *packed < records.size(); ++*packed) {
    if (!builder.add(records[*packed].view())) break;
    bytes += RecordBatchBuilder::bytes_of(records[*packed].view());
    EXPECT_EQ(builder.bytes(), bytes);
  }
  memory.resize(builder.finish());
  EXPECT_EQ(memory.size(), bytes);
  return memory;
}

TEST(RecordBatch, GivesBackWhatWasPacked) {
  for (uint64_t seed = 1; seed < 20; ++seed) {
    const std::vector<Record> records = random_records(seed, 1500);
    size_t packed = 0;
    const std::vector<uint8_t> batch = pack(records, &packed);
    ASSERT_GT(packed, 10u);
    auto reader = RecordBatchReader::open(batch);
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ(reader->records(), packed);
    for (size_t i = 0; i < packed; ++i) {
      RecordView view;
      const auto more = reader->next(&view);
      ASSERT_TRUE(more.ok() && *more) << more.status();
      EXPECT_EQ(view.key, records[i].key);
      EXPECT_EQ(view.value, records[i].value);
      EXPECT_EQ(view.tombstone, records[i].tombstone);
    }
    RecordView view;
    const auto more = reader->next(&view);
    ASSERT_TRUE(more.ok()) << more.status();
    EXPECT_FALSE(*more);
  }
}

TEST(RecordBatch, ARecordThatDoesNotFitLeavesTheBatchAsItWas) {
  std::vector<uint8_t> memory(200);
  RecordBatchBuilder builder;
  builder.begin(memory);
  EXPECT_TRUE(builder.add({"key", std::string(100, 'v'), {}, false}));
  EXPECT_FALSE(builder.add({"key2", std::string(100, 'v'), {}, false}));
  memory.resize(builder.finish());
  auto reader = RecordBatchReader::open(memory);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->records(), 1u);
}

TEST(RecordBatch, EveryDamagedByteIsNoticed) {
  size_t packed = 0;
  const std::vector<uint8_t> batch = pack(random_records(3, 20), &packed);
  for (size_t i = 0; i < batch.size(); ++i) {
    std::vector<uint8_t> damaged = batch;
    damaged[i] ^= 0x10;
    EXPECT_EQ(RecordBatchReader::open(damaged).status().code(), absl::StatusCode::kDataLoss) << i;
  }
  for (size_t bytes = 0; bytes < batch.size(); bytes += 7) {
    EXPECT_EQ(RecordBatchReader::open(std::span(batch).first(bytes)).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

// With a checksum that matches: a hostile sender.
TEST(RecordBatch, ImpossibleEntriesAreRefused) {
  const auto verdict = [](std::string_view entries, uint32_t records) {
    std::vector<uint8_t> batch(RecordBatchBuilder::kHeaderBytes + entries.size());
    RecordBatchBuilder builder;
    builder.begin(batch);
    builder.finish();
    std::copy(entries.begin(), entries.end(), batch.begin() + RecordBatchBuilder::kHeaderBytes);
    store_le<uint32_t>(batch.data() + 16, records);
    store_le<uint32_t>(batch.data() + 20, static_cast<uint32_t>(batch.size()));
    store_le<uint64_t>(batch.data(), xxh3_64(batch.data() + 8, batch.size() - 8));
    auto reader = RecordBatchReader::open(batch);
    EXPECT_TRUE(reader.ok()) << reader.status();
    RecordView view;
    for (;;) {
      const auto more = reader->next(&view);
      if (!more.ok()) return more.status();
      if (!*more) return absl::OkStatus();
    }
  };
  using namespace std::string_view_literals;
  EXPECT_TRUE(verdict("\x01\x02kv"sv, 1).ok());
  EXPECT_TRUE(verdict("\x01\x01k"sv, 1).ok());
  EXPECT_FALSE(verdict("\x01\x02kv"sv, 2).ok()) << "fewer records than it says";
  EXPECT_FALSE(verdict("\x01\x02kvx"sv, 1).ok()) << "more than its records";
  EXPECT_FALSE(verdict("\x00\x02v"sv, 1).ok()) << "an empty key";
  EXPECT_FALSE(verdict("\x01\x03kv"sv, 1).ok()) << "a deletion with a value";
  EXPECT_FALSE(verdict("\x01\x7fkv"sv, 1).ok()) << "a value beyond the end";
  EXPECT_FALSE(verdict("\x81\x20\x00k"sv, 1).ok()) << "a key of 4097 bytes";
}

}  // namespace
}  // namespace sluice
