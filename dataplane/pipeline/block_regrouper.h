// Decodes an archive's blocks and packs their records again, by the slots of another cluster and
// under the names that a restore gives them, and only those that it takes. Internal to
// dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_BLOCK_REGROUPER_H_
#define SLUICE_DATAPLANE_PIPELINE_BLOCK_REGROUPER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/arena.h"
#include "dataplane/block/block.h"
#include "dataplane/pipeline/restore_mapping.h"
#include "dataplane/pipeline/slot_digester.h"

namespace sluice {

// Confined to one thread.
class BlockRegrouper {
 public:
  struct Sink {
    // An empty buffer to pack into.
    std::function<absl::StatusOr<BlockBuffer>()> take;
    // A sealed block of `slot`.
    std::function<absl::Status(BlockBuffer block, uint32_t bytes, uint32_t slot)> put;
    // A record that is asked for, with its last byte, as the cluster will have it.
    std::function<void(uint32_t slot, std::string_view key, const RecordSummary& summary)> record;
    // One that has no possible name, and is left out.
    std::function<void(const RecordSummary& summary, const absl::Status& why)> refused;
  };
  // The mapping outlives it.
  BlockRegrouper(uint32_t slot_bits, const RestoreMapping& mapping)
      : slot_bits_(slot_bits), mapping_(mapping) {}

  // Before the first block of a unit.
  void reset() { digester_.reset(); }
  // The records of one block. A value in fragments is packed in fragments, in order; everything
  // else of a block goes into one block for each new slot, or more where it does not fit. Versions
  // stay the archive's: whoever applies the blocks restamps them.
  absl::Status regroup(BlockReader& reader, const Sink& sink);

 private:
  struct Whole {  // a record's place in the source block, and its key's in keys_
    uint32_t slot = 0;
    uint32_t key_at = 0;
    uint32_t key_bytes = 0;
    BlockEntry entry;
  };
  absl::Status pack_whole(const Sink& sink);
  absl::Status pack_fragment(const BlockEntry& entry, const Sink& sink);

  const uint32_t slot_bits_;
  const RestoreMapping& mapping_;
  SlotDigester digester_;
  BlockBuilder builder_;
  std::string keys_;
  std::string name_;  // of the entry at hand
  std::vector<Whole> whole_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_BLOCK_REGROUPER_H_
