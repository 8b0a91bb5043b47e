// Reads for the whole cluster: asks R-W+1 replicas of a slot and takes the newest record of each
// key, so that every acknowledged write is seen.
//
// What get() returns is held by R-W+1 replicas by then: where those asked differ, the newest record
// is written back with its own version (key_read.h). So a write that somebody has read is not
// undone by one that began later, though it is not acknowledged yet, and where R is odd no later
// get() misses it. Counts and exports write nothing back: they may show a write that is not
// acknowledged, and another one begun after that may still come before it.
//
// Where a slot's replicas publish equal digests their copies are equal, and one of them is read for
// all. A replica that is late is passed over for another one, and asked again where there is none.
// Thread-safe. Errors: UNAVAILABLE naming the slot and the nodes where fewer than R-W+1
// replicas can be read.
#ifndef SLUICE_CONTROL_RECORDS_READ_COORDINATOR_H_
#define SLUICE_CONTROL_RECORDS_READ_COORDINATOR_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/defect.h"
#include "control/peers/node_context.h"
#include "control/proto/peer.pb.h"
#include "control/records/replica_calls.h"
#include "control/records/slot_cursor.h"

namespace sluice {

class ReadCoordinator {
 public:
  struct Options {
    ReplicaTimes replicas;  // of one read, or one collection of digests
    ScanTimes scan;         // of one slot; a page that is late is asked of another replica
  };
  explicit ReadCoordinator(const NodeContext& context) : ReadCoordinator(context, Options()) {}
  ReadCoordinator(const NodeContext& context, const Options& options)
      : context_(context),
        options_(options),
        quorum_(defect(Defect::kReadsAskOne) ? 1 : context.cluster().read_quorum()) {}

  // The newest record, which may be a tombstone; nullopt where no replica has one.
  absl::StatusOr<std::optional<Record>> get(std::string_view key);
  // Live records in slots [first, first + slots). CANCELLED once `stopped`, which is asked before
  // each slot.
  absl::StatusOr<uint64_t> count(uint32_t first, uint32_t slots, std::string_view prefix,
                                 const std::function<bool()>& stopped);
  // Hands out the live records of one slot in key order. Ends with the visitor's error.
  using Visit = std::function<absl::Status(std::string_view key, std::string value)>;
  absl::StatusOr<uint64_t> visit_slot(const SlotRange& range, const Visit& visit,
                                      const std::function<bool()>& stopped);

 private:
  struct Digests {
    std::map<std::string, std::vector<SlotDigest>, std::less<>> of;  // by node
    std::map<std::string, absl::Status, std::less<>> failed;         // same: why there are none
  };
  struct Sources {
    std::vector<std::string>
        nodes;  // that can be read, a quorum; one alone where their digests agree
    std::optional<SlotDigest> agreed;
  };
  // Asks all holders of these slots at once and returns as soon as a quorum of each slot's has
  // answered, or all have, or the time of a call is over.
  absl::StatusOr<Digests> collect_digests(uint32_t first, uint32_t slots,
                                          const std::function<bool()>& stopped);
  // `digests` begin at slot `first`.
  absl::StatusOr<Sources> sources(uint32_t slot, const Digests& digests, uint32_t first);
  // Counts, or visits when `visit` is not null; `range->after` moves along.
  absl::Status merge(const std::vector<std::string>& nodes, SlotRange* range,
                     const ScanTimes& times, const Visit* visit, uint64_t* records);
  absl::StatusOr<uint64_t> walk(SlotRange range, const Visit* visit,
                                const std::function<bool()>& stopped);

  const NodeContext& context_;
  const Options options_;
  const size_t quorum_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_READ_COORDINATOR_H_
