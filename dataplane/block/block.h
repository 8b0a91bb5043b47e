// The block: the unit of everything. At most kMaxBlockBytes, records of one slot only, in key
// order, self-describing, with a checksum over all of it. The same bytes are packed at a source,
// sent, received, written to a segment, read again and sent in a restore. docs/formats.md has the
// layout to the byte.
//
// A value that does not fit is cut into fragments over consecutive blocks of the slot; blocks that
// share a record in this way are a run (kContinued on every block of the run but the first: its
// first entry goes on with a value; kContinues on every one but the last). A whole record is a
// fragment at offset 0 with all of its value's bytes.
#ifndef SLUICE_DATAPLANE_BLOCK_BLOCK_H_
#define SLUICE_DATAPLANE_BLOCK_BLOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "base/bytes.h"
#include "dataplane/block/record.h"

namespace sluice {

// The fixed part at a block's start, decoded.
struct BlockHeader {
  static constexpr size_t kBytes = 88;
  static constexpr uint32_t kContinued =
      1;  // the first entry is not the first fragment of its value
  static constexpr uint32_t kContinues = 2;  // the last entry is not the last fragment of its value

  uint64_t checksum = 0;  // XXH3-64 of everything after it: the rest of the header, and the payload
  uint16_t format_version = 1;
  uint32_t flags = 0;
  uint32_t slot = 0;
  uint8_t slot_bits = 0;
  uint32_t entries = 0;
  uint32_t stored_bytes =
      0;  // of the whole block with its header: what is sent and stored, without padding
  uint32_t raw_bytes = 0;  // of the payload before codec and cipher
  uint16_t first_key_bytes = 0;
  uint16_t last_key_bytes = 0;
  uint64_t base_ms = 0;  // what the entries' stamps are relative to
};

// One record, or one fragment of a record.
struct BlockEntry {
  std::string_view key;
  Version version;
  bool tombstone = false;
  uint64_t value_bytes = 0;      // of the whole value
  uint64_t fragment_offset = 0;  // of `fragment` in it
  std::string_view fragment;

  bool whole() const { return fragment.size() == value_bytes; }
  bool last() const { return fragment_offset + fragment.size() == value_bytes; }
};

// Packs one block into memory it is given (the one gather copy of a backup). Confined to one
// thread; no allocation after construction.
class BlockBuilder {
 public:
  static constexpr size_t kFull = ~size_t{0};
  static constexpr size_t kMinFragment = 64 << 10;
  static constexpr size_t kMinMemory = 8 << 10;

  BlockBuilder();
  // Begins a block in `memory` (kMinMemory or more), of which it uses at most kMaxBlockBytes, for
  // a possible slot (record.h). What an unfinished block held is forgotten.
  void begin(std::span<uint8_t> memory, uint32_t slot, uint32_t slot_bits);
  // Adds as much of the entry's fragment as fits and returns how many of its bytes that was; kFull
  // when nothing of it fits and the block must be finished first. A value that fits an empty block
  // is never cut; another is cut where the block ends, in a block that is empty or has room for
  // kMinFragment of it. After less than the rest of the value has been added the block is full, and
  // the value goes on as the next block's first entry. Keys must be of the block's slot and in
  // ascending order, each once; key and value sizes must be legal.
  size_t add(const BlockEntry& entry);
  // Adds the entry with the next fragment of at most `want` bytes (entry.fragment is not looked at)
  // and returns where that fragment's bytes go, which the caller must fill before finish(): a
  // reader of a store can copy straight into the block. Same rules as add(). data() is null when
  // the block is full, and only then.
  std::span<uint8_t> reserve(const BlockEntry& entry, size_t want);
  bool empty() const { return entries_ == 0; }
  // Bytes that the block takes if finished now.
  size_t bytes() const { return used_ + (entries_ > 1 ? key_bytes_ : 0); }
  // Seals the block: header, checksum. Returns its stored length. There must be an entry.
  uint32_t finish();

 private:
  struct Encoded;
  void encode_head(const BlockEntry& entry, Encoded& out);
  size_t fragment_room(const BlockEntry& entry, size_t want, size_t head) const;

  std::span<uint8_t> memory_;
  uint32_t slot_ = 0;
  uint32_t slot_bits_ = 0;
  size_t used_ = 0;
  uint32_t entries_ = 0;
  uint32_t flags_ = 0;
  uint64_t base_ms_ = 0;
  uint16_t first_key_bytes_ = 0;
  // The last entry: the next one is encoded relative to it.
  uint64_t value_bytes_ = 0;
  uint32_t node_ = 0;
  size_t key_bytes_ = 0;
  std::array<uint8_t, kMaxKeyBytes> key_;
};

// Checks and reads a block in hostile memory. open() verifies magic, version, lengths, flags and
// the checksum; next() checks every entry (order, sizes, slot of the key, fragment rules) before it
// is handed out. Views point into the block, except an entry's key, which points into the reader
// until the next call. Confined to one thread; the block must outlive it.
class BlockReader {
 public:
  // `bytes` may be longer than the block (padding, trailer). DATA_LOSS with what is wrong;
  // FAILED_PRECONDITION for a format version, codec or cipher this build does not know.
  static absl::StatusOr<BlockReader> open(std::span<const uint8_t> bytes);
  // The same without the checksum, for a block whose checksum this process has verified since it
  // came from a wire or a disk.
  static absl::StatusOr<BlockReader> open_verified(std::span<const uint8_t> bytes);
  const BlockHeader& header() const { return header_; }
  // The keys of the first and last entry, without reading what is between. Views into the block.
  // What next() hands out is proven to lie between them once it has returned false.
  absl::StatusOr<std::string_view> first_key() const;
  absl::StatusOr<std::string_view> last_key() const;
  // False at the end. DATA_LOSS when the payload breaks the format although the checksum holds
  // (hostile or a defect).
  absl::StatusOr<bool> next(BlockEntry* entry);

 private:
  struct Head;
  explicit BlockReader(const BlockHeader& header, std::span<const uint8_t> block);
  absl::Status read_head(ByteReader& in, Head* head) const;
  absl::Status check_fragment(const Head& head) const;
  absl::Status read_key(ByteReader& in, const Head& head);
  absl::Status check_end() const;

  BlockHeader header_;
  std::span<const uint8_t> block_;  // the whole of it
  size_t at_ = BlockHeader::kBytes;
  size_t end_ = 0;  // of the entries; the last key follows
  uint32_t entries_ = 0;
  uint64_t value_bytes_ = 0;
  uint32_t node_ = 0;
  size_t key_bytes_ = 0;
  std::array<char, kMaxKeyBytes> key_{};
};

// The header alone, with its own plausibility checks but without the checksum over the payload.
// Same errors as open().
absl::StatusOr<BlockHeader> peek_block_header(std::span<const uint8_t> bytes);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_BLOCK_BLOCK_H_
