// Divergent slots: a merge by key over one stream of each source, in ascending slot order. Values
// are never held: a value in fragments is decided on at its first one, whose envelope carries the
// value's digest.
#include <algorithm>
#include <optional>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/pipeline/consolidation_impl.h"

namespace sluice::consolidation {

// One source's records of the slot in work, in key order.
struct ConsolidationImpl::Cursor {
  Lane* lane = nullptr;
  const ConsolidationSlot::Sender* sender = nullptr;
  std::shared_ptr<Stream> stream;
  uint64_t seen = 0;
  uint32_t slot = 0;
  uint64_t next_sequence = 0;
  Message message;
  std::optional<BlockReader> reader;
  bool last_block = false;
  bool done = false;
  BlockEntry entry;  // the current one, unless done
  RecordSummary
      summary;  // its record's; of a value in fragments as the source claims, until its last one
  SlotDigester digester;
};

// The block that merged records are packed into.
struct ConsolidationImpl::Output {
  uint32_t slot = 0;
  BlockBuffer buffer;
  BlockBuilder builder;
};

void ConsolidationImpl::run_merge() {
  for (const ConsolidationSlot* plan : divergent_) {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        if (stopping() || progress_.state != State::kRunning) return;
        if (slots_[plan->slot].phase != Slot::Phase::kMissing) break;
      }
      std::vector<Cursor> cursors(plan->senders.size());
      const absl::Status status = merge_slot(*plan, cursors);
      if (status.ok() || !running()) continue;
      writer_.drop_slot(plan->slot);
      // A broken stream is its source's bad luck, as often as it happens; its retries are bounded
      // there. What was wrong with the data counts.
      if (status.code() == absl::StatusCode::kDataLoss) {
        slot_failed(plan->slot, "its sources", status);
      } else {
        std::lock_guard lock(mutex_);
        ++progress_.slots_refused;
      }
      // The slot starts over on new streams. One that has come in the meantime begins with this
      // slot anyway.
      for (const Cursor& cursor : cursors) {
        if (cursor.stream == nullptr) continue;
        cursor.stream->close(
            unavailable("slot {} starts over: {}", plan->slot, message_of(status)));
      }
    }
  }
}

absl::Status ConsolidationImpl::open_cursors(const ConsolidationSlot& plan,
                                             std::vector<Cursor>& cursors) {
  for (size_t i = 0; i < plan.senders.size(); ++i) {
    Cursor& cursor = cursors[i];
    cursor.sender = &plan.senders[i];
    cursor.slot = plan.slot;
    cursor.lane = lanes_.find({cursor.sender->node, StreamKind::kBackupMerge})->second.get();
    const Stage::Pause pause(options_.merge);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      return stopping() || progress_.state != State::kRunning ||
             (cursor.lane->newest != nullptr && !cursor.lane->newest->closed());
    });
    if (stopping() || progress_.state != State::kRunning) return cancelled("the job has ended");
    cursor.stream = cursor.lane->newest;
    cursor.seen = cursor.lane->streams;
  }
  for (Cursor& cursor : cursors) SLUICE_RETURN_IF_ERROR(advance(cursor));
  return absl::OkStatus();
}

absl::Status ConsolidationImpl::merge_slot(const ConsolidationSlot& plan,
                                           std::vector<Cursor>& cursors) {
  Stage::Work work(options_.merge);
  SLUICE_RETURN_IF_ERROR(open_cursors(plan, cursors));
  Output output;
  output.slot = plan.slot;
  SlotDigest digest;
  uint64_t newest_stamp = 0;
  DivergenceReport report;
  SLUICE_RETURN_IF_ERROR(merge_keys(cursors, output, &digest, &newest_stamp, &report));
  SLUICE_RETURN_IF_ERROR(flush(output));
  {
    // Counted once it is durable: otherwise a slot that is merged again after a restart would count
    // twice.
    std::lock_guard lock(mutex_);
    unsynced_divergence_[plan.slot] = std::move(report);
  }
  if (!slot_received(plan.slot, digest, newest_stamp)) return cancelled("the job has ended");
  return absl::OkStatus();
}

