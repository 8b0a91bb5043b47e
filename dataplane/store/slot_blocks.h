// Where the blocks of a table file end: with a slot, so that whoever reads one slot reads little
// else. Internal to dataplane/store.
#ifndef SLUICE_DATAPLANE_STORE_SLOT_BLOCKS_H_
#define SLUICE_DATAPLANE_STORE_SLOT_BLOCKS_H_

#include <rocksdb/flush_block_policy.h>

#include <cstddef>

namespace sluice {

inline constexpr size_t kTableBlockBytes = size_t{64} << 10;
// Slots of less share a block: each block costs an entry of the index, a checksum and a read.
inline constexpr size_t kMinTableBlockBytes = size_t{4} << 10;

// Ends a block before the row that would make it larger than kTableBlockBytes, and before the first
// row of another slot if it has kMinTableBlockBytes. For tables whose row keys begin with the slot.
class SlotBlocks final : public rocksdb::FlushBlockPolicyFactory {
 public:
  const char* Name() const override { return "sluice.SlotBlocks"; }
  rocksdb::FlushBlockPolicy* NewFlushBlockPolicy(
      const rocksdb::BlockBasedTableOptions& table_options,
      const rocksdb::BlockBuilder& data_block_builder) const override;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_SLOT_BLOCKS_H_
