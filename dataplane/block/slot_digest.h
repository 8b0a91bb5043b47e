// The digest of one copy: equal digests mean equal copies, whatever order the records were written
// in.
//
// It is the sum mod 2^128 of a digest of each record (key, version, flag, value length and value
// digest), which makes it order-independent and updatable: a write subtracts the record it replaces
// and adds the new one. (Bellare, Micciancio: A New Paradigm for Collision-Free Hashing:
// Incrementality at Reduced Cost, EUROCRYPT 1997; AdHash. It guards against faults, not against an
// adversary who can choose records.)
#ifndef SLUICE_DATAPLANE_BLOCK_SLOT_DIGEST_H_
#define SLUICE_DATAPLANE_BLOCK_SLOT_DIGEST_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/checksum.h"
#include "dataplane/block/record.h"

namespace sluice {

// XXH3-128 over: key length (u32), key, stamp (u64), node (u32), tombstone (u8), value length
// (u64), value digest (low, high u64).
Digest128 record_digest(std::string_view key, const RecordSummary& summary);

struct SlotDigest {
  Digest128 sum;
  uint64_t records = 0;  // live ones
  uint64_t tombstones = 0;
  uint64_t bytes = 0;  // keys and values of live records

  void add(std::string_view key, const RecordSummary& summary);
  // The same, where the record's digest is known already.
  void add(const Digest128& record, size_t key_bytes, const RecordSummary& summary);
  // Of records that are not in this one.
  SlotDigest& operator+=(const SlotDigest& other);
  void remove(std::string_view key, const RecordSummary& summary);
  bool empty() const { return records == 0 && tombstones == 0; }
  friend bool operator==(const SlotDigest&, const SlotDigest&) = default;

  // 40 bytes: sum low, sum high, records, tombstones, bytes, each a u64.
  static constexpr size_t kEncodedBytes = 40;
  void encode(ByteWriter& out) const;
  static bool decode(ByteReader& in, SlotDigest* digest);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_BLOCK_SLOT_DIGEST_H_
