#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/block/block.h"
#include "dataplane/block/layout.h"

namespace sluice {

using namespace block_layout;

namespace {

bool all_zero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

// What must hold before the checksum can be computed.
absl::Status check_frame(std::span<const uint8_t> bytes) {
  if (bytes.size() < BlockHeader::kBytes) {
    return data_loss("block: {} bytes are too few for a header", bytes.size());
  }
  if (load_le<uint32_t>(bytes.data() + kMagicAt) != kMagic)
    return data_loss("block: no magic number");
  const auto stored = load_le<uint32_t>(bytes.data() + kStoredBytes);
  if (stored < BlockHeader::kBytes || stored > kMaxBlockBytes) {
    return data_loss("block: implausible length {}", stored);
  }
  return absl::OkStatus();
}

absl::Status check_known(const uint8_t* header) {
  const auto version = load_le<uint16_t>(header + kVersion);
  if (version != kFormatVersion) {
    return failed_precondition("block: format version {}; this build reads {}", version,
                               kFormatVersion);
  }
  if (header[kCodec] != 0) {
    return failed_precondition("block: codec {} is not known to this build", header[kCodec]);
  }
  if (header[kCipher] != 0) {
    return failed_precondition("block: cipher {} is not known to this build", header[kCipher]);
  }
  const auto flags = load_le<uint32_t>(header + kFlags);
  if ((flags & ~(BlockHeader::kContinued | BlockHeader::kContinues)) != 0) {
    return failed_precondition("block: flags {:#x} are not known to this build", flags);
  }
  return absl::OkStatus();
}

absl::Status check_plausible(const BlockHeader& header, const uint8_t* bytes) {
  if (load_le<uint16_t>(bytes + kHeaderBytes) != BlockHeader::kBytes) {
    return data_loss("block: header length is not {}", BlockHeader::kBytes);
  }
  if (header.raw_bytes != header.stored_bytes - BlockHeader::kBytes) {
    return data_loss("block: {} stored bytes, but {} raw ones without a codec", header.stored_bytes,
                     header.raw_bytes);
  }
  if (header.slot_bits < 1 || header.slot_bits > kMaxSlotBits ||
      !is_possible_slot(header.slot, header.slot_bits)) {
    return data_loss("block: slot {} of {} slot bits", header.slot, header.slot_bits);
  }
  // An entry takes 4 bytes or more: tag, shared length, stamp, one byte of key.
  if (header.entries == 0 || header.entries > header.raw_bytes / 4) {
    return data_loss("block: {} entries in {} bytes", header.entries, header.raw_bytes);
  }
  const auto legal = [](uint16_t size) { return size >= 1 && size <= kMaxKeyBytes; };
  if (!legal(header.first_key_bytes) || !legal(header.last_key_bytes) ||
      (header.entries == 1 && header.first_key_bytes != header.last_key_bytes) ||
      header.first_key_bytes + (header.entries == 1 ? 0u : header.last_key_bytes) >
          header.raw_bytes) {
    return data_loss("block: key lengths {} and {}", header.first_key_bytes, header.last_key_bytes);
  }
  if (header.base_ms > kMaxMs) return data_loss("block: base stamp out of range");
  if (bytes[kCipher + 1] != 0 || load_le<uint32_t>(bytes + kKeyId) != 0 ||
      !all_zero({bytes + kNonce, BlockHeader::kBytes - kNonce})) {
    return data_loss("block: reserved header bytes are in use");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BlockHeader> peek_block_header(std::span<const uint8_t> bytes) {
  SLUICE_RETURN_IF_ERROR(check_frame(bytes));
  const uint8_t* from = bytes.data();
  SLUICE_RETURN_IF_ERROR(check_known(from));
  BlockHeader header;
  header.checksum = load_le<uint64_t>(from + kChecksum);
  header.format_version = load_le<uint16_t>(from + kVersion);
  header.flags = load_le<uint32_t>(from + kFlags);
  header.slot = load_le<uint32_t>(from + kSlot);
  header.slot_bits = from[kSlotBits];
  header.entries = load_le<uint32_t>(from + kEntries);
  header.stored_bytes = load_le<uint32_t>(from + kStoredBytes);
  header.raw_bytes = load_le<uint32_t>(from + kRawBytes);
  header.first_key_bytes = load_le<uint16_t>(from + kFirstKeyBytes);
  header.last_key_bytes = load_le<uint16_t>(from + kLastKeyBytes);
  header.base_ms = load_le<uint64_t>(from + kBaseMs);
  SLUICE_RETURN_IF_ERROR(check_plausible(header, from));
  return header;
}

absl::StatusOr<BlockReader> BlockReader::open(std::span<const uint8_t> bytes) {
  SLUICE_RETURN_IF_ERROR(check_frame(bytes));
  const auto stored = load_le<uint32_t>(bytes.data() + kStoredBytes);
  if (stored > bytes.size()) {
    return data_loss("block: {} bytes long, cut off at {}", stored, bytes.size());
  }
  const auto checksum = load_le<uint64_t>(bytes.data() + kChecksum);
  if (xxh3_64(bytes.data() + kMagicAt, stored - kMagicAt) != checksum) {
    return data_loss("block: checksum mismatch");
  }
  return open_verified(bytes);
}

absl::StatusOr<BlockReader> BlockReader::open_verified(std::span<const uint8_t> bytes) {
  SLUICE_ASSIGN_OR_RETURN(const BlockHeader header, peek_block_header(bytes));
  if (header.stored_bytes > bytes.size()) {
    return data_loss("block: {} bytes long, cut off at {}", header.stored_bytes, bytes.size());
  }
  return BlockReader(header, bytes.first(header.stored_bytes));
}

BlockReader::BlockReader(const BlockHeader& header, std::span<const uint8_t> block)
    : header_(header),
      block_(block),
      end_(header.stored_bytes - (header.entries == 1 ? 0u : header.last_key_bytes)) {}

// What stands before an entry's key and value.
struct BlockReader::Head {
  uint8_t tag = 0;
  size_t shared = 0;
  size_t key_bytes = 0;
  uint64_t value_bytes = 0;
  Version version;
  uint64_t fragment_offset = 0;
  uint64_t fragment_bytes = 0;
};

absl::Status BlockReader::read_head(ByteReader& in, Head* head) const {
  uint64_t shared = 0;
  uint64_t key_bytes = key_bytes_;
  uint64_t value_bytes = value_bytes_;
  uint64_t delta = 0;
  uint64_t counter = 0;
  uint64_t node = node_;
  const auto optional = [&in, head](uint8_t omitted, uint64_t* value) {
    return (head->tag & omitted) != 0 || in.get_varint(value);
  };
  if (!in.get(&head->tag) || (head->tag & ~kKnownTags) != 0 || !in.get_varint(&shared) ||
      !optional(kSameKeyBytes, &key_bytes) || !optional(kSameValueBytes, &value_bytes) ||
      !in.get_varint(&delta) || !optional(kCounterZero, &counter) || !optional(kSameNode, &node)) {
    return data_loss("block: entry {} is malformed", entries_);
  }
  head->fragment_bytes = value_bytes;
  if ((head->tag & kFragment) != 0 &&
      (!in.get_varint(&head->fragment_offset) || !in.get_varint(&head->fragment_bytes))) {
    return data_loss("block: entry {} is malformed", entries_);
  }
  if (key_bytes < 1 || key_bytes > kMaxKeyBytes || shared >= key_bytes || shared > key_bytes_) {
    return data_loss("block: entry {} has a key of {} bytes, {} of them shared", entries_,
                     key_bytes, shared);
  }
  if (value_bytes > kMaxValueBytes || ((head->tag & kTombstone) != 0 && value_bytes != 0)) {
    return data_loss("block: entry {} has a value of {} bytes", entries_, value_bytes);
  }
  if (delta > 2 * kMaxMs + 1 || counter > 0xffff || node > ~uint32_t{0}) {
    return data_loss("block: entry {} has an impossible version", entries_);
  }
  const int64_t ms = static_cast<int64_t>(header_.base_ms) + unzigzag(delta);
  if (ms < 0 || ms > static_cast<int64_t>(kMaxMs)) {
    return data_loss("block: entry {} has an impossible version", entries_);
  }
  head->shared = static_cast<size_t>(shared);
  head->key_bytes = static_cast<size_t>(key_bytes);
  head->value_bytes = value_bytes;
  head->version = {Version::make_stamp(static_cast<uint64_t>(ms), static_cast<uint16_t>(counter)),
                   static_cast<uint32_t>(node)};
  return check_fragment(*head);
}

// Only the first entry may go on with a value, only the last may leave one unfinished, and the
// header says so.
absl::Status BlockReader::check_fragment(const Head& head) const {
  const bool fragment = (head.tag & kFragment) != 0;
  const uint64_t value = head.value_bytes;
  const bool legal = !fragment || (head.fragment_bytes > 0 && head.fragment_bytes < value &&
                                   head.fragment_offset <= value - head.fragment_bytes);
  const bool continued = head.fragment_offset > 0;
  const bool continues = legal && head.fragment_offset + head.fragment_bytes < value;
  const bool first = entries_ == 0;
  const bool last = entries_ + 1 == header_.entries;
  const bool may_be_continued = first && (header_.flags & BlockHeader::kContinued) != 0;
  const bool may_continue = last && (header_.flags & BlockHeader::kContinues) != 0;
  if (!legal || continued != may_be_continued || continues != may_continue) {
    return data_loss("block: entry {} breaks the fragment rules", entries_);
  }
  return absl::OkStatus();
}

absl::Status BlockReader::read_key(ByteReader& in, const Head& head) {
  std::string_view rest;
  if (!in.get_bytes(head.key_bytes - head.shared, &rest)) {
    return data_loss("block: entry {} passes the block's end", entries_);
  }
  // The shared part is all that is shared, so that one byte decides the order.
  if (head.shared < key_bytes_ &&
      static_cast<uint8_t>(rest[0]) <= static_cast<uint8_t>(key_[head.shared])) {
    return data_loss("block: entry {} is out of key order", entries_);
  }
  std::memcpy(key_.data() + head.shared, rest.data(), rest.size());
  key_bytes_ = head.key_bytes;
  if (!is_of_slot({key_.data(), key_bytes_}, header_.slot, header_.slot_bits)) {
    return data_loss("block: entry {} is not of slot {}", entries_, header_.slot);
  }
  if (entries_ == 0 && key_bytes_ != header_.first_key_bytes) {
    return data_loss("block: the first key has {} bytes, the header says {}", key_bytes_,
                     header_.first_key_bytes);
  }
  return absl::OkStatus();
}

absl::Status BlockReader::check_end() const {
  if (at_ != end_) return data_loss("block: {} bytes after the last entry", end_ - at_);
  const std::string_view key(key_.data(), key_bytes_);
  if (header_.entries > 1 && key != as_string_view(block_.subspan(end_))) {
    return data_loss("block: the last key is not the one after the entries");
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> BlockReader::next(BlockEntry* entry) {
  if (entries_ == header_.entries) {
    SLUICE_RETURN_IF_ERROR(check_end());
    return false;
  }
  ByteReader in(block_.subspan(at_, end_ - at_));
  Head head;
  SLUICE_RETURN_IF_ERROR(read_head(in, &head));
  SLUICE_RETURN_IF_ERROR(read_key(in, head));
  std::string_view fragment;
  if (!in.get_bytes(static_cast<size_t>(head.fragment_bytes), &fragment)) {
    return data_loss("block: entry {} passes the block's end", entries_);
  }
  at_ = end_ - in.remaining();
  value_bytes_ = head.value_bytes;
  node_ = head.version.node;
  ++entries_;
  entry->key = {key_.data(), key_bytes_};
  entry->version = head.version;
  entry->tombstone = (head.tag & kTombstone) != 0;
  entry->value_bytes = head.value_bytes;
  entry->fragment_offset = head.fragment_offset;
  entry->fragment = fragment;
  return true;
}

absl::StatusOr<std::string_view> BlockReader::first_key() const {
  BlockReader begin(header_, block_);
  BlockEntry entry;
  SLUICE_ASSIGN_OR_RETURN(const bool more, begin.next(&entry));
  if (!more) return data_loss("block: no entries");
  // The first entry shares nothing, so its key stands in the block, right before its value.
  const size_t value_at = begin.at_ - entry.fragment.size();
  return as_string_view(block_.subspan(value_at - entry.key.size(), entry.key.size()));
}

absl::StatusOr<std::string_view> BlockReader::last_key() const {
  if (header_.entries == 1) return first_key();
  return as_string_view(block_.subspan(end_));
}

}  // namespace sluice