absl::Status ConsolidationImpl::merge_keys(std::vector<Cursor>& cursors, Output& output,
                                           SlotDigest* digest, uint64_t* newest_stamp,
                                           DivergenceReport* report) {
  for (;;) {
    Cursor* winner = nullptr;
    for (Cursor& cursor : cursors) {
      if (cursor.done) continue;
      if (winner == nullptr || cursor.entry.key < winner->entry.key ||
          (cursor.entry.key == winner->entry.key && winner->summary < cursor.summary)) {
        winner = &cursor;
      }
    }
    if (winner == nullptr) return absl::OkStatus();
    const RecordSummary newest = winner->summary;
    bool differs = false;
    const auto note = [&](const Cursor& cursor, DivergenceKind kind) {
      differs = true;
      if (report->examples.size() < DivergenceReport::kMaxExamples) {
        report->examples.push_back(
            {output.slot, std::string(winner->entry.key), cursor.sender->node, kind});
      }
    };
    // Losers are let go of after the winner was copied: until then all stand at the key.
    for (const Cursor& cursor : cursors) {
      if (&cursor == winner) continue;
      if (cursor.done || cursor.entry.key != winner->entry.key) {
        ++report->missing;
        note(cursor, DivergenceKind::kMissing);
      } else if (cursor.summary.version < newest.version) {
        ++report->stale;
        note(cursor, DivergenceKind::kStale);
      } else if (cursor.summary != newest) {
        ++report->conflicting;
        note(cursor, DivergenceKind::kConflicting);
      }
    }
    report->records_differing += differs;
    digest->add(winner->entry.key, newest);
    *newest_stamp = std::max(*newest_stamp, newest.version.stamp);
    for (Cursor& cursor : cursors) {
      if (&cursor != winner && !cursor.done && cursor.entry.key == winner->entry.key) {
        SLUICE_RETURN_IF_ERROR(skip_record(cursor));
      }
    }
    SLUICE_RETURN_IF_ERROR(copy_winner(*winner, output));
  }
}

absl::Status ConsolidationImpl::copy_winner(Cursor& winner, Output& output) {
  for (;;) {
    SLUICE_RETURN_IF_ERROR(add_entry(output, winner.entry));
    const bool last = winner.entry.last();
    SLUICE_RETURN_IF_ERROR(advance(winner));
    if (last) return absl::OkStatus();
  }
}

absl::Status ConsolidationImpl::skip_record(Cursor& cursor) {
  for (;;) {
    const bool last = cursor.entry.last();
    SLUICE_RETURN_IF_ERROR(advance(cursor));
    if (last) return absl::OkStatus();
  }
}

absl::Status ConsolidationImpl::advance(Cursor& cursor) {
  for (;;) {
    if (cursor.reader.has_value()) {
      SLUICE_ASSIGN_OR_RETURN(const bool more, cursor.reader->next(&cursor.entry));
      if (more) {
        RecordSummary computed;
        SLUICE_ASSIGN_OR_RETURN(const bool complete, cursor.digester.add(cursor.entry, &computed));
        if (cursor.entry.whole()) {
          cursor.summary = computed;
        } else if (cursor.entry.fragment_offset == 0) {
          cursor.summary = {cursor.entry.version, false, cursor.entry.value_bytes,
                            cursor.message.envelope.value_digest};
        } else if (complete && computed != cursor.summary) {
          return data_loss("slot {} of {}: a value is not the one its first fragment announced",
                           cursor.slot, cursor.sender->node);
        }
        return absl::OkStatus();
      }
      SLUICE_RETURN_IF_ERROR(cursor.digester.end_block(*cursor.reader));
      cursor.reader.reset();
      cursor.message.buffer.reset();
    }
    if (cursor.last_block) {
      SLUICE_RETURN_IF_ERROR(cursor.digester.end_slot());
      if (cursor.digester.digest() != cursor.sender->digest) {
        return data_loss("slot {} of {} is not the copy it published a digest for", cursor.slot,
                         cursor.sender->node);
      }
      cursor.done = true;
      return absl::OkStatus();
    }
    SLUICE_RETURN_IF_ERROR(next_block(cursor));
  }
}

