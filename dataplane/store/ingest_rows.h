// The rows that arriving blocks become, gathered slot by slot until they go into a table file.
// Internal to dataplane/store.
#ifndef SLUICE_DATAPLANE_STORE_INGEST_ROWS_H_
#define SLUICE_DATAPLANE_STORE_INGEST_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/block/record.h"
#include "dataplane/block/slot_digest.h"
#include "dataplane/store/row_memory.h"
#include "dataplane/store/store_impl.h"

namespace sluice {

// A record, or a piece of one whose value spans blocks, as three byte strings that stand one after
// the other: row key, stored head, value or piece of it.
struct IngestRow {
  char* bytes = nullptr;
  uint32_t key_bytes = 0;    // of the row key
  uint32_t value_bytes = 0;  // of the value or piece
  uint64_t offset = 0;       // of the piece in its value
  // Once the rows are in order: how many rows, this one among them, make up the record; 0 in all
  // rows but a record's first.
  uint32_t pieces = 1;

  std::string_view row_key() const { return {bytes, key_bytes}; }
  std::string_view key() const { return row_key().substr(sizeof(uint32_t)); }
  std::string_view value() const { return {head() + kStoredHeadBytes, value_bytes}; }
  // Head and value: what a record of one row is stored as.
  std::string_view stored() const { return {head(), kStoredHeadBytes + value_bytes}; }
  RecordSummary summary() const;
  char* head() const { return bytes + key_bytes; }
};

// The rows of one block and the memory they stand in.
struct BlockRows {
  // A block whose rows are larger is refused: keys that share prefixes can be hundreds of times
  // the block that they stand in.
  static constexpr size_t kMaxBytes = size_t{8} << 20;

  // RESOURCE_EXHAUSTED beyond kMaxBytes.
  static absl::StatusOr<BlockRows> from(const CheckedBlock& block, RowMemory& memory);

  RowMemory::Piece memory;
  size_t bytes = 0;  // of memory and rows
  std::vector<IngestRow> rows;
};

// The rows of one slot, from any number of blocks in any order. Confined to one thread.
class SlotRows {
 public:
  void add(BlockRows block) {
    bytes_ += block.bytes;
    blocks_.push_back(std::move(block));
  }
  size_t bytes() const { return bytes_; }

  // Puts the rows in order, drops repeats of a block, joins pieces and computes their values'
  // digests. A value of which not all pieces are here, or pieces of two, is left out. Call once,
  // after the last add().
  void finish();

  // After finish(): rows by key, a record's pieces by offset.
  const std::vector<IngestRow>& rows() const { return rows_; }
  // After finish(): of all records here.
  const SlotDigest& digest() const { return digest_; }
  // After finish(): a key is here with two versions, so one of them has to be chosen.
  bool has_rivals() const { return has_rivals_; }

 private:
  bool join(size_t first, size_t end);

  std::vector<BlockRows> blocks_;
  std::vector<IngestRow> rows_;
  SlotDigest digest_;
  size_t bytes_ = 0;
  bool has_rivals_ = false;
};

// What an ingestion does with one slot.
struct SlotWork {
  enum class Way {
    kHere,     // its records are in the store already
    kTable,    // nothing is stored between its first and last key
    kCompare,  // record by record
  };
  uint32_t slot = 0;
  const SlotRows* rows = nullptr;
  Way way = Way::kTable;
  SlotDigest before;  // what the slot held when its way was chosen
};

struct StampRange {
  uint64_t smallest = ~uint64_t{0};
  uint64_t largest = 0;
  void add(uint64_t stamp) {
    smallest = std::min(smallest, stamp);
    largest = std::max(largest, stamp);
  }
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_INGEST_ROWS_H_
