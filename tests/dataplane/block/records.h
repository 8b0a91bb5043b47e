// Records made from a seed, and packing and reading them in small ways, for tests of blocks and
// archives.
#ifndef SLUICE_TESTS_DATAPLANE_BLOCK_RECORDS_H_
#define SLUICE_TESTS_DATAPLANE_BLOCK_RECORDS_H_

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "dataplane/block/block.h"
#include "dataplane/block/record.h"
#include "dataplane/block/slot_digest.h"

namespace sluice::testing {

inline std::string random_bytes(Random& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  return bytes;
}

// A key of the slot: tries suffixes until one hashes there.
inline std::string key_in_slot(std::string key, uint32_t slot, uint32_t slot_bits, Random& random) {
  do {
    for (size_t i = 0; i < std::min<size_t>(4, key.size()); ++i) {
      key[key.size() - 1 - i] = static_cast<char>(random.next());
    }
  } while (slot_of(key, slot_bits) != slot);
  return key;
}

struct RecordShape {
  size_t count = 10;
  size_t min_key = 4;
  size_t max_key = 24;
  size_t max_value = 300;
};

// Sorted by key, without repeated keys.
inline std::vector<Record> make_records(Random& random, uint32_t slot, uint32_t slot_bits,
                                        const RecordShape& shape) {
  std::vector<Record> records;
  for (size_t i = 0; i < shape.count; ++i) {
    const size_t key_bytes = shape.min_key + random.below(shape.max_key - shape.min_key + 1);
    std::string key =
        random.chance(0.5) ? random_bytes(random, key_bytes) : std::string(key_bytes, 'k');
    Record record;
    record.key = key_in_slot(std::move(key), slot, slot_bits, random);
    record.tombstone = random.chance(0.1);
    if (!record.tombstone) record.value = random_bytes(random, random.below(shape.max_value + 1));
    record.version.stamp =
        Version::make_stamp(1'700'000'000'000 + random.below(3'600'000),
                            static_cast<uint16_t>(random.chance(0.5) ? 0 : random.next()));
    record.version.node = static_cast<uint32_t>(random.below(5));
    records.push_back(std::move(record));
  }
  std::sort(records.begin(), records.end(),
            [](const Record& a, const Record& b) { return a.key < b.key; });
  records.erase(std::unique(records.begin(), records.end(),
                            [](const Record& a, const Record& b) { return a.key == b.key; }),
                records.end());
  return records;
}

inline BlockEntry entry_of(const Record& record, uint64_t offset = 0) {
  BlockEntry entry;
  entry.key = record.key;
  entry.version = record.version;
  entry.tombstone = record.tombstone;
  entry.value_bytes = record.value.size();
  entry.fragment_offset = offset;
  entry.fragment = std::string_view(record.value).substr(offset);
  return entry;
}

inline std::vector<std::string> pack(const std::vector<Record>& records, uint32_t slot,
                                     uint32_t slot_bits, size_t memory_bytes = kMaxBlockBytes) {
  std::vector<std::string> blocks;
  std::vector<uint8_t> memory(memory_bytes);
  BlockBuilder builder;
  builder.begin(memory, slot, slot_bits);
  const auto seal = [&] {
    const uint32_t bytes = builder.finish();
    blocks.emplace_back(reinterpret_cast<const char*>(memory.data()), bytes);
    builder.begin(memory, slot, slot_bits);
  };
  for (const Record& record : records) {
    uint64_t offset = 0;
    do {
      const size_t added = builder.add(entry_of(record, offset));
      if (added == BlockBuilder::kFull) {
        seal();
      } else {
        offset += added;
        if (record.value.empty()) break;
      }
    } while (offset < record.value.size());
  }
  if (!builder.empty()) seal();
  return blocks;
}

inline std::span<const uint8_t> as_bytes(std::string_view bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

// Reads consecutive blocks of a slot and puts fragments together. Checks that runs fit.
inline absl::StatusOr<std::vector<Record>> unpack(const std::vector<std::string>& blocks) {
  std::vector<Record> records;
  bool continues = false;
  for (const std::string& block : blocks) {
    SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(as_bytes(block)));
    BlockEntry entry;
    for (;;) {
      SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
      if (!more) break;
      if (continues != (entry.fragment_offset > 0)) return data_loss("a run is broken");
      if (!continues) {
        records.push_back({std::string(entry.key), {}, entry.version, entry.tombstone});
      } else if (records.back().key != entry.key ||
                 records.back().value.size() != entry.fragment_offset) {
        return data_loss("a run goes on with something else");
      }
      records.back().value += entry.fragment;
      continues = !entry.last();
    }
  }
  if (continues) return data_loss("a run has no end");
  return records;
}

inline bool same_record(const Record& a, const Record& b) {
  return a.key == b.key && a.value == b.value && a.version == b.version &&
         a.tombstone == b.tombstone;
}

inline SlotDigest digest_of(const std::vector<Record>& records) {
  SlotDigest digest;
  for (const Record& record : records) digest.add(record.key, record.view().summary());
  return digest;
}

// Writes the right checksum into a block that was tampered with.
inline void reseal(std::string& block) {
  const uint32_t stored = load_le<uint32_t>(block.data() + 16);
  const size_t bytes = std::min<size_t>(block.size(), stored);
  if (bytes < 8) return;
  const uint64_t checksum = xxh3_64(block.data() + 8, bytes - 8);
  store_le(block.data(), checksum);
}

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_DATAPLANE_BLOCK_RECORDS_H_
