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
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/stage.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/store/store.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

struct SendCopiesOptions {
  std::string job;  // backup UUID
  uint64_t attempt = 0;
  std::string target;   // node name
  std::string address;  // of its data listener
  uint32_t slot_bits = 0;
  std::vector<uint32_t> agreed;  // slots, each once, in no particular order
  size_t agreed_buffers =
      4;                    // arena buffers that packing and sending may hold; at least workers + 1
  size_t workers = 2;       // slots that are packed at a time
  int64_t backoff_ms = 50;  // before the first reconnect; doubles, at most 2 s
  int64_t give_up_ms = 60'000;  // without a newly durable slot or a sent block
  // Called from several threads, one at a time; must be quick. `bytes` counts payloads and
  // envelopes, also of repeats.
  std::function<void(uint32_t slot)> on_slot_sent;
  std::function<void(uint32_t slot)> on_slot_durable;
  std::function<void(uint64_t bytes)> on_bytes;
  Cancellation* cancellation = nullptr;
  Stage* scan = nullptr;  // reading the cut, packing and checksums; outlives the call
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

// Returns when the target has every slot durably, or with the error that ended it: CANCELLED, the
// target's own error, or UNAVAILABLE with the last reason after give_up_ms (RESOURCE_EXHAUSTED
// where that reason was a lack of buffers, here or there). Waits; runs its own threads.
absl::StatusOr<SendCopiesResult> send_copies(Exchange& exchange, CutReader& cut,
                                             const SendCopiesOptions& options);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_SEND_COPIES_H_
