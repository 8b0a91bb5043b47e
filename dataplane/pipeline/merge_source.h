// The source's side of divergent slots: serves the targets' requests for summaries and records of
// its cut, over streams of kind kBackupMerge that the targets open.
//
// What is asked of one stream is done one after the other; a new request takes the place of one
// that is not finished. One thread takes requests, and a fixed number of them read the cut and
// pack, a message at a time, for whichever stream has a buffer free: a target that is slow holds
// up nobody else. At most max_streams are served; who comes beyond is refused with
// RESOURCE_EXHAUSTED and comes again, and streams then end when their slot's records have been
// sent, so that everybody gets a turn.
//
// Targets tell which slots they have made durable (MessageKind::kSlotsDurable). The last list
// holds all of theirs, and is answered with kStreamEnd.
#ifndef SLUICE_DATAPLANE_PIPELINE_MERGE_SOURCE_H_
#define SLUICE_DATAPLANE_PIPELINE_MERGE_SOURCE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/stage.h"
#include "dataplane/source/slot_source.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

struct MergeSourceOptions {
  std::string job;       // backup UUID
  uint64_t attempt = 0;  // a stream of another attempt is refused
  uint32_t slot_bits = 0;
  // By target, the slots that it merges and this node has a copy of.
  std::map<std::string, std::vector<uint32_t>> slots;
  size_t max_streams = 16;
  size_t send_buffers = 2;  // of each stream; it has one to receive into as well
  size_t workers = 2;       // threads that read and pack
  // Called from several threads, one at a time; must be quick. `bytes` counts payloads and
  // envelopes.
  std::function<void(uint32_t slot)> on_slot_durable;
  std::function<void(uint64_t bytes)> on_bytes;
  Stage* scan = nullptr;  // reading the cut, packing and checksums; outlives it
};

// Thread-safe.
class MergeSource {
 public:
  struct Counters {
    uint64_t slots_durable = 0;
    uint64_t summaries = 0;  // sent
    uint64_t records = 0;    // live ones, once for each time sent
    uint64_t record_bytes = 0;
    uint64_t wire_bytes = 0;  // payloads and envelopes sent
    uint64_t refused = 0;     // streams, for want of room
  };
  // Serves from now on. The exchange outlives it. INVALID_ARGUMENT for contradictory options.
  static absl::StatusOr<std::unique_ptr<MergeSource>> start(Exchange& exchange,
                                                            std::shared_ptr<SlotSource> source,
                                                            const MergeSourceOptions& options);
  // Closes its streams; afterwards nothing reads the cut.
  virtual ~MergeSource() = default;
  // OK once every slot is durable at its target, DEADLINE_EXCEEDED before; an error of the cut is
  // for good.
  virtual absl::Status wait_durable(int64_t timeout_ms) = 0;
  virtual Counters counters() const = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_MERGE_SOURCE_H_
