// Reads for the whole cluster: asks R-W+1 replicas of a slot and takes the newest record of each
// key, so that every acknowledged write is seen.
//
// Where a slot's replicas publish equal digests their copies are equal, and one of them is read for
// all. Thread-safe. Errors: UNAVAILABLE naming the slot and the nodes where fewer than R-W+1
// replicas can be read.
#ifndef SLUICE_CONTROL_SERVICE_READ_COORDINATOR_H_
#define SLUICE_CONTROL_SERVICE_READ_COORDINATOR_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "control/service/node_context.h"
#include "control/service/slot_cursor.h"

namespace sluice {

class ReadCoordinator {
 public:
  struct Options {
    int64_t call_ms = 5'000;    // of one read of one replica
    int64_t scan_ms = 600'000;  // of one slot's scan
  };
  explicit ReadCoordinator(const NodeContext& context) : ReadCoordinator(context, Options()) {}
  ReadCoordinator(const NodeContext& context, const Options& options)
      : context_(context), options_(options), quorum_(context.cluster().read_quorum()) {}

  // The newest record, which may be a tombstone; nullopt where no replica has one.
  absl::StatusOr<std::optional<Record>> get(std::string_view key);
  // Live records in slots [first, first + slots). CANCELLED once `stopped`, which is asked before
  // each slot.
  absl::StatusOr<uint64_t> count(uint32_t first, uint32_t slots, std::string_view prefix,
                                 const std::function<bool()>& stopped);
  // Hands out the live records of one slot in key order. Ends with the visitor's error.
  using Visit = std::function<absl::Status(std::string_view key, std::string value)>;
  absl::StatusOr<uint64_t> visit_slot(const SlotRange& range, const Visit& visit);

 private:
  using Digests = std::map<std::string, std::vector<SlotDigest>, std::less<>>;
  struct Sources {
    std::vector<std::string>
        nodes;  // that can be read, a quorum; one alone where their digests agree
    std::optional<SlotDigest> agreed;
  };
  // Replicas of a slot: this node first, then those that lately answered.
  absl::StatusOr<std::vector<std::string>> replicas(uint32_t slot);
  absl::StatusOr<std::vector<SlotDigest>> digests_of(const std::string& node, uint32_t first,
                                                     uint32_t slots);
  Digests live_digests(uint32_t first, uint32_t slots);
  // `digests` begin at slot `first`.
  absl::StatusOr<Sources> sources(uint32_t slot, const Digests& digests, uint32_t first);
  // Counts, or visits when `visit` is not null; `range->after` moves along.
  absl::Status merge(const std::vector<std::string>& nodes, SlotRange* range, const Visit* visit,
                     uint64_t* records);
  absl::StatusOr<uint64_t> walk(SlotRange range, const Visit* visit);
  absl::StatusOr<std::optional<Record>> read_one(const std::string& node, std::string_view key);

  const NodeContext& context_;
  const Options options_;
  const size_t quorum_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_READ_COORDINATOR_H_
