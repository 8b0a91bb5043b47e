// One replica's records of one slot, in key order: its own store's, or another node's over a
// stream.
#ifndef SLUICE_CONTROL_RECORDS_SLOT_CURSOR_H_
#define SLUICE_CONTROL_RECORDS_SLOT_CURSOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "control/peers/node_context.h"
#include "control/peers/peers.h"
#include "dataplane/block/record.h"

namespace sluice {

struct SlotRange {
  uint32_t slot = 0;
  std::string prefix;  // only keys that begin with it
  std::string after;   // only keys beyond it; empty: all
  // Where a scan begins.
  std::string first_key() const;
  bool has(std::string_view key) const { return key > after && key.starts_with(prefix); }
};

// How long a scan of another node is waited for.
struct ScanTimes {
  int64_t page_ms = 2'000;     // for each page, or value; then the node is late: DEADLINE_EXCEEDED
  int64_t whole_ms = 600'000;  // for all of it
};

// Confined to one thread.
class SlotCursor {
 public:
  virtual ~SlotCursor() = default;
  // Moves to the next record; false at the end.
  virtual absl::StatusOr<bool> next() = 0;
  // Of the record it stands on, until the next call of next().
  virtual std::string_view key() const = 0;
  virtual const RecordSummary& summary() const = 0;
  // The value of the record it stands on (or of a newer one of the same key: then *summary is that
  // one's). Empty for a tombstone.
  virtual absl::StatusOr<std::string> value(RecordSummary* summary) = 0;
};

std::unique_ptr<SlotCursor> open_local_cursor(Store& store, const SlotRange& range);
// `values`: they are sent along, where it is likely that all of them are needed; otherwise each is
// asked for. DATA_LOSS, naming the node, for a record outside the range or out of order, one of
// impossible sizes, and a value that is not the one its digest was made of.
std::unique_ptr<SlotCursor> open_remote_cursor(std::shared_ptr<PeerNode> node,
                                               const SlotRange& range, bool values,
                                               const ScanTimes& times);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_SLOT_CURSOR_H_
