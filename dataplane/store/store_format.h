// The rows of a store's RocksDB: keys and values, to the byte.
//
// records:   slot (u32, big-endian), key                       -> stored record
// fragments: slot (u32, big-endian), escaped key, set, offset  -> a row of a value
// meta:      names below                                       -> the store's own rows
//
// A value of more than kInlineBytes is kept as fragment rows. All rows of one written value carry
// the same set, a number never used twice in a folder: a value that is being staged can so never
// touch the rows of a visible one, even if both claim the same version. The key is escaped (0x00
// becomes 0x00 0xff, the end is 0x00 0x00), so that it delimits itself and rows keep key order.
#ifndef SLUICE_DATAPLANE_STORE_STORE_FORMAT_H_
#define SLUICE_DATAPLANE_STORE_STORE_FORMAT_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "dataplane/block/record.h"
#include "dataplane/store/store.h"

namespace sluice {

inline constexpr size_t kInlineBytes = size_t{64} << 10;
// A value of n bytes has ceil(n / kFragmentRowBytes) rows, each full but the last: where they are
// follows from its length.
inline constexpr size_t kFragmentRowBytes = size_t{128} << 10;
inline uint64_t fragment_row_begin(uint64_t offset) { return offset - offset % kFragmentRowBytes; }

void put_big_endian32(std::string* out, uint32_t value);
void put_big_endian64(std::string* out, uint64_t value);
uint32_t get_big_endian32(const char* from);
uint64_t get_big_endian64(const char* from);

std::string record_row_key(uint32_t slot, std::string_view key);
// The first row key of a slot; of slot + 1 it is the bound after the slot.
std::string slot_row_prefix(uint32_t slot);

// A row's key is its set's prefix and the offset of its first byte in the value (u64, big-endian).
std::string fragment_row_prefix(uint32_t slot, std::string_view key, uint64_t set);
std::string fragment_row_key(std::string_view prefix, uint64_t offset);

// A row of `records`: stamp (u64), node (u32), flags (u8: 1 tombstone, 2 fragments), value length
// (u64), value digest (low, high u64), then the set (u64) or the value itself.
struct StoredRecord {
  RecordSummary summary;
  bool fragmented = false;
  uint64_t set = 0;
  std::string_view inline_value;
};
std::string encode_stored_head(const RecordSummary& summary, bool fragmented, uint64_t set);
// The part before the set or the value, written to and read from memory of that length.
inline constexpr size_t kStoredHeadBytes = 37;
void store_stored_head(char* at, const RecordSummary& summary, bool fragmented);
RecordSummary load_stored_head(const char* at);
bool decode_stored(std::string_view row, StoredRecord* stored);

// Rows of `meta`.
inline constexpr std::string_view kIdentityRow = "identity";
inline constexpr std::string_view kIncarnationRow = "incarnation";  // u64
inline constexpr std::string_view kJoinRow = "join";                // Store::Found
inline constexpr std::string_view kCeilingRow = "clock_ceiling";    // u64
inline constexpr std::string_view kLastCutRow =
    "last_cut";  // u64, the largest T a cut was taken for
inline constexpr std::string_view kIngestedRow =
    "ingested";  // u64, counts ingestions: they take no number of the log's sequence
inline constexpr std::string_view kCutPrefix = "cut/";  // + backup -> CutInfo
inline constexpr std::string_view kAttemptPrefix =
    "attempt/";  // + job -> u64, the highest attempt seen
inline constexpr std::string_view kDigestPrefix = "digest/";  // + slot (big-endian) -> SlotDigest
inline constexpr std::string_view kStagingPrefix =
    "staging/";  // + slot, set (big-endian) -> length (u64), key

std::string digest_row_key(uint32_t slot);
std::string staging_row_key(uint32_t slot, uint64_t set);
std::string cut_row_key(std::string_view backup);
std::string attempt_row_key(std::string_view job);
std::string encode_u64(uint64_t value);
bool decode_u64(std::string_view row, uint64_t* value);
std::string encode_digest(const SlotDigest& digest);
bool decode_digest(std::string_view row, SlotDigest* digest);
std::string encode_cut(const CutInfo& cut);
bool decode_cut(std::string_view backup, std::string_view row, CutInfo* cut);

// The token of the join that was confirmed last, the token of one that is under way (or empty), and
// the sequence number (u64) that the folder had when that one began.
std::string encode_found(const Store::Found& found);
bool decode_found(std::string_view row, Store::Found* found);

struct StoreIdentity {
  static constexpr uint32_t kFormat = 1;
  uint32_t format = kFormat;
  std::string cluster;
  std::string node;
  uint32_t node_number = 0;
  uint32_t slot_bits = 0;
  std::string store_id;
};
std::string encode_identity(const StoreIdentity& identity);
bool decode_identity(std::string_view row, StoreIdentity* identity);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_STORE_FORMAT_H_
