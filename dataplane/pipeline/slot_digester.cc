#include "dataplane/pipeline/slot_digester.h"

#include <algorithm>

#include "base/status.h"

namespace sluice {

void SlotDigester::reset() {
  digest_ = {};
  newest_stamp_ = 0;
  any_block_ = false;
  last_key_.clear();
  run_open_ = false;
  run_bytes_ = 0;
}

absl::Status SlotDigester::begin_block(const BlockReader& reader) {
  const BlockHeader& header = reader.header();
  const bool continued = (header.flags & BlockHeader::kContinued) != 0;
  if (continued != run_open_) {
    return data_loss("slot {}: {}", header.slot,
                     continued ? "a block goes on with a value that was not begun"
                               : "a value is not gone on with");
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string_view first, reader.first_key());
  if (any_block_ && (continued ? first != last_key_ : first <= last_key_)) {
    return data_loss("slot {}: keys do not ascend from block to block", header.slot);
  }
  any_block_ = true;
  return absl::OkStatus();
}

absl::StatusOr<bool> SlotDigester::add(const BlockEntry& entry, RecordSummary* summary) {
  if (entry.whole()) {
    if (run_open_) return data_loss("a record begins in the middle of a value");
    *summary = {entry.version, entry.tombstone, entry.value_bytes, xxh3_128(entry.fragment)};
  } else {
    if (entry.fragment_offset == 0) {
      if (run_open_) return data_loss("a value begins in the middle of another");
      run_open_ = true;
      run_ = entry;
      run_bytes_ = 0;
      run_hash_.reset();
    }
    if (!run_open_ || entry.fragment_offset != run_bytes_ || entry.version != run_.version ||
        entry.tombstone != run_.tombstone || entry.value_bytes != run_.value_bytes) {
      return data_loss("a value does not go on where it stopped");
    }
    run_hash_.update(entry.fragment);
    run_bytes_ += entry.fragment.size();
    if (!entry.last()) return false;
    run_open_ = false;
    *summary = {entry.version, entry.tombstone, entry.value_bytes, run_hash_.digest128()};
  }
  digest_.add(entry.key, *summary);
  newest_stamp_ = std::max(newest_stamp_, entry.version.stamp);
  return true;
}

absl::Status SlotDigester::end_block(const BlockReader& reader) {
  const bool continues = (reader.header().flags & BlockHeader::kContinues) != 0;
  if (continues != run_open_) {
    return data_loss("slot {}: a block ends within a value and does not say so",
                     reader.header().slot);
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string_view last, reader.last_key());
  last_key_ = last;
  return absl::OkStatus();
}

absl::Status SlotDigester::add_block(BlockReader& reader) {
  SLUICE_RETURN_IF_ERROR(begin_block(reader));
  BlockEntry entry;
  RecordSummary summary;
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) break;
    if (absl::StatusOr<bool> added = add(entry, &summary); !added.ok()) return added.status();
  }
  return end_block(reader);
}

absl::Status SlotDigester::end_slot() const {
  if (run_open_) return data_loss("the slot ends in the middle of a value");
  return absl::OkStatus();
}

}  // namespace sluice
