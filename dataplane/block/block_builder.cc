#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "base/bytes.h"
#include "dataplane/block/block.h"
#include "dataplane/block/layout.h"

namespace sluice {

using namespace block_layout;

// An entry's head without the parts that depend on how much of the value fits: where the entry
// goes, or in `aside` where the block may have no room for the longest head.
struct BlockBuilder::Encoded {
  uint8_t* begin = nullptr;
  uint8_t* end = nullptr;
  size_t shared = 0;
  std::array<uint8_t, kMaxEntryHead> aside;

  size_t bytes() const { return static_cast<size_t>(end - begin); }
  void put_varint(uint64_t value) {
    while (value >= 0x80) {
      *end++ = static_cast<uint8_t>(value | 0x80);
      value >>= 7;
    }
    *end++ = static_cast<uint8_t>(value);
  }
};

namespace {

size_t common_prefix(const uint8_t* a, const uint8_t* b, size_t size) {
  size_t at = 0;
  for (; at + sizeof(uint64_t) <= size; at += sizeof(uint64_t)) {
    const uint64_t differs = load_le<uint64_t>(a + at) ^ load_le<uint64_t>(b + at);
    if (differs != 0) return at + static_cast<size_t>(std::countr_zero(differs)) / 8;
  }
  while (at < size && a[at] == b[at]) ++at;
  return at;
}

// Of a block that holds nothing but this record.
size_t whole_bytes(const BlockEntry& entry) {
  const uint64_t counter = entry.version.stamp & 0xffff;
  size_t head = 1 + varint_size(0) + varint_size(entry.key.size()) + varint_size(0);
  if (entry.value_bytes != 0) head += varint_size(entry.value_bytes);
  if (counter != 0) head += varint_size(counter);
  if (entry.version.node != 0) head += varint_size(entry.version.node);
  return BlockHeader::kBytes + head + entry.key.size() + entry.value_bytes;
}

}  // namespace

BlockBuilder::BlockBuilder() = default;

void BlockBuilder::begin(std::span<uint8_t> memory, uint32_t slot, uint32_t slot_bits) {
  assert(memory.size() >= kMinMemory);
  assert(slot_bits >= 1 && slot_bits <= kMaxSlotBits && is_possible_slot(slot, slot_bits));
  memory_ = memory.first(std::min(memory.size(), kMaxBlockBytes));
  slot_ = slot;
  slot_bits_ = slot_bits;
  used_ = BlockHeader::kBytes;
  entries_ = 0;
  flags_ = 0;
  base_ms_ = 0;
  first_key_bytes_ = 0;
  value_bytes_ = 0;
  node_ = 0;
  key_bytes_ = 0;
}

void BlockBuilder::encode_head(const BlockEntry& entry, Encoded& out) {
  const auto* key = reinterpret_cast<const uint8_t*>(entry.key.data());
  out.shared = common_prefix(key_.data(), key, std::min(key_bytes_, entry.key.size()));
  assert(entries_ == 0 || (out.shared < entry.key.size() &&
                           (out.shared == key_bytes_ || key_[out.shared] < key[out.shared])));
  const uint64_t ms = Version::stamp_ms(entry.version.stamp);
  const uint64_t counter = entry.version.stamp & 0xffff;
  const uint64_t base = entries_ == 0 ? ms : base_ms_;
  const bool same_key_bytes = entry.key.size() == key_bytes_;
  const bool same_value_bytes = entry.value_bytes == value_bytes_;
  const bool same_node = entry.version.node == node_;
  out.begin = memory_.size() - used_ >= kMaxEntryHead ? memory_.data() + used_ : out.aside.data();
  out.end = out.begin;
  *out.end++ = static_cast<uint8_t>(
      (entry.tombstone ? kTombstone : 0) | (same_key_bytes ? kSameKeyBytes : 0) |
      (same_value_bytes ? kSameValueBytes : 0) | (same_node ? kSameNode : 0) |
      (counter == 0 ? kCounterZero : 0));
  out.put_varint(out.shared);
  if (!same_key_bytes) out.put_varint(entry.key.size());
  if (!same_value_bytes) out.put_varint(entry.value_bytes);
  out.put_varint(zigzag(static_cast<int64_t>(ms) - static_cast<int64_t>(base)));
  if (counter != 0) out.put_varint(counter);
  if (!same_node) out.put_varint(entry.version.node);
}

// How many bytes of the value go into this block; kFull for none. `head` is the room taken by all
// else.
size_t BlockBuilder::fragment_room(const BlockEntry& entry, size_t want, size_t head) const {
  const size_t room = memory_.size() - used_;
  if (entry.fragment_offset == 0 && want == entry.value_bytes && head + want <= room) return want;
  // From here on it is a fragment, with its offset and length.
  const size_t more = varint_size(entry.fragment_offset) + varint_size(want);
  if (head + more >= room) return kFull;
  const size_t left = room - head - more;
  if (entries_ == 0) return std::min(want, left);
  if (entry.fragment_offset > 0) return kFull;
  const bool fits_empty = whole_bytes(entry) <= memory_.size();
  if (fits_empty || left < std::min(kMinFragment, want)) return kFull;
  return std::min(want, left);
}

std::span<uint8_t> BlockBuilder::reserve(const BlockEntry& entry, size_t want) {
  assert(!entry.key.empty() && entry.key.size() <= kMaxKeyBytes);
  assert(entry.value_bytes <= kMaxValueBytes && !(entry.tombstone && entry.value_bytes > 0));
  assert(entry.fragment_offset + want <= entry.value_bytes);
  assert(want > 0 || entry.value_bytes == 0);
  assert(is_of_slot(entry.key, slot_, slot_bits_));
  if ((flags_ & BlockHeader::kContinues) != 0) return {};

  Encoded head;
  encode_head(entry, head);
  const size_t unshared = entry.key.size() - head.shared;
  const size_t last_key_copy = entries_ == 0 ? 0 : entry.key.size();
  const size_t bytes = fragment_room(entry, want, head.bytes() + unshared + last_key_copy);
  if (bytes == kFull) return {};

  if (entries_ == 0) {
    base_ms_ = Version::stamp_ms(entry.version.stamp);
    first_key_bytes_ = static_cast<uint16_t>(entry.key.size());
    if (entry.fragment_offset > 0) flags_ |= BlockHeader::kContinued;
  }
  if (bytes != entry.value_bytes) {
    *head.begin |= kFragment;
    head.put_varint(entry.fragment_offset);
    head.put_varint(bytes);
    if (entry.fragment_offset + bytes != entry.value_bytes) flags_ |= BlockHeader::kContinues;
  }
  if (head.begin == head.aside.data()) {
    std::memcpy(memory_.data() + used_, head.begin, head.bytes());
  }
  used_ += head.bytes();
  const char* rest_of_key = entry.key.data() + head.shared;
  std::memcpy(memory_.data() + used_, rest_of_key, unshared);
  std::memcpy(key_.data() + head.shared, rest_of_key, unshared);
  used_ += unshared;
  const std::span<uint8_t> fragment = memory_.subspan(used_, bytes);
  used_ += bytes;
  key_bytes_ = entry.key.size();
  value_bytes_ = entry.value_bytes;
  node_ = entry.version.node;
  ++entries_;
  return fragment;
}

size_t BlockBuilder::add(const BlockEntry& entry) {
  const std::span<uint8_t> into = reserve(entry, entry.fragment.size());
  if (into.data() == nullptr) return kFull;
  if (!into.empty()) std::memcpy(into.data(), entry.fragment.data(), into.size());
  return into.size();
}

uint32_t BlockBuilder::finish() {
  assert(entries_ > 0);
  if (entries_ > 1) {
    std::memcpy(memory_.data() + used_, key_.data(), key_bytes_);
    used_ += key_bytes_;
  }
  uint8_t* header = memory_.data();
  std::memset(header, 0, BlockHeader::kBytes);
  store_le(header + kMagicAt, kMagic);
  store_le(header + kVersion, kFormatVersion);
  store_le(header + kHeaderBytes, static_cast<uint16_t>(BlockHeader::kBytes));
  store_le(header + kStoredBytes, static_cast<uint32_t>(used_));
  store_le(header + kRawBytes, static_cast<uint32_t>(used_ - BlockHeader::kBytes));
  store_le(header + kSlot, slot_);
  store_le(header + kEntries, entries_);
  store_le(header + kFlags, flags_);
  header[kSlotBits] = static_cast<uint8_t>(slot_bits_);
  store_le(header + kFirstKeyBytes, first_key_bytes_);
  store_le(header + kLastKeyBytes, static_cast<uint16_t>(key_bytes_));
  store_le(header + kBaseMs, base_ms_);
  store_le(header + kChecksum, xxh3_64(header + kMagicAt, used_ - kMagicAt));
  entries_ = 0;
  return static_cast<uint32_t>(used_);
}

}  // namespace sluice
