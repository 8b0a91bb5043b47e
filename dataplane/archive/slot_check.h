// Puts a slot's records together from its blocks, in order, and computes what the manifest must say
// of it.
#ifndef SLUICE_DATAPLANE_ARCHIVE_SLOT_CHECK_H_
#define SLUICE_DATAPLANE_ARCHIVE_SLOT_CHECK_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "base/checksum.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/block/block.h"

namespace sluice {

// Confined to one thread.
class SlotCheck {
 public:
  // Called with each entry that has passed its checks; `record` is not null with the last fragment
  // of a record, and says what the whole of it is. Its error ends add_block() with that error.
  using Visit = std::function<absl::Status(const BlockEntry& entry, const RecordSummary* record)>;

  SlotCheck() = default;
  // From this block on: the end of a value that began before it is passed over. The digest is then
  // that of the records that were seen whole.
  explicit SlotCheck(uint32_t first_sequence)
      : blocks_(first_sequence), passing_(first_sequence > 0) {}

  // Takes the slot's next block, whose header and checksum have been checked. DATA_LOSS for a block
  // out of sequence, a record that breaks the format, keys that do not ascend from block to block,
  // a value that is not whole, or a stamp beyond `newest_stamp`. After an error the slot is broken:
  // later blocks are only counted, and the digest means nothing.
  absl::Status add_block(const BlockLocation& location, std::span<const uint8_t> block,
                         uint64_t newest_stamp, const Visit& visit = nullptr);
  // A block that could not be read.
  void skip_block() {
    broken_ = true;
    ++blocks_;
  }
  bool broken() const { return broken_; }
  uint32_t blocks() const { return blocks_; }
  // Whether the last value has its end.
  bool whole() const { return !continues_; }
  const SlotDigest& digest() const { return digest_; }

 private:
  absl::Status add_blocks_entries(std::span<const uint8_t> block, uint64_t newest_stamp,
                                  const Visit& visit);
  absl::Status add_entry(const BlockEntry& entry);

  SlotDigest digest_;
  uint32_t blocks_ = 0;
  bool broken_ = false;
  bool continues_ = false;
  bool passing_ = false;  // over the end of a value
  std::string key_;
  RecordSummary run_;
  uint64_t run_bytes_ = 0;
  StreamingXxh3 run_hash_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_SLOT_CHECK_H_
