#include "dataplane/store/ingest_rows.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "dataplane/store/store_format.h"

namespace sluice {
namespace {

bool in_order(const IngestRow& a, const IngestRow& b) {
  if (const int order = a.row_key().compare(b.row_key()); order != 0) return order < 0;
  return a.offset < b.offset;
}

}  // namespace

RecordSummary IngestRow::summary() const { return load_stored_head(head()); }

absl::StatusOr<BlockRows> BlockRows::from(const CheckedBlock& block, RowMemory& memory) {
  BlockRows result;
  const size_t entries = block.value_digests.size();
  const size_t overhead = entries * (sizeof(uint32_t) + kStoredHeadBytes);
  const size_t bytes = block.key_bytes + block.fragment_bytes + overhead;
  if (bytes > kMaxBytes) {
    return resource_exhausted("a block of slot {} unfolds to {} bytes, at most {} are gathered",
                              block.slot(), bytes, kMaxBytes);
  }
  result.bytes = bytes + entries * sizeof(IngestRow);
  result.memory = memory.take(bytes);
  result.rows.reserve(entries);
  char* at = result.memory.get();
  BlockReader reader = block.reader;
  const std::string prefix = slot_row_prefix(block.slot());
  for (const Digest128& value_digest : block.value_digests) {
    BlockEntry entry;
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) return internal_error("a block of slot {} changed while it was read", block.slot());
    IngestRow row;
    row.bytes = at;
    row.key_bytes = static_cast<uint32_t>(prefix.size() + entry.key.size());
    row.value_bytes = static_cast<uint32_t>(entry.fragment.size());
    row.offset = entry.fragment_offset;
    std::copy(prefix.begin(), prefix.end(), at);
    std::memcpy(at + prefix.size(), entry.key.data(), entry.key.size());
    store_stored_head(row.head(), {entry.version, entry.tombstone, entry.value_bytes, value_digest},
                      /*fragmented=*/false);
    std::memcpy(row.head() + kStoredHeadBytes, entry.fragment.data(), entry.fragment.size());
    at = row.head() + kStoredHeadBytes + entry.fragment.size();
    result.rows.push_back(row);
  }
  return result;
}

void SlotRows::finish() {
  size_t count = 0;
  for (const BlockRows& block : blocks_) count += block.rows.size();
  rows_.reserve(count);
  for (BlockRows& block : blocks_) {
    rows_.insert(rows_.end(), block.rows.begin(), block.rows.end());
    block.rows = {};
  }
  if (!std::is_sorted(rows_.begin(), rows_.end(), in_order)) {
    std::stable_sort(rows_.begin(), rows_.end(), in_order);
  }
  // A block that came twice: the same bytes. Two versions of one key stay.
  const auto repeats = std::unique(rows_.begin(), rows_.end(), [](const auto& a, const auto& b) {
    return a.offset == b.offset && a.row_key() == b.row_key() && a.stored() == b.stored();
  });
  rows_.erase(repeats, rows_.end());
  size_t kept = 0;
  for (size_t first = 0; first < rows_.size();) {
    size_t end = first + 1;
    while (end < rows_.size() && rows_[end].row_key() == rows_[first].row_key()) ++end;
    if (join(first, end)) {
      std::move(rows_.begin() + static_cast<std::ptrdiff_t>(first),
                rows_.begin() + static_cast<std::ptrdiff_t>(end),
                rows_.begin() + static_cast<std::ptrdiff_t>(kept));
      kept += end - first;
    }
    first = end;
  }
  rows_.resize(kept);
}

// Rows of one key: whole records, or the pieces of one. False when they are neither.
bool SlotRows::join(size_t first, size_t end) {
  IngestRow& row = rows_[first];
  RecordSummary summary = row.summary();
  if (summary.value_bytes == row.value_bytes) {
    has_rivals_ = has_rivals_ || end - first > 1;
    for (size_t i = first; i < end; ++i) {
      if (rows_[i].summary().value_bytes != rows_[i].value_bytes) return false;
    }
    for (size_t i = first; i < end; ++i) digest_.add(row.key(), rows_[i].summary());
    return true;
  }
  StreamingXxh3 hash;
  uint64_t offset = 0;
  for (size_t i = first; i < end; ++i) {
    const RecordSummary piece = rows_[i].summary();
    if (rows_[i].offset != offset || piece.version != summary.version ||
        piece.value_bytes != summary.value_bytes) {
      return false;
    }
    hash.update(rows_[i].value());
    offset += rows_[i].value_bytes;
  }
  if (offset != summary.value_bytes) return false;
  summary.value_digest = hash.digest128();
  store_stored_head(row.head(), summary, /*fragmented=*/true);
  row.pieces = static_cast<uint32_t>(end - first);
  for (size_t i = first + 1; i < end; ++i) rows_[i].pieces = 0;
  digest_.add(row.key(), summary);
  return true;
}

}  // namespace sluice
