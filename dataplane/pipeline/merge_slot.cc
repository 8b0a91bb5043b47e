#include "dataplane/pipeline/merge_slot.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/defect.h"
#include "base/status.h"
#include "dataplane/pipeline/cancellation.h"

namespace sluice {
namespace {

constexpr int64_t kRequestMs = 5'000;
constexpr unsigned kRequestShift = 32;
constexpr uint64_t kMaxAnswers = (uint64_t{1} << kRequestShift) - 1;

bool exceeds(const SlotDigest& digest, const SlotDigest& limit) {
  return digest.records > limit.records || digest.tombstones > limit.tombstones;
}

}  // namespace

absl::Status SlotMerge::run(const MergeBatch& batch, std::vector<MergeStreams::Held>& streams,
                            size_t* finished) {
  const Stage::Work work(options_.stage);
  *finished = 0;
  first_slot_ = batch.slots.front().slot;
  slot_ = first_slot_;  // the one that starts over where nothing can be asked
  cursors_ = std::vector<Cursor>(batch.copies.size());
  for (size_t i = 0; i < batch.copies.size(); ++i) {
    cursors_[i].copy = &batch.copies[i];
    cursors_[i].held = &streams[i];
  }
  total_ = {};
  absl::Status status;
  for (bool complete = false; status.ok() && !complete;) {
    status = run_pass(batch, finished, &complete);
  }
  // Their messages hold credits of streams that others use next.
  cursors_.clear();
  records_.clear();
  output_.reset();
  return status;
}

absl::Status SlotMerge::run_pass(const MergeBatch& batch, size_t* finished, bool* complete) {
  SLUICE_RETURN_IF_ERROR(ask_for_summaries(batch));
  std::vector<Decision> decisions(batch.slots.size());
  for (size_t i = 0; i < batch.slots.size(); ++i) {
    SLUICE_RETURN_IF_ERROR(decide(batch.slots[i], &decisions[i]));
  }
  *complete = decisions.back().complete;
  for (Cursor& cursor : cursors_) {
    cursor.page.reset();
    cursor.sections.reset();
    cursor.message = {};
  }
  SLUICE_RETURN_IF_ERROR(ask_for_records(decisions, *complete));
  for (Decision& decision : decisions) {
    slot_ = decision.slot;
    SLUICE_RETURN_IF_ERROR(fetch(decision));
    total_.digest += decision.winners;
    total_.newest_stamp = std::max(total_.newest_stamp, decision.newest_stamp);
    total_.report.merge(decision.report);
    if (!decision.complete) continue;
    const Total total = std::exchange(total_, {});
    if (!host_.slot_received(slot_, total.digest, total.newest_stamp, total.report)) {
      return cancelled("the job has ended");
    }
    ++*finished;
  }
  return absl::OkStatus();
}

absl::Status SlotMerge::ask_for_summaries(const MergeBatch& batch) {
  for (Cursor& cursor : cursors_) {
    SummaryRequest asked;
    asked.passed = cursor.passed;
    for (const MergeBatch::Slot& slot : batch.slots) asked.slots.push_back(slot.slot);
    SLUICE_RETURN_IF_ERROR(
        request(cursor, MessageKind::kSummaryRequest, first_slot_, 0, asked.encode()));
  }
  return absl::OkStatus();
}

void SlotMerge::begin_slot(const MergeBatch::Slot& slot) {
  slot_ = slot.slot;
  preferred_.clear();
  for (size_t i = 0; i < cursors_.size(); ++i) {
    Cursor& cursor = cursors_[i];
    cursor.published = slot.digests[i];
    cursor.page.reset();
    cursor.last_page = false;
    cursor.done = false;
    cursor.last_key.clear();
    cursor.chosen.begin(cursor.passed);
    cursor.held_winners.begin(cursor.passed);
    cursor.chosen_digest = {};
    preferred_.push_back(&cursor);
  }
  std::stable_sort(preferred_.begin(), preferred_.end(), [](const Cursor* a, const Cursor* b) {
    const uint64_t of_a = a->published.records + a->published.tombstones;
    const uint64_t of_b = b->published.records + b->published.tombstones;
    return of_a != of_b ? of_a > of_b : a->copy->local && !b->copy->local;
  });
}

// Decides on records until there are no more or a list is full.
absl::Status SlotMerge::decide(const MergeBatch::Slot& slot, Decision* decision) {
  begin_slot(slot);
  decision->slot = slot_;
  decision_ = decision;
  for (Cursor& cursor : cursors_) SLUICE_RETURN_IF_ERROR(advance(cursor));
  for (;;) {
    Cursor* const best = winner();
    decision->complete = best == nullptr;
    if (decision->complete) break;
    SLUICE_RETURN_IF_ERROR(decide_key(*best));
    // A run takes two numbers of at most ten bytes, and the list a section's header.
    constexpr size_t kRoom = 20 + MergeSection::kHeaderBytes;
    const bool full = std::any_of(cursors_.begin(), cursors_.end(), [&](const Cursor& cursor) {
      return std::max(cursor.chosen.bytes(), cursor.held_winners.bytes()) + kRoom >
             options_.list_bytes;
    });
    if (full) break;
  }
  for (Cursor& cursor : cursors_) {
    if (!decision->complete) {
      // The next pass begins with the record that it stands at.
      if (!cursor.done) cursor.seen.remove(cursor.page->key(), cursor.page->summary());
      continue;
    }
    if (cursor.seen != cursor.published) {
      return data_loss("slot {} of {} is not the copy it published a digest for", slot_,
                       cursor.node());
    }
    cursor.seen = {};
    cursor.passed = 0;
  }
  note_wants();
  return absl::OkStatus();
}

void SlotMerge::note_wants() {
  if (decision_->winner_count == 0) return;
  const auto whole = std::find_if(preferred_.begin(), preferred_.end(), [&](const Cursor* cursor) {
    return cursor->held_winners.taken() == decision_->winner_count;
  });
  if (whole != preferred_.end()) {
    decision_->wants.push_back({*whole, (*whole)->held_winners.encode(), decision_->winners});
    return;
  }
  for (Cursor& cursor : cursors_) {
    if (cursor.chosen.taken() == 0) continue;
    decision_->wants.push_back({&cursor, cursor.chosen.encode(), cursor.chosen_digest});
  }
}

SlotMerge::Cursor* SlotMerge::winner() {
  Cursor* best = nullptr;
  for (Cursor& cursor : cursors_) {
    if (cursor.done) continue;
    if (best != nullptr) {
      const int order = cursor.page->key().compare(best->page->key());
      if (order > 0 || (order == 0 && (cursor.page->summary() <= best->page->summary() ||
                                       defect(Defect::kMergeTakesTheFirst)))) {
        continue;
      }
    }
    best = &cursor;
  }
  return best;
}

absl::Status SlotMerge::decide_key(Cursor& winner) {
  const std::string_view key = winner.page->key();
  const RecordSummary& newest = winner.page->summary();
  const Digest128 digest = winner.digest;
  count_losers(winner);
  decision_->winners.add(digest, key.size(), newest);
  ++decision_->winner_count;
  decision_->newest_stamp = std::max(decision_->newest_stamp, newest.version.stamp);
  // Taken from the one that holds most winners so far, so that nearly all come from one source.
  Cursor* base = nullptr;
  const auto holds = [&](const Cursor& cursor) {
    return !cursor.done && cursor.page->key() == key && cursor.page->summary() == newest;
  };
  for (Cursor* const cursor : preferred_) {
    if (!holds(*cursor)) continue;
    if (base == nullptr || cursor->held_winners.taken() > base->held_winners.taken()) {
      base = cursor;
    }
  }
  base->chosen_digest.add(digest, key.size(), newest);
  // The winner's own page moves last: `key` is in it.
  for (Cursor& cursor : cursors_) {
    if (cursor.done || cursor.page->key() != key) continue;
    cursor.chosen.add(&cursor == base);
    cursor.held_winners.add(holds(cursor));
    ++cursor.passed;
    if (&cursor != &winner) SLUICE_RETURN_IF_ERROR(advance(cursor));
  }
  return advance(winner);
}

void SlotMerge::count_losers(const Cursor& winner) {
  DivergenceReport& report = decision_->report;
  const RecordSummary& newest = winner.page->summary();
  bool differs = false;
  const auto note = [&](const Cursor& cursor, DivergenceKind kind, uint64_t* count) {
    differs = true;
    for (const std::string& node : cursor.copy->nodes) {
      ++*count;
      if (report.examples.size() >= DivergenceReport::kMaxExamples) continue;
      report.examples.push_back({slot_, std::string(winner.page->key()), node, kind});
    }
  };
  for (const Cursor& cursor : cursors_) {
    if (&cursor == &winner) continue;
    if (cursor.done || cursor.page->key() != winner.page->key()) {
      note(cursor, DivergenceKind::kMissing, &report.missing);
    } else if (cursor.page->summary().version < newest.version) {
      note(cursor, DivergenceKind::kStale, &report.stale);
    } else if (cursor.page->summary() != newest) {
      note(cursor, DivergenceKind::kConflicting, &report.conflicting);
    }
  }
  report.records_differing += differs;
}

absl::Status SlotMerge::advance(Cursor& cursor) {
  for (;;) {
    if (cursor.page.has_value()) {
      const absl::StatusOr<bool> more = cursor.page->next();
      if (!more.ok()) return with_context(more.status(), cursor.node());
      if (*more) {
        if (!cursor.last_key.empty()) {
          if (cursor.page->key() <= cursor.last_key) {
            return data_loss("{}: keys of summaries do not ascend", cursor.node());
          }
          cursor.last_key.clear();
        }
        cursor.digest = record_digest(cursor.page->key(), cursor.page->summary());
        cursor.seen.add(cursor.digest, cursor.page->key().size(), cursor.page->summary());
        // Or a source could go on for ever.
        if (exceeds(cursor.seen, cursor.published)) {
          return data_loss("slot {} of {} has more records than it published", slot_,
                           cursor.node());
        }
        return absl::OkStatus();
      }
      cursor.last_key = cursor.page->key();
      cursor.page.reset();
    }
    if (cursor.last_page) {
      cursor.done = true;
      return absl::OkStatus();
    }
    SLUICE_RETURN_IF_ERROR(next_page(cursor));
  }
}

// The next section, which has to be of the slot in work.
absl::Status SlotMerge::next_page(Cursor& cursor) {
  for (;;) {
    if (cursor.sections.has_value()) {
      MergeSection section;
      const absl::StatusOr<bool> more = cursor.sections->next(&section);
      if (!more.ok()) return with_context(more.status(), cursor.node());
      if (*more) {
        if (section.slot != slot_ || (section.bytes.empty() && !section.last)) {
          return data_loss("{} sent {} bytes of summaries of slot {} where slot {} was due",
                           cursor.node(), section.bytes.size(), section.slot, slot_);
        }
        cursor.last_page = section.last;
        cursor.page.emplace(section.bytes, slot_, options_.slot_bits);
        return absl::OkStatus();
      }
      cursor.sections.reset();
      cursor.message = {};
    }
    SLUICE_ASSIGN_OR_RETURN(cursor.message, answer(cursor, MessageKind::kSummaries, first_slot_));
    if (cursor.message.envelope.payload_bytes == 0) {
      return data_loss("{} sent no summaries of slot {}", cursor.node(), slot_);
    }
    cursor.sections.emplace(cursor.message.payload());
  }
}

// One request to each source, of all slots for which something is wanted from there.
absl::Status SlotMerge::ask_for_records(const std::vector<Decision>& decisions, bool last_pass) {
  for (Cursor& cursor : cursors_) {
    std::string sections;
    uint32_t first = 0;
    for (const Decision& decision : decisions) {
      for (const Want& want : decision.wants) {
        if (want.cursor != &cursor) continue;
        if (sections.empty()) first = decision.slot;
        uint8_t header[MergeSection::kHeaderBytes];
        MergeSection::write_header(header, decision.slot, true,
                                   static_cast<uint32_t>(want.list.size()));
        sections += as_string_view(header);
        sections += want.list;
      }
    }
    if (sections.empty()) continue;
    SLUICE_RETURN_IF_ERROR(request(cursor, MessageKind::kRecordRequest, first,
                                   last_pass ? Envelope::kEndOfSlot : uint16_t{0}, sections));
  }
  return absl::OkStatus();
}

absl::Status SlotMerge::fetch(const Decision& decision) {
  records_.clear();
  for (const Want& want : decision.wants) {
    records_.emplace_back();
    records_.back().cursor = want.cursor;
    records_.back().expected = want.expected;
  }
  if (records_.empty()) return absl::OkStatus();
  return records_.size() == 1 ? take_verbatim(records_.front()) : merge();
}

absl::Status SlotMerge::take_verbatim(Records& records) {
  while (!records.last_block) {
    SLUICE_RETURN_IF_ERROR(next_block(records));
    BlockEntry entry;
    RecordSummary summary;
    for (;;) {
      SLUICE_ASSIGN_OR_RETURN(const bool more, records.reader->next(&entry));
      if (!more) break;
      SLUICE_RETURN_IF_ERROR(records.digester.add(entry, &summary).status());
    }
    SLUICE_RETURN_IF_ERROR(records.digester.end_block(*records.reader));
    records.reader.reset();
    const uint32_t bytes = records.message.envelope.payload_bytes;
    if (options_.stage != nullptr) options_.stage->add(bytes);
    SLUICE_RETURN_IF_ERROR(host_.append(slot_, std::move(records.message.buffer), bytes));
    records.message = {};
  }
  return finish(records);
}

absl::Status SlotMerge::merge() {
  for (Records& records : records_) SLUICE_RETURN_IF_ERROR(advance(records));
  for (;;) {
    Records* first = nullptr;
    for (Records& records : records_) {
      if (records.done) continue;
      if (first == nullptr || records.entry.key < first->entry.key) first = &records;
    }
    if (first == nullptr) return flush();
    SLUICE_RETURN_IF_ERROR(copy_record(*first));
  }
}

absl::Status SlotMerge::copy_record(Records& from) {
  for (;;) {
    SLUICE_RETURN_IF_ERROR(add_entry(from.entry));
    const bool last = from.entry.last();
    SLUICE_RETURN_IF_ERROR(advance(from));
    if (last) return absl::OkStatus();
    if (from.done) return data_loss("{}: a value ends too early", from.cursor->node());
  }
}

absl::Status SlotMerge::advance(Records& records) {
  for (;;) {
    if (records.reader.has_value()) {
      SLUICE_ASSIGN_OR_RETURN(const bool more, records.reader->next(&records.entry));
      if (more) {
        RecordSummary summary;
        return records.digester.add(records.entry, &summary).status();
      }
      SLUICE_RETURN_IF_ERROR(records.digester.end_block(*records.reader));
      records.reader.reset();
      records.message = {};
    }
    if (records.last_block) {
      records.done = true;
      return finish(records);
    }
    SLUICE_RETURN_IF_ERROR(next_block(records));
  }
}

absl::Status SlotMerge::next_block(Records& records) {
  const std::string& node = records.cursor->node();
  if (exceeds(records.digester.digest(), records.expected)) {
    return data_loss("{} sent more records of slot {} than it was asked for", node, slot_);
  }
  SLUICE_ASSIGN_OR_RETURN(records.message, answer(*records.cursor, MessageKind::kBlock, slot_));
  const Envelope& envelope = records.message.envelope;
  records.last_block = (envelope.flags & Envelope::kEndOfSlot) != 0;
  absl::StatusOr<BlockReader> reader = BlockReader::open(records.message.payload());
  if (!reader.ok()) return with_context(reader.status(), node);
  records.reader.emplace(*std::move(reader));
  const BlockHeader& header = records.reader->header();
  if (header.slot != slot_ || header.slot_bits != options_.slot_bits ||
      header.stored_bytes != envelope.payload_bytes) {
    return data_loss("{}: an envelope for slot {} around a block of slot {}", node, slot_,
                     header.slot);
  }
  return records.digester.begin_block(*records.reader);
}

absl::Status SlotMerge::finish(Records& records) {
  SLUICE_RETURN_IF_ERROR(records.digester.end_slot());
  if (records.digester.digest() == records.expected) return absl::OkStatus();
  return data_loss("{} sent other records of slot {} than its summaries say",
                   records.cursor->node(), slot_);
}

absl::Status SlotMerge::add_entry(const BlockEntry& entry) {
  size_t at = 0;
  for (;;) {
    if (!output_) {
      const Stage::Pause pause(options_.stage);
      while (!(output_ = output_pool_.take(kCancellationPollMs))) {
        if (!host_.running()) return cancelled("the job has ended");
      }
      builder_.begin(output_.span().first(kMaxBlockBytes), slot_, options_.slot_bits);
    }
    BlockEntry part = entry;
    part.fragment_offset += at;
    part.fragment.remove_prefix(at);
    const size_t added = builder_.add(part);
    if (added != BlockBuilder::kFull) at += added;
    if (added != BlockBuilder::kFull && at == entry.fragment.size()) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(flush());
  }
}

absl::Status SlotMerge::flush() {
  if (!output_ || builder_.empty()) return absl::OkStatus();
  const uint32_t bytes = builder_.finish();
  if (options_.stage != nullptr) options_.stage->add(bytes);
  const absl::Status status = host_.append(slot_, std::move(output_), bytes);
  output_.reset();
  return status;
}

absl::Status SlotMerge::request(Cursor& cursor, MessageKind kind, uint32_t slot, uint16_t flags,
                                std::string_view payload) {
  Envelope envelope;
  envelope.kind = kind;
  envelope.flags = flags;
  envelope.slot = slot;
  envelope.attempt = options_.attempt;
  envelope.sequence = ++cursor.held->requests << kRequestShift;
  cursor.next_answer = 0;
  absl::Status status = cursor.held->stream->send_control(envelope, payload, kRequestMs);
  if (!status.ok()) return unavailable("asking {}: {}", cursor.node(), message_of(status));
  return absl::OkStatus();
}

// The next answer to the last request. What a request before it still brings is dropped.
absl::StatusOr<Message> SlotMerge::answer(Cursor& cursor, MessageKind kind, uint32_t slot) {
  const Stage::Pause pause(options_.stage);
  Stream& stream = *cursor.held->stream;
  const uint64_t request = cursor.held->requests;
  const int64_t deadline = clock_.monotonic_ns() + options_.answer_timeout_ms * kMs;
  for (;;) {
    if (!host_.running()) return cancelled("the job has ended");
    absl::StatusOr<Message> message = stream.receive(kCancellationPollMs);
    if (!message.ok()) {
      if (stream.closed()) {
        return unavailable("the stream to {} broke: {}", cursor.node(),
                           message_of(stream.closed_reason()));
      }
      if (clock_.monotonic_ns() > deadline) {
        return unavailable("{} does not answer for {} ms", cursor.node(),
                           options_.answer_timeout_ms);
      }
      continue;
    }
    const Envelope& envelope = message->envelope;
    host_.count_message(envelope.payload_bytes + static_cast<uint32_t>(Envelope::kBytes));
    if (envelope.sequence >> kRequestShift < request) continue;
    if (envelope.kind != kind || envelope.slot != slot || envelope.attempt != options_.attempt ||
        cursor.next_answer >= kMaxAnswers ||
        envelope.sequence != (request << kRequestShift) + cursor.next_answer) {
      return data_loss("{} sent message kind {} of slot {} number {:#x} where slot {} was due",
                       cursor.node(), static_cast<int>(envelope.kind), envelope.slot,
                       envelope.sequence, slot);
    }
    ++cursor.next_answer;
    return message;
  }
}

}  // namespace sluice
