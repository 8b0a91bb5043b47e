#include "dataplane/pipeline/merge_lists.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "base/arena.h"
#include "base/checksum.h"
#include "base/status.h"

namespace sluice {
namespace {

// In a section's length.
constexpr uint32_t kLastOfSlot = uint32_t{1} << 31;

size_t put_varint(uint8_t* to, uint64_t value) {
  size_t bytes = 0;
  while (value >= 0x80) {
    to[bytes++] = static_cast<uint8_t>(value | 0x80);
    value >>= 7;
  }
  to[bytes++] = static_cast<uint8_t>(value);
  return bytes;
}

}  // namespace

void MergeSection::write_header(uint8_t* to, uint32_t slot, bool last, uint32_t bytes) {
  assert(bytes < kLastOfSlot);
  store_le(to, slot);
  store_le(to + sizeof(uint32_t), bytes | (last ? kLastOfSlot : 0));
}

absl::StatusOr<bool> MergeSectionReader::next(MergeSection* section) {
  if (in_.done()) return false;
  uint32_t length = 0;
  if (!in_.get(&section->slot) || !in_.get(&length) ||
      !in_.get_bytes(length & ~kLastOfSlot, &section->bytes)) {
    return data_loss("a section of a merge's message is cut off");
  }
  section->last = (length & kLastOfSlot) != 0;
  return true;
}

std::string SummaryRequest::encode() const {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put_varint(passed);
  for (const uint32_t slot : slots) out.put(slot);
  return bytes;
}

absl::StatusOr<SummaryRequest> SummaryRequest::decode(std::string_view payload) {
  ByteReader in(payload);
  SummaryRequest request;
  if (!in.get_varint(&request.passed) || in.done() ||
      in.remaining() > kMaxMergeSlots * sizeof(uint32_t)) {
    return data_loss("a request for summaries breaks the format");
  }
  for (uint32_t slot = 0; in.get(&slot);) {
    if (std::find(request.slots.begin(), request.slots.end(), slot) != request.slots.end()) {
      return data_loss("a request for summaries of slot {} twice", slot);
    }
    request.slots.push_back(slot);
  }
  if (!in.done() || (request.passed > 0 && request.slots.size() > 1)) {
    return data_loss("a request for summaries breaks the format");
  }
  return request;
}

void SummaryPageBuilder::begin(std::span<uint8_t> memory) {
  assert(memory.size() >= kMaxEntryBytes);
  memory_ = memory.first(std::min(memory.size(), kMaxBlockBytes));
  used_ = 0;
  key_bytes_ = 0;
}

bool SummaryPageBuilder::add(std::string_view key, const RecordSummary& summary) {
  assert(!key.empty() && key.size() <= kMaxKeyBytes);
  const size_t common = std::min(key_bytes_, key.size());
  const auto* from = reinterpret_cast<const uint8_t*>(key.data());
  const auto shared = static_cast<size_t>(
      std::mismatch(key_.data(), key_.data() + common, from).first - key_.data());
  assert(used_ == 0 ||
         (shared < key.size() && (shared == key_bytes_ || key_[shared] < from[shared])));
  const size_t rest = key.size() - shared;
  const uint64_t size_and_flag = summary.value_bytes << 1 | (summary.tombstone ? 1 : 0);
  const size_t bytes = varint_size(shared) + varint_size(rest) + rest + sizeof(uint64_t) +
                       varint_size(summary.version.node) + varint_size(size_and_flag) +
                       (summary.tombstone ? 0 : 2 * sizeof(uint64_t));
  if (bytes > memory_.size() - used_) return false;
  uint8_t* at = memory_.data() + used_;
  at += put_varint(at, shared);
  at += put_varint(at, rest);
  std::memcpy(at, from + shared, rest);
  at += rest;
  store_le(at, summary.version.stamp);
  at += sizeof(uint64_t);
  at += put_varint(at, summary.version.node);
  at += put_varint(at, size_and_flag);
  if (!summary.tombstone) {
    store_le(at, summary.value_digest.low);
    store_le(at + sizeof(uint64_t), summary.value_digest.high);
  }
  used_ += bytes;
  std::memcpy(key_.data() + shared, from + shared, rest);
  key_bytes_ = key.size();
  return true;
}

absl::Status SummaryPageReader::read_key() {
  uint64_t shared = 0;
  std::string_view rest;
  if (!in_.get_varint(&shared) || shared > key_bytes_ ||
      !in_.get_string(&rest, kMaxKeyBytes - shared) || rest.empty()) {
    return data_loss("a summary's key breaks the format");
  }
  // The longest shared prefix, and above the key before, in one comparison.
  if (shared < key_bytes_ &&
      static_cast<uint8_t>(rest.front()) <= static_cast<uint8_t>(key_[shared])) {
    return data_loss("keys of summaries do not ascend");
  }
  std::memcpy(key_.data() + shared, rest.data(), rest.size());
  key_bytes_ = shared + rest.size();
  if (!is_of_slot(key(), slot_, slot_bits_)) {
    return data_loss("a summary in slot {} is of a key of another slot", slot_);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> SummaryPageReader::next() {
  if (in_.done()) return false;
  SLUICE_RETURN_IF_ERROR(read_key());
  uint64_t node = 0;
  uint64_t size_and_flag = 0;
  if (!in_.get(&summary_.version.stamp) || !in_.get_varint(&node) || node > UINT32_MAX ||
      !in_.get_varint(&size_and_flag)) {
    return data_loss("a summary is cut off");
  }
  summary_.version.node = static_cast<uint32_t>(node);
  summary_.tombstone = (size_and_flag & 1) != 0;
  summary_.value_bytes = size_and_flag >> 1;
  if (summary_.value_bytes > (summary_.tombstone ? 0 : kMaxValueBytes)) {
    return data_loss("a summary of a value of {} bytes", summary_.value_bytes);
  }
  if (summary_.tombstone) {
    static const Digest128 of_nothing = xxh3_128(std::string_view());
    summary_.value_digest = of_nothing;
  } else if (!in_.get(&summary_.value_digest.low) || !in_.get(&summary_.value_digest.high)) {
    return data_loss("a summary is cut off");
  }
  return true;
}

void RunListBuilder::begin(uint64_t passed) {
  bytes_.clear();
  skip_ = passed;
  take_ = 0;
  taken_ = 0;
}

void RunListBuilder::add(bool wanted) {
  if (wanted) {
    ++take_;
    ++taken_;
    return;
  }
  if (take_ > 0) {
    ByteWriter out(&bytes_);
    out.put_varint(skip_);
    out.put_varint(take_);
    skip_ = 0;
    take_ = 0;
  }
  ++skip_;
}

std::string RunListBuilder::encode() const {
  assert(taken_ > 0);
  std::string bytes = bytes_;
  if (take_ > 0) {
    ByteWriter out(&bytes);
    out.put_varint(skip_);
    out.put_varint(take_);
  }
  return bytes;
}

absl::StatusOr<RunList> RunList::decode(std::string_view payload) {
  if (payload.empty() || payload.size() > kMaxBlockBytes) {
    return data_loss("a list of runs of {} bytes", payload.size());
  }
  ByteReader in(payload);
  uint64_t records = 0;
  for (bool first = true; !in.done(); first = false) {
    uint64_t skip = 0;
    uint64_t take = 0;
    if (!in.get_varint(&skip) || !in.get_varint(&take) || take == 0 || (skip == 0 && !first) ||
        skip > kMaxRecords || take > kMaxRecords) {
      return data_loss("a list of runs breaks the format");
    }
    records += skip + take;
    if (records > kMaxRecords) return data_loss("a list of runs of {} records", records);
  }
  RunList list;
  list.bytes_ = payload;
  list.read_runs();
  return list;
}

// decode() has checked them.
void RunList::read_runs() {
  ByteReader in(std::string_view(bytes_).substr(at_));
  const size_t before = in.remaining();
  in.get_varint(&skip_);
  in.get_varint(&take_);
  at_ += before - in.remaining();
}

bool RunList::next() {
  assert(!done());
  if (skip_ > 0) {
    --skip_;
    return false;
  }
  // After a run that was taken comes one that is passed over.
  if (take_ == 0) {
    read_runs();
    --skip_;
    return false;
  }
  --take_;
  return true;
}

}  // namespace sluice
