// The source's side of a backup: sends the agreed slots it was assigned to one target, over a
// stream of kind kBackupAgreed, several at a time, in no particular order. (Divergent ones:
// merge_source.h.)
//
// A target begins each stream with the list of slots it holds durably; only the others are sent. A
// broken stream is opened again, with backoff, until reconnects in a row made no progress for
// `give_up_ms`. Nothing durable is sent twice.
#ifndef SLUICE_DATAPLANE_PIPELINE_SEND_COPIES_H_
#define SLUICE_DATAPLANE_PIPELINE_SEND_COPIES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/stage.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/source/slot_source.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

struct SendCopiesOptions {
  // To this node's own target: a block's buffer is in use until the block is on disk, and most
  // blocks of a backup go there.
  static constexpr size_t kLocalBuffers = 12;
  std::string job;  // backup UUID
  uint64_t attempt = 0;
  std::string target;   // node name
  std::string address;  // of its data listener
  uint32_t slot_bits = 0;
  std::vector<uint32_t> agreed;  // slots, each once, in no particular order
  size_t agreed_buffers = 4;     // that packing and sending may hold; at least packers
  size_t packers = 2;            // slots that are packed at a time
  int64_t backoff_ms = 50;       // before the first reconnect; doubles, at most 2 s
  int64_t give_up_ms = 60'000;   // without a newly durable slot or a sent block
  // Called from several threads, one at a time; must be quick. `bytes` counts payloads and
  // envelopes, also of repeats.
  std::function<void(uint32_t slot)> on_slot_sent;
  std::function<void(uint32_t slot)> on_slot_durable;
  std::function<void(uint32_t slot, uint64_t bytes)> on_bytes;
  Stage* scan = nullptr;  // reading the source, packing and checksums; outlives the call
};

struct SendCopiesResult {
  uint64_t slots = 0;           // durable at the target, all of them
  uint64_t slots_skipped = 0;   // of these: were durable before this call
  uint64_t slots_repeated = 0;  // sent more than once (refused, or the stream broke)
  uint64_t blocks = 0;
  uint64_t records = 0;
  uint64_t record_bytes = 0;  // keys and values of live records packed, once for each time sent
  uint64_t wire_bytes = 0;    // payloads and envelopes sent
  uint64_t reconnects = 0;
};

// One source's sending to one target, on the exchange's executor: no thread of its own.
class CopySender {
 public:
  // `on_end` is called once, on one of the executor's threads, when status() and result() are
  // final. INVALID_ARGUMENT for contradictory options, RESOURCE_EXHAUSTED without buffers; `on_end`
  // is not called then.
  static absl::StatusOr<std::unique_ptr<CopySender>> start(Exchange& exchange, SlotSource& source,
                                                           SendCopiesOptions options,
                                                           std::function<void()> on_end);
  // Cancels, and waits until its buffers are home. Not to be called from a callback.
  virtual ~CopySender() = default;
  // Ends it soon, with CANCELLED.
  virtual void cancel() = 0;
  // OK while it runs and when the target has every slot durably; else the error that ended it: the
  // target's own, RESOURCE_EXHAUSTED where there are no buffers, here or there, or the target has
  // as many sources as it takes at a time, or UNAVAILABLE with the last reason after give_up_ms.
  virtual absl::Status status() const = 0;
  virtual SendCopiesResult result() const = 0;
};

// The same for who can wait. CANCELLED soon after `cancellation`, where not null, says so.
absl::StatusOr<SendCopiesResult> send_copies(Exchange& exchange, SlotSource& source,
                                             const SendCopiesOptions& options,
                                             const Cancellation* cancellation = nullptr);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_SEND_COPIES_H_
