#include "dataplane/store/slot_blocks.h"

#include <cstdint>

#include "dataplane/store/store_format.h"

namespace sluice {
namespace {

// Lengths before a row in a block.
constexpr size_t kRowHead = 6;

class EndWithSlot final : public rocksdb::FlushBlockPolicy {
 public:
  bool Update(const rocksdb::Slice& key, const rocksdb::Slice& value) override {
    const size_t row = key.size() + value.size() + kRowHead;
    const uint32_t slot = key.size() < sizeof(slot_) ? 0 : get_big_endian32(key.data());
    const bool ends = bytes_ > 0 && (bytes_ + row > kTableBlockBytes ||
                                     (slot != slot_ && bytes_ >= kMinTableBlockBytes));
    bytes_ = ends ? row : bytes_ + row;
    slot_ = slot;
    return ends;
  }

 private:
  size_t bytes_ = 0;  // of the block's rows, with their keys whole
  uint32_t slot_ = 0;
};

}  // namespace

rocksdb::FlushBlockPolicy* SlotBlocks::NewFlushBlockPolicy(
    const rocksdb::BlockBasedTableOptions& /*table_options*/,
    const rocksdb::BlockBuilder& /*data_block_builder*/) const {
  return new EndWithSlot;  // RocksDB deletes it
}

}  // namespace sluice
