// What a backup reads from, in slots: a cut of the record store (store.h), or a tree of files where
// it is (tree_source.h).
#ifndef SLUICE_DATAPLANE_SOURCE_SLOT_SOURCE_H_
#define SLUICE_DATAPLANE_SOURCE_SLOT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/block/record.h"
#include "dataplane/block/slot_digest.h"

namespace sluice {

// Reads the records of one slot in key order. Confined to one thread; views are valid until the
// next call of next(). Must be gone before its source.
class SlotScan {
 public:
  virtual ~SlotScan() = default;
  struct Item {
    std::string_view key;
    RecordSummary summary;
    // The value, where it stands in one piece in memory; otherwise empty.
    std::string_view inline_value;
  };
  // False at the end.
  virtual absl::StatusOr<bool> next(Item* item) = 0;
  // The current record's value bytes [offset, offset + size) into memory the caller owns: one copy.
  // OUT_OF_RANGE beyond the value; cheapest in ascending order.
  virtual absl::Status read_value(uint64_t offset, std::span<uint8_t> into) = 0;
  // The whole value of the current record, for small uses.
  absl::StatusOr<std::string> value(const Item& item);
};

// Thread-safe; scans of it are confined to a thread each.
class SlotSource {
 public:
  virtual ~SlotSource() = default;
  virtual bool has(uint32_t slot) const = 0;
  // Of a slot that it has.
  virtual std::unique_ptr<SlotScan> scan(uint32_t slot) = 0;
  // What a scan of the slot gives; nullopt where that is known only once it has been read.
  virtual std::optional<SlotDigest> digest(uint32_t slot) const = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_SOURCE_SLOT_SOURCE_H_
