// The table as a document: magic "SLUT", format u32, epoch u64, seed u64, slot_bits u8, replicas
// u8, members as a varint; each member's number as a varint, weight (IEEE 754 bits, u64), name and
// rack; the assignment as u16 each; XXH3-128 of all before it (low, high u64).
#include <bit>
#include <cmath>
#include <unordered_set>

#include "base/bytes.h"
#include "base/status.h"
#include "control/table/table.h"

namespace sluice {
namespace {

constexpr uint32_t kMagic = 0x54554c53;  // "SLUT" in memory
constexpr uint32_t kFormat = 1;

absl::Status damaged(std::string_view what) {
  return data_loss("distribution table is damaged: {}", what);
}

bool get_member(ByteReader& in, TableMember* member) {
  uint64_t number = 0;
  uint64_t weight = 0;
  std::string_view name;
  std::string_view rack;
  if (!in.get_varint(&number) || !in.get(&weight) || !in.get_string(&name, 255) ||
      !in.get_string(&rack, 255)) {
    return false;
  }
  *member = {std::string(name), static_cast<uint32_t>(number), std::bit_cast<double>(weight),
             std::string(rack)};
  return number >= 1 && number <= UINT32_MAX && !name.empty() && std::isfinite(member->weight) &&
         member->weight > 0;
}

bool are_distinct(std::span<const uint16_t> members) {
  for (size_t i = 0; i < members.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (members[i] == members[j]) return false;
    }
  }
  return true;
}

}  // namespace

std::string DistributionTable::encode() const {
  std::string document;
  ByteWriter out(&document);
  out.put(kMagic);
  out.put(kFormat);
  out.put(epoch_);
  out.put(seed_);
  out.put(static_cast<uint8_t>(slot_bits_));
  out.put(static_cast<uint8_t>(replicas_));
  out.put_varint(members_.size());
  for (const TableMember& member : members_) {
    out.put_varint(member.number);
    out.put(std::bit_cast<uint64_t>(member.weight));
    out.put_string(member.name);
    out.put_string(member.rack);
  }
  for (const uint16_t member : assignment_) out.put(member);
  const Digest128 digest = xxh3_128(document);
  out.put(digest.low);
  out.put(digest.high);
  return document;
}

absl::StatusOr<DistributionTable> DistributionTable::decode(std::string_view document) {
  constexpr size_t kDigestBytes = 16;
  if (document.size() < kDigestBytes) return damaged("too short");
  const std::string_view body = document.substr(0, document.size() - kDigestBytes);
  ByteReader trailer(document.substr(body.size()));
  Digest128 digest;
  if (!trailer.get(&digest.low) || !trailer.get(&digest.high) || digest != xxh3_128(body)) {
    return damaged("its digest does not match");
  }
  ByteReader in(body);
  DistributionTable table;
  uint32_t magic = 0;
  uint32_t format = 0;
  uint8_t slot_bits = 0;
  uint8_t replicas = 0;
  uint64_t members = 0;
  if (!in.get(&magic) || magic != kMagic) return damaged("no such document");
  if (!in.get(&format) || format != kFormat) return damaged("its format is unknown");
  if (!in.get(&table.epoch_) || !in.get(&table.seed_) || !in.get(&slot_bits) ||
      !in.get(&replicas) || !in.get_varint(&members)) {
    return damaged("its head is short");
  }
  if (table.epoch_ == 0 || slot_bits < 1 || slot_bits > kMaxTableSlotBits || replicas < 1 ||
      replicas > kMaxReplicas || members < replicas || members > kMaxTableMembers) {
    return damaged("its head is out of range");
  }
  table.slot_bits_ = slot_bits;
  table.replicas_ = replicas;
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < members; ++i) {
    TableMember member;
    if (!get_member(in, &member)) return damaged("a member is malformed");
    if (i > 0 && member.number <= table.members_.back().number)
      return damaged("members are unordered");
    if (!names.insert(member.name).second) return damaged("a member is there twice");
    table.members_.push_back(std::move(member));
  }
  const size_t copies = size_t{table.slots()} * replicas;
  if (in.remaining() != copies * sizeof(uint16_t)) return damaged("its length does not match");
  table.assignment_.resize(copies);
  for (uint16_t& member : table.assignment_) {
    if (!in.get(&member) || member >= members) return damaged("a copy is at an unknown member");
  }
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    if (!are_distinct(table.replicas_of(slot))) return damaged("a slot has a member twice");
  }
  return table;
}

}  // namespace sluice
