#include "dataplane/pipeline/block_regrouper.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace sluice {

absl::Status BlockRegrouper::regroup(BlockReader& reader, const Sink& sink) {
  keys_.clear();
  whole_.clear();
  SLUICE_RETURN_IF_ERROR(digester_.begin_block(reader));
  BlockEntry entry;
  RecordSummary summary;
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) break;
    SLUICE_ASSIGN_OR_RETURN(const bool complete, digester_.add(entry, &summary));
    if (!mapping_.takes(entry.key)) continue;
    if (const absl::Status named = mapping_.name(entry.key, &name_); !named.ok()) {
      if (complete) sink.refused(summary, named);
      continue;
    }
    entry.key = name_;
    const uint32_t slot = slot_of(entry.key, slot_bits_);
    if (complete) sink.record(slot, entry.key, mapping_.summary(summary));
    if (!entry.whole()) {
      SLUICE_RETURN_IF_ERROR(pack_fragment(entry, sink));
      continue;
    }
    whole_.push_back({slot, static_cast<uint32_t>(keys_.size()),
                      static_cast<uint32_t>(entry.key.size()), entry});
    keys_.append(entry.key);
  }
  SLUICE_RETURN_IF_ERROR(digester_.end_block(reader));
  return pack_whole(sink);
}

absl::Status BlockRegrouper::pack_whole(const Sink& sink) {
  for (Whole& record : whole_) {
    record.entry.key = std::string_view(keys_).substr(record.key_at, record.key_bytes);
  }
  // Stable: the keys of one slot stay in order.
  std::stable_sort(whole_.begin(), whole_.end(),
                   [](const Whole& a, const Whole& b) { return a.slot < b.slot; });
  for (size_t i = 0; i < whole_.size();) {
    const uint32_t slot = whole_[i].slot;
    SLUICE_ASSIGN_OR_RETURN(BlockBuffer buffer, sink.take());
    builder_.begin(buffer.span().first(kMaxBlockBytes), slot, slot_bits_);
    while (i < whole_.size() && whole_[i].slot == slot &&
           builder_.add(whole_[i].entry) != BlockBuilder::kFull) {
      ++i;
    }
    const uint32_t bytes = builder_.finish();
    SLUICE_RETURN_IF_ERROR(sink.put(std::move(buffer), bytes, slot));
  }
  return absl::OkStatus();
}

absl::Status BlockRegrouper::pack_fragment(const BlockEntry& entry, const Sink& sink) {
  const uint32_t slot = slot_of(entry.key, slot_bits_);
  for (size_t at = 0; at < entry.fragment.size();) {
    SLUICE_ASSIGN_OR_RETURN(BlockBuffer buffer, sink.take());
    builder_.begin(buffer.span().first(kMaxBlockBytes), slot, slot_bits_);
    BlockEntry part = entry;
    part.fragment_offset += at;
    part.fragment.remove_prefix(at);
    at += builder_.add(part);
    const uint32_t bytes = builder_.finish();
    SLUICE_RETURN_IF_ERROR(sink.put(std::move(buffer), bytes, slot));
  }
  return absl::OkStatus();
}

}  // namespace sluice
