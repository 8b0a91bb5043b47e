// Offsets and codes of the block format, shared by builder and reader. docs/formats.md says what
// they mean.
#ifndef SLUICE_DATAPLANE_BLOCK_LAYOUT_H_
#define SLUICE_DATAPLANE_BLOCK_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "dataplane/block/block.h"

namespace sluice::block_layout {

inline constexpr uint32_t kMagic = 0x4b424c53;  // "SLBK"
inline constexpr uint16_t kFormatVersion = 1;

// Header. Checksum, magic, version, header length and stored length keep their places in every
// version, so that an older build can tell a damaged block from a newer one.
inline constexpr size_t kChecksum = 0;
inline constexpr size_t kMagicAt = 8;
inline constexpr size_t kVersion = 12;
inline constexpr size_t kHeaderBytes = 14;
inline constexpr size_t kStoredBytes = 16;
inline constexpr size_t kRawBytes = 20;
inline constexpr size_t kSlot = 24;
inline constexpr size_t kEntries = 28;
inline constexpr size_t kFlags = 32;
inline constexpr size_t kSlotBits = 36;
inline constexpr size_t kCodec = 37;
inline constexpr size_t kCipher = 38;
inline constexpr size_t kFirstKeyBytes = 40;
inline constexpr size_t kLastKeyBytes = 42;
inline constexpr size_t kKeyId = 44;
inline constexpr size_t kBaseMs = 48;
inline constexpr size_t kNonce = 56;  // 12 bytes
inline constexpr size_t kTag = 68;    // 16 bytes
inline constexpr size_t kReserved = 84;
static_assert(kReserved + 4 == BlockHeader::kBytes);

// An entry's first byte.
inline constexpr uint8_t kTombstone = 1;
inline constexpr uint8_t kFragment = 2;
inline constexpr uint8_t kSameKeyBytes = 4;
inline constexpr uint8_t kSameValueBytes = 8;
inline constexpr uint8_t kSameNode = 16;
inline constexpr uint8_t kCounterZero = 32;
inline constexpr uint8_t kKnownTags = 63;

// Tag 1, shared 2, key length 2, value length 4, ms 7, counter 3, node 5, fragment offset 4,
// fragment length 3.
inline constexpr size_t kMaxEntryHead = 31;

inline constexpr uint64_t kMaxMs = (uint64_t{1} << 48) - 1;

inline uint64_t zigzag(int64_t value) {
  return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63);
}
inline int64_t unzigzag(uint64_t value) {
  return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}

}  // namespace sluice::block_layout

#endif  // SLUICE_DATAPLANE_BLOCK_LAYOUT_H_
