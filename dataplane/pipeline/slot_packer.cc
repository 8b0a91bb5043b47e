#include "dataplane/pipeline/slot_packer.h"

#include <utility>

#include "base/status.h"

namespace sluice {

void SlotPacker::begin(std::unique_ptr<SlotScan> scan, uint32_t slot, uint32_t slot_bits,
                       std::optional<RunList> wanted) {
  scan_ = std::move(scan);
  wanted_ = std::move(wanted);
  slot_ = slot;
  slot_bits_ = slot_bits;
  have_item_ = false;
  digest_ = {};
}

absl::StatusOr<bool> SlotPacker::next_item() {
  if (!wanted_.has_value()) return scan_->next(&item_);
  for (;;) {
    if (wanted_->done()) return false;
    SLUICE_ASSIGN_OR_RETURN(const bool more, scan_->next(&item_));
    if (!more) return invalid_argument("more records of slot {} are wanted than there are", slot_);
    if (wanted_->next()) return true;
  }
}

// As much of the item's value as goes into the block. False when it is full.
absl::StatusOr<bool> SlotPacker::pack_item() {
  const RecordSummary& summary = item_.summary;
  BlockEntry entry{item_.key, summary.version, summary.tombstone, summary.value_bytes, offset_, {}};
  if (item_.inline_value.size() == summary.value_bytes) {
    entry.fragment = item_.inline_value.substr(offset_);
    const size_t added = builder_.add(entry);
    if (added == BlockBuilder::kFull) return false;
    offset_ += added;
    return true;
  }
  const std::span<uint8_t> into = builder_.reserve(entry, summary.value_bytes - offset_);
  if (into.data() == nullptr) return false;
  SLUICE_RETURN_IF_ERROR(scan_->read_value(offset_, into));
  offset_ += into.size();
  return true;
}

absl::StatusOr<SlotPacker::Packed> SlotPacker::pack(BlockBuffer& buffer) {
  Packed packed;
  builder_.begin(buffer.span().first(kMaxBlockBytes), slot_, slot_bits_);
  for (;;) {
    if (!have_item_) {
      SLUICE_ASSIGN_OR_RETURN(have_item_, next_item());
      if (!have_item_) {
        packed.last = true;
        scan_.reset();
        break;
      }
      offset_ = 0;
    }
    const RecordSummary& summary = item_.summary;
    SLUICE_ASSIGN_OR_RETURN(const bool fits, pack_item());
    if (!fits || offset_ < summary.value_bytes) break;
    have_item_ = false;
    digest_.add(item_.key, summary);
    if (!summary.tombstone) {
      ++packed.records;
      packed.record_bytes += item_.key.size() + summary.value_bytes;
    }
  }
  if (!builder_.empty()) packed.bytes = builder_.finish();
  return packed;
}

}  // namespace sluice
