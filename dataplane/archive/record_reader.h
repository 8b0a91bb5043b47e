// Reads the records of an archive's parts: all of some slots, or one by its key.
//
// What is handed out has passed every check that verify_archive() makes of a block and its records;
// a slot that was read to its end has the digest that the manifest says. Damage is DATA_LOSS naming
// file, offset and slot. Memory: one block, and one value of at most the limit that the caller
// gives. Confined to one thread; the archive outlives it.
#ifndef SLUICE_DATAPLANE_ARCHIVE_RECORD_READER_H_
#define SLUICE_DATAPLANE_ARCHIVE_RECORD_READER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "dataplane/archive/reader.h"
#include "dataplane/block/block.h"
#include "dataplane/block/record.h"

namespace sluice {

// Views are good until the visitor returns.
struct ArchivedRecord {
  uint32_t slot = 0;
  size_t part = 0;  // index in ArchiveReader::parts()
  std::string_view key;
  RecordSummary summary;
  std::string_view value;  // empty where it is longer than the scan's value_bytes
};

struct RecordScan {
  uint32_t first_slot = 0;
  std::string after = {};                            // in first_slot: only keys beyond this one
  std::function<bool(uint32_t slot)> has = nullptr;  // which slots are read; empty: all
  std::function<bool(std::string_view)> takes = nullptr;  // which keys are handed out; empty: all
  size_t value_bytes = 0;                                 // values up to this length are handed out
  // Before each block is read, with its slot; an error ends the scan with it. May be empty.
  std::function<absl::Status(uint32_t slot)> before_block = nullptr;
  // Called with damage, and the scan goes on: with the next block, of whose slot the digest is not
  // compared then, or with the next slot. Empty: damage ends the scan.
  std::function<void(const absl::Status& damage)> skip_damage = nullptr;
};

class RecordReader {
 public:
  static absl::StatusOr<std::unique_ptr<RecordReader>> open(ArchiveReader& archive);

  // Hands out records and tombstones by ascending slot, within a slot in key order. Ends with the
  // visitor's error.
  using Visit = std::function<absl::Status(const ArchivedRecord& record)>;
  absl::Status scan(const RecordScan& scan, const Visit& visit);

  // The fragments of one key's record, in order; a tombstone has one without bytes. What the record
  // is, or nullopt where no part that is here has the key: then the visitor was not called. Reads
  // as many blocks as a binary search needs, and those of the record.
  using VisitFragment = std::function<absl::Status(const BlockEntry& entry)>;
  absl::StatusOr<std::optional<RecordSummary>> read(std::string_view key,
                                                    const VisitFragment& visit);

 private:
  struct Slot {
    size_t part = 0;
    std::vector<BlockLocation> blocks;  // by sequence
    SlotDigest digest;                  // that the manifest says
  };
  struct Scanning;

  explicit RecordReader(ArchiveReader& archive) : archive_(archive) {}
  absl::Status load();
  absl::Status scan_slot(uint32_t number, const Slot& slot, const RecordScan& scan,
                         const Visit& visit);
  absl::Status read_block(const Slot& slot, const BlockLocation& location);
  // The first block that holds keys not below `key`; their number where none does.
  enum class Side { kBefore, kHolds, kBehind };
  // Where a block lies to those that may hold a key: before them; it is one, and what it has of the
  // key has its begin; behind where that begins, or would.
  absl::StatusOr<Side> side_of(const Slot& slot, size_t block, std::string_view key);
  absl::StatusOr<size_t> find_block(const Slot& slot, std::string_view key);
  absl::Status at(const Slot& slot, const BlockLocation& location,
                  const absl::Status& status) const;
  std::span<const uint8_t> bytes_of(const BlockLocation& location) const {
    return buffer_.span().first(location.bytes);
  }

  ArchiveReader& archive_;
  std::map<uint32_t, Slot> slots_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<BlockPool> pool_;
  BlockBuffer buffer_;
  const BlockLocation* loaded_ = nullptr;  // in the buffer
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_RECORD_READER_H_
