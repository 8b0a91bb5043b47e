#include "dataplane/block/slot_digest.h"

#include <cassert>
#include <cstring>

namespace sluice {

Digest128 record_digest(std::string_view key, const RecordSummary& summary) {
  assert(key.size() <= kMaxKeyBytes);
  uint8_t bytes[4 + kMaxKeyBytes + 8 + 4 + 1 + 8 + 16];
  uint8_t* at = bytes;
  const auto put = [&at](auto value) {
    store_le(at, value);
    at += sizeof(value);
  };
  put(static_cast<uint32_t>(key.size()));
  std::memcpy(at, key.data(), key.size());
  at += key.size();
  put(summary.version.stamp);
  put(summary.version.node);
  put(static_cast<uint8_t>(summary.tombstone ? 1 : 0));
  put(summary.value_bytes);
  put(summary.value_digest.low);
  put(summary.value_digest.high);
  return xxh3_128(bytes, static_cast<size_t>(at - bytes));
}

void SlotDigest::add(std::string_view key, const RecordSummary& summary) {
  add(record_digest(key, summary), key.size(), summary);
}

void SlotDigest::add(const Digest128& record, size_t key_bytes, const RecordSummary& summary) {
  sum += record;
  if (summary.tombstone) {
    ++tombstones;
  } else {
    ++records;
    bytes += key_bytes + summary.value_bytes;
  }
}

SlotDigest& SlotDigest::operator+=(const SlotDigest& other) {
  sum += other.sum;
  records += other.records;
  tombstones += other.tombstones;
  bytes += other.bytes;
  return *this;
}

void SlotDigest::remove(std::string_view key, const RecordSummary& summary) {
  sum -= record_digest(key, summary);
  if (summary.tombstone) {
    --tombstones;
  } else {
    --records;
    bytes -= key.size() + summary.value_bytes;
  }
}

void SlotDigest::encode(ByteWriter& out) const {
  out.put(sum.low);
  out.put(sum.high);
  out.put(records);
  out.put(tombstones);
  out.put(bytes);
}

bool SlotDigest::decode(ByteReader& in, SlotDigest* digest) {
  if (in.remaining() < kEncodedBytes) return false;
  return in.get(&digest->sum.low) && in.get(&digest->sum.high) && in.get(&digest->records) &&
         in.get(&digest->tombstones) && in.get(&digest->bytes);
}

}  // namespace sluice
