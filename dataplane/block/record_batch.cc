#include "dataplane/block/record_batch.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/arena.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr uint32_t kBatchMagic = 0x42524c53;  // "SLRB"
constexpr uint16_t kBatchVersion = 1;

// Where the header's fields stand.
constexpr size_t kBatchChecksumAt = 0;
constexpr size_t kBatchMagicAt = 8;
constexpr size_t kBatchVersionAt = 12;
constexpr size_t kBatchFlagsAt = 14;
constexpr size_t kBatchRecordsAt = 16;
constexpr size_t kBatchBytesAt = 20;
static_assert(kBatchBytesAt + 4 == RecordBatchBuilder::kHeaderBytes);

uint8_t* put_varint(uint8_t* at, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *at++ = static_cast<uint8_t>(value | 0x80);
  *at++ = static_cast<uint8_t>(value);
  return at;
}

uint64_t value_word(const RecordView& record) {
  return uint64_t{record.value.size()} << 1 | (record.tombstone ? 1 : 0);
}

}  // namespace

size_t RecordBatchBuilder::bytes_of(const RecordView& record) {
  return varint_size(record.key.size()) + varint_size(value_word(record)) + record.key.size() +
         record.value.size();
}

void RecordBatchBuilder::begin(std::span<uint8_t> memory) {
  memory_ = memory.first(std::min(memory.size(), kMaxBlockBytes));
  assert(memory_.size() >= kHeaderBytes);
  used_ = kHeaderBytes;
  records_ = 0;
}

bool RecordBatchBuilder::add(const RecordView& record) {
  const size_t bytes = bytes_of(record);
  if (bytes > memory_.size() - used_) return false;
  uint8_t* at = put_varint(memory_.data() + used_, record.key.size());
  at = put_varint(at, value_word(record));
  std::memcpy(at, record.key.data(), record.key.size());
  at += record.key.size();
  if (!record.value.empty()) std::memcpy(at, record.value.data(), record.value.size());
  used_ += bytes;
  ++records_;
  return true;
}

uint32_t RecordBatchBuilder::finish() {
  uint8_t* const at = memory_.data();
  store_le<uint32_t>(at + kBatchMagicAt, kBatchMagic);
  store_le<uint16_t>(at + kBatchVersionAt, kBatchVersion);
  store_le<uint16_t>(at + kBatchFlagsAt, 0);
  store_le<uint32_t>(at + kBatchRecordsAt, records_);
  store_le<uint32_t>(at + kBatchBytesAt, static_cast<uint32_t>(used_));
  store_le<uint64_t>(at + kBatchChecksumAt, xxh3_64(at + kBatchMagicAt, used_ - kBatchMagicAt));
  return static_cast<uint32_t>(used_);
}

absl::StatusOr<RecordBatchReader> RecordBatchReader::open(std::span<const uint8_t> batch) {
  if (batch.size() < RecordBatchBuilder::kHeaderBytes || batch.size() > kMaxBlockBytes) {
    return data_loss("a batch of records of {} bytes", batch.size());
  }
  const uint8_t* const at = batch.data();
  if (load_le<uint32_t>(at + kBatchMagicAt) != kBatchMagic)
    return data_loss("not a batch of records");
  if (load_le<uint64_t>(at + kBatchChecksumAt) !=
      xxh3_64(at + kBatchMagicAt, batch.size() - kBatchMagicAt)) {
    return data_loss("the checksum of a batch of records does not match");
  }
  if (const uint16_t version = load_le<uint16_t>(at + kBatchVersionAt); version != kBatchVersion) {
    return failed_precondition("a batch of records in format {}, this build knows {}", version,
                               kBatchVersion);
  }
  if (load_le<uint16_t>(at + kBatchFlagsAt) != 0 ||
      load_le<uint32_t>(at + kBatchBytesAt) != batch.size()) {
    return data_loss("a batch of records with an impossible header");
  }
  return RecordBatchReader(load_le<uint32_t>(at + kBatchRecordsAt),
                           as_string_view(batch.subspan(RecordBatchBuilder::kHeaderBytes)));
}

absl::StatusOr<bool> RecordBatchReader::next(RecordView* record) {
  if (left_ == 0) {
    if (!in_.done()) return data_loss("a batch of records with more than its records");
    return false;
  }
  uint64_t key_bytes = 0;
  uint64_t value = 0;
  if (!in_.get_varint(&key_bytes) || !in_.get_varint(&value) || key_bytes == 0 ||
      key_bytes > kMaxKeyBytes || value >> 1 > kMaxBlockBytes ||
      !in_.get_bytes(key_bytes, &record->key) || !in_.get_bytes(value >> 1, &record->value)) {
    return data_loss("a batch of records with a record of impossible sizes");
  }
  record->tombstone = (value & 1) != 0;
  if (record->tombstone && !record->value.empty()) {
    return data_loss("a batch of records with a deletion that has a value");
  }
  record->version = {};
  --left_;
  return true;
}

}  // namespace sluice