absl::Status ConsolidationImpl::next_block(Cursor& cursor) {
  for (;;) {
    if (!running()) return cancelled("the job has ended");
    if (superseded(*cursor.lane, cursor.seen)) {
      return unavailable("{} has connected again", cursor.sender->node);
    }
    absl::StatusOr<Message> message = absl::UnknownError("");
    {
      const Stage::Pause pause(options_.merge);
      message = cursor.stream->receive(kCancellationPollMs);
    }
    if (message.ok()) {
      cursor.message = *std::move(message);
      break;
    }
    if (cursor.stream->closed()) {
      return unavailable("the stream of {} broke: {}", cursor.sender->node,
                         message_of(cursor.stream->closed_reason()));
    }
  }
  const Envelope& envelope = cursor.message.envelope;
  count_block(envelope.payload_bytes + static_cast<uint32_t>(Envelope::kBytes));
  if ((envelope.kind != MessageKind::kBlock && envelope.kind != MessageKind::kSlotEnd) ||
      envelope.slot != cursor.slot || envelope.attempt != options_.attempt ||
      envelope.sequence != cursor.next_sequence) {
    return data_loss("{} sent message kind {} of slot {} number {} where slot {} number {} was due",
                     cursor.sender->node, static_cast<int>(envelope.kind), envelope.slot,
                     envelope.sequence, cursor.slot, cursor.next_sequence);
  }
  ++cursor.next_sequence;
  cursor.last_block =
      envelope.kind == MessageKind::kSlotEnd || (envelope.flags & Envelope::kEndOfSlot) != 0;
  if (envelope.kind == MessageKind::kSlotEnd) {
    cursor.message.buffer.reset();
    return absl::OkStatus();
  }
  absl::StatusOr<BlockReader> reader = BlockReader::open(cursor.message.payload());
  SLUICE_RETURN_IF_ERROR(with_context(
      reader.status(), fmt::format("slot {} of {}", cursor.slot, cursor.sender->node)));
  cursor.reader.emplace(*std::move(reader));
  const BlockHeader& header = cursor.reader->header();
  if (header.slot != cursor.slot || header.slot_bits != options_.slot_bits ||
      header.stored_bytes != envelope.payload_bytes) {
    return data_loss("{}: an envelope for slot {} around a block of slot {}", cursor.sender->node,
                     cursor.slot, header.slot);
  }
  return cursor.digester.begin_block(*cursor.reader);
}

absl::Status ConsolidationImpl::add_entry(Output& output, const BlockEntry& entry) {
  size_t at = 0;
  for (;;) {
    if (!output.buffer) {
      const Stage::Pause pause(options_.merge);
      while (!(output.buffer = merge_pool_->take(kCancellationPollMs))) {
        if (!running()) return cancelled("the job has ended");
      }
      output.builder.begin(output.buffer.span().first(kMaxBlockBytes), output.slot,
                           options_.slot_bits);
    }
    BlockEntry part = entry;
    part.fragment_offset += at;
    part.fragment.remove_prefix(at);
    const size_t added = output.builder.add(part);
    if (added != BlockBuilder::kFull) at += added;
    if (added != BlockBuilder::kFull && at == entry.fragment.size()) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(flush(output));
  }
}

absl::Status ConsolidationImpl::flush(Output& output) {
  if (!output.buffer || output.builder.empty()) return absl::OkStatus();
  const uint32_t bytes = output.builder.finish();
  if (options_.merge != nullptr) options_.merge->add(bytes);
  absl::Status status = writer_.append(std::move(output.buffer), bytes);
  output.buffer.reset();
  if (!status.ok()) {
    status = with_context(status, fmt::format("archiving merged slot {}", output.slot));
    end(State::kFailed, status);
  }
  return status;
}

}  // namespace sluice::consolidation
