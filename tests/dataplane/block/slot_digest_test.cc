#include "dataplane/block/slot_digest.h"

#include <gtest/gtest.h>

#include "tests/dataplane/block/records.h"

namespace sluice::testing {
namespace {

TEST(SlotDigest, DoesNotDependOnOrder) {
  Random random(1);
  std::vector<Record> records = make_records(random, 0, 1, {200, 4, 40, 100});
  const SlotDigest digest = digest_of(records);
  random.shuffle(records);
  EXPECT_EQ(digest_of(records), digest);
}

TEST(SlotDigest, RemovingUndoesAdding) {
  Random random(2);
  const std::vector<Record> records = make_records(random, 0, 1, {50, 4, 40, 100});
  SlotDigest digest;
  for (const Record& record : records) digest.add(record.key, record.view().summary());
  const SlotDigest full = digest;
  digest.remove(records[7].key, records[7].view().summary());
  EXPECT_NE(digest, full);
  digest.add(records[7].key, records[7].view().summary());
  EXPECT_EQ(digest, full);
  for (const Record& record : records) digest.remove(record.key, record.view().summary());
  EXPECT_EQ(digest, SlotDigest{});
  EXPECT_TRUE(digest.empty());
}

TEST(SlotDigest, CountsLiveRecordsAndTombstones) {
  SlotDigest digest;
  digest.add("key", RecordView{"key", "value", {1, 1}, false}.summary());
  digest.add("gone", RecordView{"gone", "", {2, 1}, true}.summary());
  EXPECT_EQ(digest.records, 1u);
  EXPECT_EQ(digest.tombstones, 1u);
  EXPECT_EQ(digest.bytes, 8u);
}

TEST(SlotDigest, EveryPartOfARecordCounts) {
  const Digest128 digest = record_digest("key", RecordView{"key", "", {5, 6}, false}.summary());
  EXPECT_NE(digest, record_digest("kez", RecordView{"kez", "", {5, 6}, false}.summary()));
  EXPECT_NE(digest, record_digest("key", RecordView{"key", "v", {5, 6}, false}.summary()));
  EXPECT_NE(digest, record_digest("key", RecordView{"key", "", {4, 6}, false}.summary()));
  EXPECT_NE(digest, record_digest("key", RecordView{"key", "", {5, 7}, false}.summary()));
  EXPECT_NE(digest, record_digest("key", RecordView{"key", "", {5, 6}, true}.summary()));
}

// The documented layout, put together by hand.
TEST(SlotDigest, IsTheDocumentedHash) {
  const RecordView record{"key", "value", {0x0102030405060708, 9}, false};
  std::string bytes;
  ByteWriter out(&bytes);
  out.put(uint32_t{3});
  out.put_bytes("key");
  out.put(uint64_t{0x0102030405060708});
  out.put(uint32_t{9});
  out.put(uint8_t{0});
  out.put(uint64_t{5});
  out.put(xxh3_128("value").low);
  out.put(xxh3_128("value").high);
  EXPECT_EQ(record_digest("key", record.summary()), xxh3_128(bytes));
  EXPECT_EQ(record_digest("key", record.summary()).to_hex(), "14b17dcf65d32b3b5f5a84555c3281e9");
}

TEST(SlotDigest, Encodes) {
  SlotDigest digest{{1, 2}, 3, 4, 5};
  std::string bytes;
  ByteWriter out(&bytes);
  digest.encode(out);
  ASSERT_EQ(bytes.size(), SlotDigest::kEncodedBytes);
  SlotDigest read;
  ByteReader in{std::string_view(bytes)};
  ASSERT_TRUE(SlotDigest::decode(in, &read));
  EXPECT_EQ(read, digest);
  ByteReader cut(std::string_view(bytes).substr(1));
  EXPECT_FALSE(SlotDigest::decode(cut, &read));
  EXPECT_EQ(cut.remaining(), bytes.size() - 1);
}

}  // namespace
}  // namespace sluice::testing
