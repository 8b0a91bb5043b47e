// The target's side of a backup: makes this target's part of the consolidated copy from the streams
// of its sources.
//
// Agreed slot: each block is checked in the arena and appended to the archive verbatim, from the
// buffer it was received in. The slot's digest is computed again from its records; it must equal
// the plan's, so that a missing block is found as surely as a damaged one. Otherwise the slot is
// dropped and its source asked to send it again, a bounded number of times.
//
// Divergent slot: this side asks. It merges the summaries of all copies by key; the newest record
// wins (RecordSummary's order), what loses is counted; then it has each winning record sent once
// (merge_slot.h). If a stream fails, the slot starts over.
//
// A slot is acknowledged to its sources when the archive has it durably, never earlier. What the
// archive had durably when it was opened is acknowledged at once.
#ifndef SLUICE_DATAPLANE_PIPELINE_CONSOLIDATION_H_
#define SLUICE_DATAPLANE_PIPELINE_CONSOLIDATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/stage.h"
#include "dataplane/archive/writer.h"
#include "dataplane/block/slot_digest.h"
#include "dataplane/pipeline/divergence.h"
#include "dataplane/pipeline/merge_streams.h"
#include "dataplane/pipeline/send_copies.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

struct ConsolidationSlot {
  struct Sender {
    std::string node;
    SlotDigest digest;  // that it published for the cut; none where it tells it
  };
  uint32_t slot = 0;
  // Agreed: all digests are equal, any one of the senders sends it. Divergent: the senders are
  // asked.
  bool agreed = true;
  // Its one sender tells the digest when it has read the slot (slot_source.h).
  bool told = false;
  std::vector<Sender> senders;  // at least one
};

struct ConsolidationOptions {
  std::string job;       // backup UUID
  uint64_t attempt = 0;  // a stream of another attempt is refused
  uint32_t slot_bits = 0;
  std::vector<ConsolidationSlot> slots;  // each once
  size_t agreed_receive_blocks = 4;      // of each source's stream
  // Of this node's own stream, whose messages stand in the sender's buffers.
  size_t local_receive_blocks = SendCopiesOptions::kLocalBuffers;
  size_t agreed_streams = 16;  // sources at a time; others come back later
  // Of divergent slots.
  std::string node;                          // this one's name: it asks itself first
  size_t merge_workers = 2;                  // slots in work at a time, a thread each
  size_t merge_streams = 8;                  // to sources, at a time; at least a slot's senders
  size_t merge_receive_blocks = 2;           // of each
  size_t merge_buffers = 4;                  // that merged blocks are packed into
  size_t merge_list_bytes = kMaxBlockBytes;  // of a list of wanted records
  int64_t merge_answer_timeout_ms = 60'000;  // a source that says nothing for so long is left
  // Where a source is now: asked at each connect, from any thread; must be quick.
  std::function<absl::StatusOr<MergePeer>(const std::string& node)> find_source;
  uint64_t sync_bytes = uint64_t{64} << 20;  // a sync at least this often,
  int64_t sync_ms = 100;                     // and so long after a slot was finished
  size_t slot_tries = 5;                     // a slot that fails its checks so often fails the job
  int64_t idle_timeout_ms = 120'000;         // without a block from anyone
  // Outlive it. Checking and digesting agreed blocks; merging divergent slots.
  Stage* check = nullptr;
  Stage* merge = nullptr;
  // Called from the consolidation's threads, one at a time; must be quick and not call the
  // consolidation.
  std::function<void(uint32_t slot)> on_slot_received;  // checked and given to the archive
  std::function<void(uint32_t slot)> on_slot_durable;
  std::function<void(const absl::Status& end)>
      on_end;  // copy completed (OK), failed or cancelled; the last call
};

class Consolidation {
 public:
  enum class State { kRunning, kCopyCompleted, kFailed, kCancelled };

  struct Progress {
    State state = State::kRunning;
    uint64_t slots = 0;  // to do, with those durable before
    uint64_t slots_received = 0;
    uint64_t slots_durable = 0;
    uint64_t blocks = 0;
    uint64_t records = 0;           // live ones in received slots
    uint64_t record_bytes = 0;      // keys and values of these
    uint64_t received_bytes = 0;    // payloads and envelopes, with repeats
    uint64_t duplicate_blocks = 0;  // of what was here already; ignored
    uint64_t repeated_bytes = 0;    // of these, payloads and envelopes
    uint64_t dropped_bytes = 0;     // in vain otherwise: slots that were not whole began again
    uint64_t slots_refused = 0;     // asked for again, with the divergent ones that started over
    DivergenceReport
        divergence;  // of slots durable in this life; a resumed job adds up those of its lives
  };

  // Serves the streams of options.job from now on. The writer and the exchange outlive it; until it
  // ends nobody else uses the writer. INVALID_ARGUMENT for contradictory options,
  // RESOURCE_EXHAUSTED when the arena has no room for it.
  static absl::StatusOr<std::unique_ptr<Consolidation>> start(Exchange& exchange,
                                                              ArchiveWriter& writer,
                                                              const ConsolidationOptions& options);
  // Cancels what still runs.
  virtual ~Consolidation() = default;

  // OK when every slot is durable, DEADLINE_EXCEEDED while it runs, otherwise the error that ended
  // it. Errors of the archive (RESOURCE_EXHAUSTED: disk full) end it at once; what is durable by
  // then stays, so that a later attempt goes on from there.
  virtual absl::Status wait(int64_t timeout_ms) = 0;
  // Whether wait() says how it ended, which may be with DEADLINE_EXCEEDED too.
  virtual bool has_ended() const = 0;
  // Waits until it has ended and returns how. `proceed` is asked every poll_ms; where it says no,
  // it is cancelled.
  absl::Status wait_to_end(int64_t poll_ms, const std::function<bool()>& proceed);
  virtual Progress progress() const = 0;
  // Ends it soon, with CANCELLED. Idempotent.
  virtual void cancel() = 0;
  // After wait() returned OK: finishes the archive's part and returns its manifest: `consolidated`.
  // The streams are served until this object goes, so keep it until the backup has ended: a source
  // that missed the last acknowledgement comes back for it. Sources of divergent slots are told as
  // soon as all of theirs are durable, again when they restart, and for a short time when this
  // object goes.
  virtual absl::StatusOr<PartManifest> finish() = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_CONSOLIDATION_H_
