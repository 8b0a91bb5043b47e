// The merge of one divergent slot at its target, in two steps.
//
// First the summaries of all copies that differ are merged by key. That decides every record's
// winner (RecordSummary's order), counts what loses, checks each copy against the digest that was
// published for it, and leaves, for each source, a list of the records to take from it: those of
// the source that holds the most winners, and from others only what that one lacks. Then only these
// records travel. Where one source has all of them its blocks go to the archive as they are; else
// the streams, which have no key in common, are merged by key into blocks. The digest of the
// records that arrive from a source must be that of the winners it was asked for.
//
// A slot whose lists would become too long is done in several passes, each over the next records.
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

// Copies of a slot for which the same digest was published: one of them stands for all.
struct MergeCopy {
  std::vector<std::string> nodes;
  SlotDigest digest;
  size_t chosen = 0;  // whose summaries and records are asked for
};

// Confined to one thread, for one slot at a time.
class SlotMerge {
 public:
  struct Options {
    uint64_t attempt = 0;
    uint32_t slot_bits = 0;
    size_t list_bytes = kMaxBlockBytes;  // of one list of records
    int64_t answer_timeout_ms = 60'000;  // without the next message
    Stage* stage = nullptr;
  };
  struct Result {
    SlotDigest digest;
    uint64_t newest_stamp = 0;
    DivergenceReport report;
  };
  SlotMerge(MergeHost& host, Clock& clock, BlockPool& output, const Options& options)
      : host_(host), clock_(clock), output_pool_(output), options_(options) {}

  // streams[i] is to the chosen node of copies[i]; among equally good sources the first one is
  // taken. UNAVAILABLE when a stream broke or a source does not answer; DATA_LOSS, naming the node,
  // when what came is not what was published; CANCELLED when the job has ended.
  absl::Status run(uint32_t slot, const std::vector<MergeCopy>& copies,
                   std::vector<MergeStreams::Held>& streams, Result* result);

 private:
  // One copy's summaries, in key order.
  struct Cursor {
    const MergeCopy* copy = nullptr;
    MergeStreams::Held* held = nullptr;
    Message message;
    std::optional<SummaryPageReader> page;
    uint64_t next_answer = 0;
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
  // The wanted records of one source.
  struct Records {
    MergeStreams::Held* held = nullptr;
    SlotDigest expected;
    Message message;
    std::optional<BlockReader> reader;
    SlotDigester digester;
    BlockEntry entry;
    uint64_t next_answer = 0;
    bool last_block = false;
    bool done = false;
  };

  absl::Status decide(bool* complete);
  absl::Status begin_pass();
  Cursor* winner();
  absl::Status decide_key(Cursor& winner);
  void count_losers(const Cursor& winner);
  absl::Status advance(Cursor& cursor);
  absl::Status next_page(Cursor& cursor);

  absl::Status fetch(bool last_pass);
  absl::Status ask_for(Cursor& cursor, const RunListBuilder& list, const SlotDigest& expected,
                       bool last_pass);
  absl::Status take_verbatim(Records& records);
  absl::Status merge();
  absl::Status advance(Records& records);
  absl::Status next_block(Records& records);
  absl::Status finish(Records& records);
  absl::Status copy_record(Records& from);
  absl::Status add_entry(const BlockEntry& entry);
  absl::Status flush();

  absl::Status request(MergeStreams::Held& held, MessageKind kind, uint16_t flags,
                       std::string_view payload);
  absl::StatusOr<Message> answer(MergeStreams::Held& held, MessageKind kind, uint64_t* next);

  MergeHost& host_;
  Clock& clock_;
  BlockPool& output_pool_;
  const Options options_;

  uint32_t slot_ = 0;
  std::vector<Cursor> cursors_;
  std::vector<Records> records_;
  SlotDigest winners_;  // of this pass
  uint64_t winner_count_ = 0;
  Result result_;
  BlockBuffer output_;
  BlockBuilder builder_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_MERGE_SLOT_H_
