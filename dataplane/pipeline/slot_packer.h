// Packs the records of one slot of a source into blocks, in key order: the one copy of a backup's
// bytes, from the store into the arena. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_SLOT_PACKER_H_
#define SLUICE_DATAPLANE_PIPELINE_SLOT_PACKER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "base/arena.h"
#include "dataplane/block/block.h"
#include "dataplane/pipeline/merge_lists.h"
#include "dataplane/source/slot_source.h"

namespace sluice {

// Confined to one thread.
class SlotPacker {
 public:
  struct Packed {
    uint32_t bytes = 0;         // of the sealed block; 0: the slot has no records
    bool last = false;          // it is the slot's last block
    uint64_t records = 0;       // live, whose last byte is in this block
    uint64_t record_bytes = 0;  // keys and values of these
  };

  // All records of the slot, or the wanted ones. Packing fails with INVALID_ARGUMENT when more are
  // wanted than there are.
  void begin(std::unique_ptr<SlotScan> scan, uint32_t slot, uint32_t slot_bits,
             std::optional<RunList> wanted = std::nullopt);
  // The next block, sealed, at the buffer's start. Not after the last one.
  absl::StatusOr<Packed> pack(BlockBuffer& buffer);
  // Of what was packed whole so far.
  const SlotDigest& digest() const { return digest_; }

 private:
  absl::StatusOr<bool> next_item();
  absl::StatusOr<bool> pack_item();

  std::unique_ptr<SlotScan> scan_;
  std::optional<RunList> wanted_;
  uint32_t slot_ = 0;
  uint32_t slot_bits_ = 0;
  BlockBuilder builder_;
  bool have_item_ = false;
  SlotScan::Item item_;
  uint64_t offset_ = 0;  // of the item's value: packed so far
  SlotDigest digest_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_SLOT_PACKER_H_
