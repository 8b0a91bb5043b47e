#include "dataplane/store/store_format.h"

#include "base/bytes.h"

namespace sluice {
namespace {

constexpr uint8_t kTombstoneFlag = 1;
constexpr uint8_t kFragmentsFlag = 2;
constexpr size_t kNameLimit = 4096;

}  // namespace

void put_big_endian32(std::string* out, uint32_t value) {
  value = __builtin_bswap32(value);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_big_endian64(std::string* out, uint64_t value) {
  value = __builtin_bswap64(value);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

uint32_t get_big_endian32(const char* from) { return __builtin_bswap32(load_le<uint32_t>(from)); }
uint64_t get_big_endian64(const char* from) { return __builtin_bswap64(load_le<uint64_t>(from)); }

std::string slot_row_prefix(uint32_t slot) {
  std::string row;
  put_big_endian32(&row, slot);
  return row;
}

std::string record_row_key(uint32_t slot, std::string_view key) {
  std::string row;
  row.reserve(sizeof(slot) + key.size());
  put_big_endian32(&row, slot);
  row.append(key);
  return row;
}

std::string fragment_row_prefix(uint32_t slot, std::string_view key, uint64_t set) {
  std::string row;
  row.reserve(key.size() + 32);
  put_big_endian32(&row, slot);
  for (const char c : key) {
    row.push_back(c);
    if (c == '\0') row.push_back('\xff');
  }
  row.append(2, '\0');
  put_big_endian64(&row, set);
  return row;
}

std::string fragment_row_key(std::string_view prefix, uint64_t offset) {
  std::string row(prefix);
  put_big_endian64(&row, offset);
  return row;
}

void store_stored_head(char* at, const RecordSummary& summary, bool fragmented) {
  store_le<uint64_t>(at, summary.version.stamp);
  store_le<uint32_t>(at + 8, summary.version.node);
  store_le<uint8_t>(at + 12, static_cast<uint8_t>((summary.tombstone ? kTombstoneFlag : 0) |
                                                  (fragmented ? kFragmentsFlag : 0)));
  store_le<uint64_t>(at + 13, summary.value_bytes);
  store_le<uint64_t>(at + 21, summary.value_digest.low);
  store_le<uint64_t>(at + 29, summary.value_digest.high);
}

RecordSummary load_stored_head(const char* at) {
  RecordSummary summary;
  summary.version = {load_le<uint64_t>(at), load_le<uint32_t>(at + 8)};
  summary.tombstone = (load_le<uint8_t>(at + 12) & kTombstoneFlag) != 0;
  summary.value_bytes = load_le<uint64_t>(at + 13);
  summary.value_digest = {load_le<uint64_t>(at + 21), load_le<uint64_t>(at + 29)};
  return summary;
}

std::string encode_stored_head(const RecordSummary& summary, bool fragmented, uint64_t set) {
  std::string row(kStoredHeadBytes, '\0');
  store_stored_head(row.data(), summary, fragmented);
  if (fragmented) ByteWriter(&row).put<uint64_t>(set);
  return row;
}

bool decode_stored(std::string_view row, StoredRecord* stored) {
  if (row.size() < kStoredHeadBytes) return false;
  stored->summary = load_stored_head(row.data());
  const uint8_t flags = load_le<uint8_t>(row.data() + 12);
  const RecordSummary& summary = stored->summary;
  ByteReader in(row.substr(kStoredHeadBytes));
  if ((flags & ~(kTombstoneFlag | kFragmentsFlag)) != 0 || summary.value_bytes > kMaxValueBytes)
    return false;
  stored->fragmented = (flags & kFragmentsFlag) != 0;
  if (summary.tombstone && summary.value_bytes != 0) return false;
  if (stored->fragmented) {
    stored->inline_value = {};
    return in.get(&stored->set) && in.done();
  }
  stored->set = 0;
  return in.remaining() == summary.value_bytes &&
         in.get_bytes(in.remaining(), &stored->inline_value);
}

std::string digest_row_key(uint32_t slot) {
  std::string row(kDigestPrefix);
  put_big_endian32(&row, slot);
  return row;
}

std::string staging_row_key(uint32_t slot, uint64_t set) {
  std::string row(kStagingPrefix);
  put_big_endian32(&row, slot);
  put_big_endian64(&row, set);
  return row;
}

std::string cut_row_key(std::string_view backup) { return std::string(kCutPrefix).append(backup); }

std::string attempt_row_key(std::string_view job) {
  return std::string(kAttemptPrefix).append(job);
}

std::string encode_u64(uint64_t value) {
  std::string row;
  ByteWriter(&row).put(value);
  return row;
}

bool decode_u64(std::string_view row, uint64_t* value) {
  ByteReader in(row);
  return in.get(value) && in.done();
}

std::string encode_digest(const SlotDigest& digest) {
  std::string row;
  ByteWriter out(&row);
  digest.encode(out);
  return row;
}

bool decode_digest(std::string_view row, SlotDigest* digest) {
  ByteReader in(row);
  return SlotDigest::decode(in, digest) && in.done();
}

std::string encode_cut(const CutInfo& cut) {
  std::string row;
  ByteWriter out(&row);
  out.put<uint64_t>(cut.cut);
  out.put<uint64_t>(cut.epoch);
  out.put<uint8_t>(cut.taken ? 1 : 0);
  return row;
}

bool decode_cut(std::string_view backup, std::string_view row, CutInfo* cut) {
  ByteReader in(row);
  uint8_t taken = 0;
  if (!in.get(&cut->cut) || !in.get(&cut->epoch) || !in.get(&taken) || !in.done() || taken > 1)
    return false;
  cut->backup = backup;
  cut->taken = taken == 1;
  return true;
}

std::string encode_found(const Store::Found& found) {
  std::string row;
  ByteWriter out(&row);
  out.put_string(found.joined);
  out.put_string(found.joining);
  out.put<uint64_t>(found.sequence);
  return row;
}

bool decode_found(std::string_view row, Store::Found* found) {
  ByteReader in(row);
  std::string_view joined, joining;
  if (!in.get_string(&joined, kNameLimit) || !in.get_string(&joining, kNameLimit) ||
      !in.get(&found->sequence) || !in.done()) {
    return false;
  }
  found->joined = joined;
  found->joining = joining;
  return true;
}

std::string encode_identity(const StoreIdentity& identity) {
  std::string row;
  ByteWriter out(&row);
  out.put<uint32_t>(identity.format);
  out.put_string(identity.cluster);
  out.put_string(identity.node);
  out.put<uint32_t>(identity.node_number);
  out.put<uint32_t>(identity.slot_bits);
  out.put_string(identity.store_id);
  return row;
}

bool decode_identity(std::string_view row, StoreIdentity* identity) {
  ByteReader in(row);
  std::string_view cluster, node, store_id;
  if (!in.get(&identity->format)) return false;
  if (identity->format != StoreIdentity::kFormat)
    return true;  // the rest is another format's; the caller refuses it
  if (!in.get_string(&cluster, kNameLimit) || !in.get_string(&node, kNameLimit) ||
      !in.get(&identity->node_number) || !in.get(&identity->slot_bits) ||
      !in.get_string(&store_id, kNameLimit) || !in.done()) {
    return false;
  }
  identity->cluster = cluster;
  identity->node = node;
  identity->store_id = store_id;
  return true;
}

}  // namespace sluice
