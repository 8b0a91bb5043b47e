// Computes a slot's digest again from its blocks, and checks what no single block can show: that
// keys ascend and values go on correctly from block to block. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_SLOT_DIGESTER_H_
#define SLUICE_DATAPLANE_PIPELINE_SLOT_DIGESTER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/checksum.h"
#include "dataplane/block/block.h"
#include "dataplane/block/slot_digest.h"

namespace sluice {

// Confined to one thread. No allocation for each record; after the first slot none at all, but for
// longer keys.
class SlotDigester {
 public:
  void reset();

  // The blocks of a slot in order, each: begin_block(), then every entry, then end_block().
  absl::Status begin_block(const BlockReader& reader);
  // Sets *summary and returns true with a record's last byte; false in the middle of a value.
  absl::StatusOr<bool> add(const BlockEntry& entry, RecordSummary* summary);
  absl::Status end_block(const BlockReader& reader);
  // All of the above for one block.
  absl::Status add_block(BlockReader& reader);
  // After the last block.
  absl::Status end_slot() const;

  const SlotDigest& digest() const { return digest_; }
  uint64_t newest_stamp() const { return newest_stamp_; }

 private:
  SlotDigest digest_;
  uint64_t newest_stamp_ = 0;
  bool any_block_ = false;
  std::string last_key_;   // of the block before
  bool run_open_ = false;  // a value goes on in the next fragment
  BlockEntry run_;  // its record; the key is last_key_ or the entry's, checked at block borders
  uint64_t run_bytes_ = 0;
  StreamingXxh3 run_hash_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_SLOT_DIGESTER_H_
