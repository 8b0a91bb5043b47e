#include "dataplane/block/block.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/dataplane/block/records.h"

namespace sluice::testing {
namespace {

constexpr uint32_t kBits = 4;

void expect_round_trip(const std::vector<Record>& records, uint32_t slot, size_t memory) {
  const std::vector<std::string> blocks = pack(records, slot, kBits, memory);
  const auto read = unpack(blocks);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    ASSERT_TRUE(same_record((*read)[i], records[i])) << "record " << i;
  }
  for (const std::string& block : blocks) EXPECT_LE(block.size(), memory);
}

TEST(Block, RoundTripsRandomRecords) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const auto slot = static_cast<uint32_t>(random.below(1 << kBits));
    RecordShape shape;
    shape.count = 1 + random.below(200);
    shape.max_key = 4 + random.below(100);
    shape.max_value = size_t{1} << random.below(16);
    const auto records = make_records(random, slot, kBits, shape);
    expect_round_trip(records, slot, kMaxBlockBytes);
    expect_round_trip(records, slot, 8192 + random.below(100'000));
  }
}

TEST(Block, RoundTripsExtremeSizes) {
  Random random(7);
  std::vector<Record> records = make_records(random, 3, kBits, {20, 4096, 4096, 10'000});
  records[0].value = random_bytes(random, kMaxValueBytes);
  records[0].tombstone = false;
  records[5].value.clear();
  records[7].value = random_bytes(random, kMaxBlockBytes);
  records[7].tombstone = false;
  records[9].version = {~uint64_t{0}, ~uint32_t{0}};
  records[10].version = {0, 0};
  expect_round_trip(records, 3, kMaxBlockBytes);
}

TEST(Block, RoundTripsEverySizeAroundABlock) {
  Random random(11);
  std::vector<Record> records = make_records(random, 0, kBits, {3, 8, 8, 50});
  for (size_t size = 8192 - 300; size < 8192 + 50; ++size) {
    records[1].value = random_bytes(random, size);
    records[1].tombstone = false;
    expect_round_trip(records, 0, 8192);
  }
}

TEST(Block, CutsOnlyValuesThatFitNoEmptyBlock) {
  Random random(5);
  std::vector<Record> records = make_records(random, 0, kBits, {3, 8, 8, 50});
  for (Record& record : records) record.tombstone = false;
  records[0].version = records[1].version = {0, 0};
  // Header, tag, shared, key length, value length of 3 bytes, stamp, key.
  const size_t most = kMaxBlockBytes - BlockHeader::kBytes - 7 - records[1].key.size();
  records[1].value = std::string(most, 'v');
  auto blocks = pack(records, 0, kBits);
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(blocks[1].size(), kMaxBlockBytes);
  for (const std::string& block : blocks) EXPECT_EQ(peek_block_header(as_bytes(block))->flags, 0u);

  records[1].value += 'v';
  blocks = pack(records, 0, kBits);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(peek_block_header(as_bytes(blocks[0]))->flags, BlockHeader::kContinues);
  EXPECT_EQ(peek_block_header(as_bytes(blocks[1]))->flags, BlockHeader::kContinued);
}

TEST(Block, ReservedFragmentsAreFilledInPlace) {
  Random random(9);
  const std::vector<Record> records = make_records(random, 1, kBits, {40, 8, 20, 200'000});
  std::vector<uint8_t> memory(kMaxBlockBytes);
  BlockBuilder builder;
  std::vector<std::string> blocks;
  builder.begin(memory, 1, kBits);
  for (const Record& record : records) {
    size_t offset = 0;
    do {
      const size_t want = record.value.size() - offset;
      std::span<uint8_t> into = builder.reserve(entry_of(record, offset), want);
      if (into.data() == nullptr) {
        const size_t predicted = builder.bytes();
        const uint32_t bytes = builder.finish();
        EXPECT_EQ(bytes, predicted);
        blocks.emplace_back(reinterpret_cast<char*>(memory.data()), bytes);
        builder.begin(memory, 1, kBits);
        continue;
      }
      ASSERT_GE(into.data(), memory.data());
      ASSERT_LE(into.data() + into.size(), memory.data() + memory.size());
      record.value.copy(reinterpret_cast<char*>(into.data()), into.size(), offset);
      offset += into.size();
      if (record.value.empty()) break;
    } while (offset < record.value.size());
  }
  blocks.emplace_back(reinterpret_cast<char*>(memory.data()), builder.finish());
  EXPECT_EQ(blocks, pack(records, 1, kBits));
}

TEST(Block, SmallRecordsCostLittle) {
  Random random(3);
  std::vector<Record> records = make_records(random, 0, kBits, {5000, 16, 16, 84});
  size_t payload = 0;
  for (Record& record : records) {
    record.tombstone = false;
    record.value = random_bytes(random, 84);
    payload += record.key.size() + record.value.size();
  }
  size_t wire = 0;
  for (const std::string& block : pack(records, 0, kBits)) wire += block.size();
  EXPECT_LT(static_cast<double>(wire), 1.05 * static_cast<double>(payload));
}

TEST(Block, KnowsItsFirstAndLastKey) {
  Random random(21);
  const auto records = make_records(random, 0, kBits, {30, 8, 40, 100});
  const std::string block = pack(records, 0, kBits).at(0);
  const auto reader = BlockReader::open(as_bytes(block));
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(*reader->first_key(), records.front().key);
  EXPECT_EQ(*reader->last_key(), records.back().key);
  const std::string single = pack({records[4]}, 0, kBits).at(0);
  const auto one = BlockReader::open(as_bytes(single));
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(*one->first_key(), records[4].key);
  EXPECT_EQ(*one->last_key(), records[4].key);
}

TEST(Block, EveryFlippedByteIsFound) {
  Random random(1);
  const std::string block = pack(make_records(random, 2, kBits, {}), 2, kBits).at(0);
  ASSERT_TRUE(unpack({block}).ok());
  for (size_t at = 0; at < block.size(); ++at) {
    for (uint8_t flip : {0x01, 0x80, 0xff}) {
      std::string damaged = block;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      const auto reader = BlockReader::open(as_bytes(damaged));
      ASSERT_EQ(reader.status().code(), absl::StatusCode::kDataLoss) << "byte " << at;
    }
  }
}

TEST(Block, EveryTruncationIsFoundAndPaddingIsNot) {
  Random random(1);
  const std::string block = pack(make_records(random, 2, kBits, {}), 2, kBits).at(0);
  for (size_t size = 0; size < block.size(); ++size) {
    // A copy of its own, so that reading past the end is seen by the address sanitizer.
    const std::vector<uint8_t> cut(block.begin(),
                                   block.begin() + static_cast<std::ptrdiff_t>(size));
    ASSERT_EQ(BlockReader::open(cut).status().code(), absl::StatusCode::kDataLoss) << size;
  }
  EXPECT_TRUE(BlockReader::open(as_bytes(block + std::string(100, 'x'))).ok());
}

struct Tampering {
  const char* what;
  size_t at;
  std::string bytes;
  absl::StatusCode code;
};

TEST(Block, HostileHeadersAreRefusedThoughTheirChecksumHolds) {
  Random random(1);
  const std::string block = pack(make_records(random, 2, kBits, {}), 2, kBits).at(0);
  constexpr auto kLoss = absl::StatusCode::kDataLoss;
  constexpr auto kFuture = absl::StatusCode::kFailedPrecondition;
  const std::string max32("\xff\xff\xff\xff", 4);
  const Tampering all[] = {
      {"magic", 8, "X", kLoss},
      {"version", 12, std::string("\x02\x00", 2), kFuture},
      {"header length", 14, std::string("\x50\x00", 2), kLoss},
      {"stored length too short", 16, std::string("\x57\x00\x00\x00", 4), kLoss},
      {"stored length too long", 16, max32, kLoss},
      {"raw length", 20, max32, kLoss},
      {"slot beyond slot bits", 24, max32, kLoss},
      {"no entries", 28, std::string(4, '\0'), kLoss},
      {"too many entries", 28, max32, kLoss},
      {"unknown flag", 32, std::string("\x04", 1), kFuture},
      {"slot bits 0", 36, std::string(1, '\0'), kLoss},
      {"slot bits 21", 36, std::string("\x15", 1), kLoss},
      {"codec", 37, "\x01", kFuture},
      {"cipher", 38, "\x01", kFuture},
      {"reserved byte", 39, "\x01", kLoss},
      {"first key of no bytes", 40, std::string(2, '\0'), kLoss},
      {"last key too long", 42, "\xff\xff", kLoss},
      {"key id", 44, "\x01", kLoss},
      {"base stamp", 48, std::string(8, '\xff'), kLoss},
      {"nonce", 56, "\x01", kLoss},
      {"tag", 83, "\x01", kLoss},
      {"reserved end", 87, "\x01", kLoss},
  };
  for (const Tampering& tampering : all) {
    SCOPED_TRACE(tampering.what);
    std::string hostile = block;
    hostile.replace(tampering.at, tampering.bytes.size(), tampering.bytes);
    reseal(hostile);
    EXPECT_EQ(BlockReader::open(as_bytes(hostile)).status().code(), tampering.code);
    EXPECT_EQ(peek_block_header(as_bytes(hostile)).status().code(), tampering.code);
  }
}

// Entries that no builder makes. `tail` follows the header.
std::string handmade(uint32_t entries, uint32_t flags, uint16_t first, uint16_t last,
                     const std::string& tail) {
  Random random(0);
  std::string block = pack(make_records(random, 0, 1, {1, 4, 4, 0}), 0, 1).at(0).substr(0, 88);
  block += tail;
  store_le(block.data() + 16, static_cast<uint32_t>(block.size()));
  store_le(block.data() + 20, static_cast<uint32_t>(block.size() - 88));
  store_le(block.data() + 28, entries);
  store_le(block.data() + 32, flags);
  store_le(block.data() + 40, first);
  store_le(block.data() + 42, last);
  reseal(block);
  return block;
}

std::string key_of_slot_zero(char first) {
  std::string key(2, first);
  while (slot_of(key, 1) != 0) ++key[1];
  return key;
}

absl::Status read_all(const std::string& block) {
  SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(as_bytes(block)));
  BlockEntry entry;
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) return absl::OkStatus();
  }
}

TEST(Block, HostilePayloadsAreRefusedThoughTheirChecksumHolds) {
  const std::string a = key_of_slot_zero('a');
  const std::string b = key_of_slot_zero('b');
  const std::string head("\x38\x00\x02\x00", 4);  // same value length, node, counter zero; key of 2
  const std::string next("\x3c\x00\x00", 3);      // same key length as well
  const std::string good = head + a + next + b + b;
  ASSERT_TRUE(read_all(handmade(2, 0, 2, 2, good)).ok());

  const auto refused = [](const std::string& block, const char* why) {
    const absl::Status status = read_all(block);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << why << ": " << status;
  };
  refused(handmade(2, 0, 2, 2, head + b + next + a + a), "descending keys");
  refused(handmade(2, 0, 2, 2, head + a + next + a + a), "a key twice");
  refused(handmade(2, 0, 2, 2, head + a + next + b + a), "another last key");
  refused(handmade(2, 0, 2, 2, head + a + next + b + "x" + b), "bytes after the entries");
  refused(handmade(2, 0, 3, 2, good), "first key length");
  refused(handmade(1, 0, 2, 2, good), "fewer entries");
  refused(handmade(3, 0, 2, 2, good), "more entries");
  refused(handmade(1, 0, 1, 1, std::string("\x38\x00\x01\x00", 4) + "x" + "y"), "trailing byte");
  refused(handmade(2, BlockHeader::kContinues, 2, 2, good), "continues, but does not");
  refused(handmade(2, BlockHeader::kContinued, 2, 2, good), "continued, but is not");
  std::string other(2, 'c');
  while (slot_of(other, 1) != 1) ++other[1];
  refused(handmade(1, 0, 2, 2, head + other), "a key of another slot");
  refused(handmade(1, 0, 2, 2, std::string("\x78\x00\x02\x00", 4) + a), "unknown tag");
  refused(handmade(1, 0, 2, 2, std::string("\x38\x01\x02\x00", 4) + a), "shares with no key");
  refused(handmade(1, 0, 2, 2, std::string("\x31\x00\x02\x05\x00", 5) + a + "value"),
          "tombstone's value");
  refused(handmade(1, 0, 2, 2, std::string("\x30\x00\x02\x05\x00", 5) + a + "valu"),
          "value cut off");
  refused(handmade(1, 0, 2, 2, std::string("\x30\x00\x02\x81\x80\x80\x20\x00", 8) + a),
          "64 MiB and one");
  refused(handmade(1, 0, 2, 2, std::string("\x38\x80\x00\x02\x00", 5) + a), "overlong varint");
  // Fragments: of nothing, of everything, beyond the end, overflowing.
  const std::string cut("\x32\x00\x02\x05\x00", 5);
  const auto fragment = [&](uint32_t flags, uint64_t offset, uint64_t bytes) {
    std::string tail = cut;
    ByteWriter out(&tail);
    out.put_varint(offset);
    out.put_varint(bytes);
    tail += a + std::string(std::min<uint64_t>(bytes, 5), 'v');
    return handmade(1, flags, 2, 2, tail);
  };
  EXPECT_TRUE(read_all(fragment(BlockHeader::kContinues, 0, 3)).ok());
  EXPECT_TRUE(read_all(fragment(BlockHeader::kContinued, 3, 2)).ok());
  EXPECT_TRUE(read_all(fragment(3, 1, 2)).ok());
  refused(fragment(0, 0, 3), "continues in secret");
  refused(fragment(0, 3, 2), "continued in secret");
  refused(fragment(BlockHeader::kContinues, 0, 0), "fragment of no bytes");
  refused(fragment(0, 0, 5), "whole value as a fragment");
  refused(fragment(BlockHeader::kContinued, 4, 2), "beyond the value");
  refused(fragment(BlockHeader::kContinued, ~uint64_t{0}, 2), "overflow");
  refused(fragment(BlockHeader::kContinued, 2, ~uint64_t{0}), "overflow");
}

TEST(Block, GoldenFile) {
  std::vector<Record> records;
  const auto record = [&records](std::string key, std::string value, uint64_t ms, uint16_t counter,
                                 uint32_t node, bool tombstone) {
    records.push_back(
        {std::move(key), std::move(value), {Version::make_stamp(ms, counter), node}, tombstone});
  };
  // All keys are of slot 1 of 2.
  record("user/0001", "Ada", 1'700'000'000'000, 0, 1, false);
  record("user/0003", "", 1'700'000'000'250, 3, 2, true);
  record("user/00320", "Grace", 1'699'999'999'999, 0, 2, false);
  for (const Record& each : records) ASSERT_EQ(slot_of(each.key, 1), 1u) << each.key;
  const std::string block = pack(records, 1, 1).at(0);
  const std::string path = SLUICE_GOLDEN "/block_v1.bin";
  if (!std::filesystem::exists(path)) {
    std::ofstream(path, std::ios::binary) << block;
    FAIL() << path << " was missing and has been written; look at it before committing it";
  }
  std::ifstream file(path, std::ios::binary);
  const std::string golden((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(block, golden) << "the block format has changed: that needs a new format version";
  const auto read = unpack({golden});
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), records.size());
  for (size_t i = 0; i < records.size(); ++i) EXPECT_TRUE(same_record((*read)[i], records[i]));
}

}  // namespace
}  // namespace sluice::testing
