// The merge of divergent slots at their target, a few small ones or a large one at a time, in two
// steps.
//
// First the summaries of all copies that differ are merged by key. That decides every record's
// winner (RecordSummary's order), counts what loses, checks each copy against the digest that was
// published for it, and leaves, for each source, a list of the records to take from it: those of
// the source that holds the most winners, and from others only what that one lacks. Then only these
// records travel. Where one source has all of them its blocks go to the archive as they are; else
// the streams, which have no key in common, are merged by key into blocks. The digest of the
// records that arrive from a source must be that of the winners it was asked for.
//
// A slot whose lists would become too long is done alone, in several passes, each over the next
// records.
// Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_MERGE_SLOT_H_
#define SLUICE_DATAPLANE_PIPELINE_MERGE_SLOT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/arena.h"
#include "base/stage.h"
#include "dataplane/block/block.h"
#include "dataplane/pipeline/divergence.h"
#include "dataplane/pipeline/merge_lists.h"
#include "dataplane/pipeline/merge_streams.h"
#include "dataplane/pipeline/slot_digester.h"

namespace sluice {

// What merges need of the consolidation. Thread-safe; outlives them.
class MergeHost {
 public:
  virtual ~MergeHost() = default;
  // False once the job has ended: all work is then given up soon.
  virtual bool running() const = 0;
  // A message of so many bytes arrived.
  virtual void count_message(uint32_t bytes) = 0;
  // A source that has no room was heard of: nothing arrives, but nobody has died.
  virtual void told_to_wait() = 0;
  // One sealed block of `bytes` bytes for the archive. An error has ended the job.
  virtual absl::Status append(uint32_t slot, BlockBuffer block, uint32_t bytes) = 0;
  // The slot's blocks are forgotten, it starts over; DATA_LOSS counts as one of its tries.
  virtual void start_over(uint32_t slot, const absl::Status& why) = 0;
  // All blocks of the slot are in the archive; false when the job ended of it.
  virtual bool slot_received(uint32_t slot, const SlotDigest& digest, uint64_t newest_stamp,
                             DivergenceReport report) = 0;
};

// Slots that are merged over the same streams: nodes with equal copies of one of them have equal
// copies of all.
struct MergeBatch {
  struct Slot {
    uint32_t slot = 0;
    std::vector<SlotDigest> digests;  // published, by copy
  };
  // Nodes whose copies are equal: one of them stands for all.
  struct Copy {
    std::vector<std::string> nodes;
    size_t chosen = 0;   // whose summaries and records are asked for
    bool local = false;  // that is this node: nothing of it takes a wire
    const std::string& node() const { return nodes[chosen]; }
  };
  std::vector<Copy> copies;
  std::vector<Slot> slots;  // several only if list_bound() of all together is within a list's bytes
  // Of the lists of a slot with so many records in a copy.
  static size_t list_bound(uint64_t records) { return records * varint_size(records) + 40; }
};

// Confined to one thread, for one batch at a time.
class SlotMerge {
 public:
  struct Options {
    uint64_t attempt = 0;
    uint32_t slot_bits = 0;
    size_t list_bytes = kMaxBlockBytes;  // of one list of records
    int64_t answer_timeout_ms = 60'000;  // without the next message
    Stage* stage = nullptr;
  };
  SlotMerge(MergeHost& host, Clock& clock, BlockPool& output, const Options& options)
      : host_(host), clock_(clock), output_pool_(output), options_(options) {}

  // streams[i] is to the chosen node of copies[i]. *finished: so many of the slots, the first ones,
  // went to the host before an error, which slot() is to blame for. UNAVAILABLE when a stream broke
  // or a source does not answer; DATA_LOSS, naming the node, when what came is not what was
  // published; CANCELLED when the job has ended.
  absl::Status run(const MergeBatch& batch, std::vector<MergeStreams::Held>& streams,
                   size_t* finished);
  // In work, or last.
  uint32_t slot() const { return slot_; }

 private:
  // One copy's summaries, slot by slot in key order.
  struct Cursor {
    const MergeBatch::Copy* copy = nullptr;
    MergeStreams::Held* held = nullptr;
    uint64_t next_answer = 0;
    Message message;
    std::optional<MergeSectionReader> sections;
    // Of the slot that is decided on:
    SlotDigest published;
    std::optional<SummaryPageReader> page;
    bool last_page = false;
    bool done = false;
    std::string last_key;   // of the page before
    Digest128 digest;       // of the current record, unless done
    SlotDigest seen;        // of the records passed, the current one with them
    uint64_t passed = 0;    // records decided on
    RunListBuilder chosen;  // taken from here, in this pass
    RunListBuilder held_winners;
    SlotDigest chosen_digest;
    const std::string& node() const { return held->node; }
  };
  // What is wanted from one source.
  struct Want {
    Cursor* cursor = nullptr;
    std::string list;
    SlotDigest expected;
  };
  // What was decided on one slot, or on a pass over it.
  struct Decision {
    uint32_t slot = 0;
    SlotDigest winners;
    uint64_t winner_count = 0;
    bool complete = false;
    uint64_t newest_stamp = 0;
    std::vector<Want> wants;
    DivergenceReport report;
  };
  // Of a slot, over its passes.
  struct Total {
    SlotDigest digest;
    uint64_t newest_stamp = 0;
    DivergenceReport report;
  };
  // The wanted records of one source.
  struct Records {
    Cursor* cursor = nullptr;
    SlotDigest expected;
    Message message;
    std::optional<BlockReader> reader;
    SlotDigester digester;
    BlockEntry entry;
    bool last_block = false;
    bool done = false;
  };

  absl::Status run_pass(const MergeBatch& batch, size_t* finished, bool* complete);
  absl::Status ask_for_summaries(const MergeBatch& batch);
  void begin_slot(const MergeBatch::Slot& slot);
  absl::Status decide(const MergeBatch::Slot& slot, Decision* decision);
  void note_wants();
  Cursor* winner();
  absl::Status decide_key(Cursor& winner);
  void count_losers(const Cursor& winner);
  absl::Status advance(Cursor& cursor);
  absl::Status next_page(Cursor& cursor);

  absl::Status ask_for_records(const std::vector<Decision>& decisions, bool last_pass);
  absl::Status fetch(const Decision& decision);
  absl::Status take_verbatim(Records& records);
  absl::Status merge();
  absl::Status advance(Records& records);
  absl::Status next_block(Records& records);
  absl::Status finish(Records& records);
  absl::Status copy_record(Records& from);
  absl::Status add_entry(const BlockEntry& entry);
  absl::Status flush();

  absl::Status request(Cursor& cursor, MessageKind kind, uint32_t slot, uint16_t flags,
                       std::string_view payload);
  absl::StatusOr<Message> answer(Cursor& cursor, MessageKind kind, uint32_t slot);

  MergeHost& host_;
  Clock& clock_;
  BlockPool& output_pool_;
  const Options options_;

  uint32_t first_slot_ = 0;  // of the batch
  uint32_t slot_ = 0;        // in work
  std::vector<Cursor> cursors_;
  std::vector<Cursor*> preferred_;  // those likely to hold the most winners first
  std::vector<Records> records_;
  Decision* decision_ = nullptr;  // of the slot in work
  Total total_;
  BlockBuffer output_;
  BlockBuilder builder_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_MERGE_SLOT_H_
