#include "dataplane/archive/slot_check.h"

#include "base/status.h"

namespace sluice {

absl::Status SlotCheck::add_block(const BlockLocation& location, std::span<const uint8_t> block,
                                  uint64_t newest_stamp, const Visit& visit) {
  const uint32_t expected = blocks_++;
  if (broken_) return absl::OkStatus();
  absl::Status status;
  if (location.sequence != expected) {
    status = data_loss("out of sequence: block {} where block {} of slot {} belongs",
                       location.sequence, expected, location.slot);
  } else {
    // Versions of a tree's records are not of the cluster's clocks.
    const bool of_records = tree_number_of(location.slot) == 0;
    status = add_blocks_entries(block, of_records ? newest_stamp : ~uint64_t{0}, visit);
  }
  broken_ = !status.ok();
  return status;
}

absl::Status SlotCheck::add_blocks_entries(std::span<const uint8_t> block, uint64_t newest_stamp,
                                           const Visit& visit) {
  SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open_verified(block));
  BlockEntry entry;
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) return absl::OkStatus();
    if (entry.version.stamp > newest_stamp) {
      return data_loss("a record is newer than the manifest's newest stamp");
    }
    if (passing_ && entry.fragment_offset > 0) {
      passing_ = !entry.last();
      continue;
    }
    passing_ = false;
    SLUICE_RETURN_IF_ERROR(add_entry(entry));
    if (visit) SLUICE_RETURN_IF_ERROR(visit(entry, continues_ ? nullptr : &run_));
  }
}

absl::Status SlotCheck::add_entry(const BlockEntry& entry) {
  if ((entry.fragment_offset > 0) != continues_) {
    return data_loss("a value that spans blocks is not whole");
  }
  if (!continues_) {
    if (!key_.empty() && entry.key <= key_) return data_loss("keys are not in order");
    key_ = entry.key;
    run_ = {entry.version, entry.tombstone, entry.value_bytes, {}};
    run_bytes_ = 0;
    if (entry.whole()) {
      run_.value_digest = xxh3_128(entry.fragment);
      digest_.add(key_, run_);
      return absl::OkStatus();
    }
    run_hash_.reset();
  } else if (entry.key != key_ || entry.version != run_.version ||
             entry.value_bytes != run_.value_bytes || entry.fragment_offset != run_bytes_) {
    return data_loss("a value that spans blocks goes on with another one");
  }
  run_hash_.update(entry.fragment);
  run_bytes_ += entry.fragment.size();
  continues_ = !entry.last();
  if (!continues_) {
    run_.value_digest = run_hash_.digest128();
    digest_.add(key_, run_);
  }
  return absl::OkStatus();
}

}  // namespace sluice
