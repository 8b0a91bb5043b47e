// A record, its version, and the order in which records of one key win.
#ifndef SLUICE_DATAPLANE_BLOCK_RECORD_H_
#define SLUICE_DATAPLANE_BLOCK_RECORD_H_

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/checksum.h"

namespace sluice {

inline constexpr size_t kMaxKeyBytes = 4096;                // and at least 1
inline constexpr size_t kMaxValueBytes = size_t{64} << 20;  // and at least 0

// A hybrid logical clock stamp (Kulkarni et al., Logical Physical Clocks, OPODIS 2014) and the node
// that made it. Orders by stamp, then node.
struct Version {
  uint64_t stamp = 0;  // milliseconds since the Unix epoch << 16 | counter
  uint32_t node = 0;   // the stamping node's number in its cluster

  friend auto operator<=>(const Version&, const Version&) = default;

  static uint64_t make_stamp(uint64_t ms, uint16_t counter) { return ms << 16 | counter; }
  static uint64_t stamp_ms(uint64_t stamp) { return stamp >> 16; }
};

// What decides between two records of one key, and what is kept of a record where its value is not
// needed.
struct RecordSummary {
  Version version;
  bool tombstone = false;
  uint64_t value_bytes = 0;
  Digest128 value_digest;  // XXH3-128 of the value; of the empty string for a tombstone

  // Total order: version, then tombstone over value, then the value's digest. Two replicas that
  // hold the same two records never disagree about the winner.
  friend std::strong_ordering operator<=>(const RecordSummary& a, const RecordSummary& b) {
    if (auto order = a.version <=> b.version; order != 0) return order;
    if (auto order = a.tombstone <=> b.tombstone; order != 0) return order;
    return a.value_digest <=> b.value_digest;
  }
  friend bool operator==(const RecordSummary&, const RecordSummary&) = default;
  // Whether both say the same of their keys, maybe with another version.
  bool same_content(const RecordSummary& other) const {
    return tombstone == other.tombstone && value_bytes == other.value_bytes &&
           value_digest == other.value_digest;
  }
};

// A record in memory that somebody else owns.
struct RecordView {
  std::string_view key;
  std::string_view value;
  Version version;
  bool tombstone = false;

  RecordSummary summary() const { return {version, tombstone, value.size(), xxh3_128(value)}; }
};

struct Record {
  std::string key;
  std::string value;
  Version version;
  bool tombstone = false;
  RecordView view() const { return {key, value, version, tombstone}; }
};

// The slot of a key: the low slot_bits of XXH3-64. 1 <= slot_bits <= 20.
inline constexpr uint32_t kMaxSlotBits = 20;
inline uint32_t slot_of(std::string_view key, uint32_t slot_bits) {
  return static_cast<uint32_t>(xxh3_64(key) & ((uint64_t{1} << slot_bits) - 1));
}

// Slots of a backup beyond those of records are of its trees: the bits above kMaxSlotBits are the
// tree's number, from 1; those below the shard, whose slot_bits are the backup's.
inline constexpr uint32_t kMaxTreeNumber = (uint32_t{1} << (32 - kMaxSlotBits)) - 1;
inline uint32_t tree_number_of(uint32_t slot) { return slot >> kMaxSlotBits; }
inline uint32_t shard_of(uint32_t slot) { return slot & ((uint32_t{1} << kMaxSlotBits) - 1); }
inline uint32_t tree_slot(uint32_t number, uint32_t shard) {
  return number << kMaxSlotBits | shard;
}
// The shard of the key of a tree's record: the low slot_bits of XXH3-64 of the directory that the
// entry is in, "" for the root and what is right below it. So a directory's entries are together.
inline uint32_t tree_shard_of(std::string_view key, uint32_t slot_bits) {
  const std::string_view path = key.substr(0, key.find('\0'));
  const size_t slash = path.rfind('/');
  return slot_of(slash == std::string_view::npos ? std::string_view() : path.substr(0, slash),
                 slot_bits);
}
inline bool is_of_slot(std::string_view key, uint32_t slot, uint32_t slot_bits) {
  return tree_number_of(slot) == 0 ? slot_of(key, slot_bits) == slot
                                   : tree_shard_of(key, slot_bits) == shard_of(slot);
}
inline bool is_possible_slot(uint32_t slot, uint32_t slot_bits) {
  return shard_of(slot) < uint32_t{1} << slot_bits;
}

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_BLOCK_RECORD_H_
