#include "dataplane/pipeline/merge_slot.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/pipeline/cancellation.h"

namespace sluice {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kRequestMs = 5'000;
constexpr unsigned kRequestShift = 32;
constexpr uint64_t kMaxAnswers = (uint64_t{1} << kRequestShift) - 1;

bool exceeds(const SlotDigest& digest, const SlotDigest& limit) {
  return digest.records > limit.records || digest.tombstones > limit.tombstones;
}

}  // namespace

absl::Status SlotMerge::run(uint32_t slot, const std::vector<MergeCopy>& copies,
                            std::vector<MergeStreams::Held>& streams, Result* result) {
  const Stage::Work work(options_.stage);
  slot_ = slot;
  result_ = {};
  cursors_ = std::vector<Cursor>(copies.size());
  for (size_t i = 0; i < copies.size(); ++i) {
    cursors_[i].copy = &copies[i];
    cursors_[i].held = &streams[i];
  }
  absl::Status status;
  for (bool complete = false; status.ok() && !complete;) {
    status = decide(&complete);
    if (status.ok()) status = fetch(complete);
  }
  // Their messages hold credits of streams that others use next.
  cursors_.clear();
  records_.clear();
  output_.reset();
  *result = std::move(result_);
  return status;
}

absl::Status SlotMerge::begin_pass() {
  winners_ = {};
  winner_count_ = 0;
  for (Cursor& cursor : cursors_) {
    cursor.message = {};
    cursor.page.reset();
    cursor.next_answer = 0;
    cursor.last_page = false;
    cursor.done = false;
    cursor.chosen.begin(cursor.passed);
    cursor.held_winners.begin(cursor.passed);
    cursor.chosen_digest = {};
    std::string passed;
    ByteWriter(&passed).put_varint(cursor.passed);
    SLUICE_RETURN_IF_ERROR(request(*cursor.held, MessageKind::kSummaryRequest, 0, passed));
  }
  return absl::OkStatus();
}

// Decides on records until there are no more or a list is full.
absl::Status SlotMerge::decide(bool* complete) {
  SLUICE_RETURN_IF_ERROR(begin_pass());
  for (Cursor& cursor : cursors_) SLUICE_RETURN_IF_ERROR(advance(cursor));
  for (;;) {
    Cursor* const best = winner();
    *complete = best == nullptr;
    if (*complete) break;
    SLUICE_RETURN_IF_ERROR(decide_key(*best));
    // A run takes two numbers of at most ten bytes.
    const bool full = std::any_of(cursors_.begin(), cursors_.end(), [&](const Cursor& cursor) {
      return std::max(cursor.chosen.bytes(), cursor.held_winners.bytes()) + 20 >
             options_.list_bytes;
    });
    if (full) break;
  }
  for (Cursor& cursor : cursors_) {
    if (*complete && cursor.seen != cursor.copy->digest) {
      return data_loss("slot {} of {} is not the copy it published a digest for", slot_,
                       cursor.node());
    }
    // The next pass begins with the record that it stands at.
    if (!*complete && !cursor.done) {
      cursor.seen.remove(cursor.page->key(), cursor.page->summary());
    }
    cursor.page.reset();
    cursor.message = {};
  }
  return absl::OkStatus();
}

SlotMerge::Cursor* SlotMerge::winner() {
  Cursor* best = nullptr;
  for (Cursor& cursor : cursors_) {
    if (cursor.done) continue;
    if (best != nullptr) {
      const int order = cursor.page->key().compare(best->page->key());
      if (order > 0 || (order == 0 && cursor.page->summary() <= best->page->summary())) continue;
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
  winners_.add(digest, key.size(), newest);
  ++winner_count_;
  result_.digest.add(digest, key.size(), newest);
  result_.newest_stamp = std::max(result_.newest_stamp, newest.version.stamp);
  // Taken from the one that holds most winners so far, so that nearly all come from one source.
  Cursor* base = nullptr;
  const auto holds = [&](const Cursor& cursor) {
    return !cursor.done && cursor.page->key() == key && cursor.page->summary() == newest;
  };
  for (Cursor& cursor : cursors_) {
    if (!holds(cursor)) continue;
    if (base == nullptr || cursor.held_winners.taken() > base->held_winners.taken()) {
      base = &cursor;
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
  DivergenceReport& report = result_.report;
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
        if (exceeds(cursor.seen, cursor.copy->digest)) {
          return data_loss("slot {} of {} has more records than it published", slot_,
                           cursor.node());
        }
        return absl::OkStatus();
      }
      cursor.last_key = cursor.page->key();
      cursor.page.reset();
      cursor.message = {};
    }
    if (cursor.last_page) {
      cursor.done = true;
      return absl::OkStatus();
    }
    SLUICE_RETURN_IF_ERROR(next_page(cursor));
  }
}

absl::Status SlotMerge::next_page(Cursor& cursor) {
  SLUICE_ASSIGN_OR_RETURN(cursor.message,
                          answer(*cursor.held, MessageKind::kSummaries, &cursor.next_answer));
  const Envelope& envelope = cursor.message.envelope;
  cursor.last_page = (envelope.flags & Envelope::kEndOfSlot) != 0;
  if (envelope.payload_bytes == 0 && !cursor.last_page) {
    return data_loss("{} sent no summaries of slot {}, and there are more", cursor.node(), slot_);
  }
  cursor.page.emplace(cursor.message.payload(), slot_, options_.slot_bits);
  return absl::OkStatus();
}

absl::Status SlotMerge::fetch(bool last_pass) {
  records_.clear();
  if (winner_count_ == 0) return absl::OkStatus();
  const auto whole = std::find_if(cursors_.begin(), cursors_.end(), [&](const Cursor& cursor) {
    return cursor.held_winners.taken() == winner_count_;
  });
  if (whole != cursors_.end()) {
    SLUICE_RETURN_IF_ERROR(ask_for(*whole, whole->held_winners, winners_, last_pass));
    return take_verbatim(records_.front());
  }
  for (Cursor& cursor : cursors_) {
    if (cursor.chosen.taken() == 0) continue;
    SLUICE_RETURN_IF_ERROR(ask_for(cursor, cursor.chosen, cursor.chosen_digest, last_pass));
  }
  return merge();
}

absl::Status SlotMerge::ask_for(Cursor& cursor, const RunListBuilder& list,
                                const SlotDigest& expected, bool last_pass) {
  records_.emplace_back();
  records_.back().held = cursor.held;
  records_.back().expected = expected;
  return request(*cursor.held, MessageKind::kRecordRequest,
                 last_pass ? Envelope::kEndOfSlot : uint16_t{0}, list.encode());
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
    if (from.done) return data_loss("{}: a value ends too early", from.held->node);
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
  const std::string& node = records.held->node;
  if (exceeds(records.digester.digest(), records.expected)) {
    return data_loss("{} sent more records of slot {} than it was asked for", node, slot_);
  }
  SLUICE_ASSIGN_OR_RETURN(records.message,
                          answer(*records.held, MessageKind::kBlock, &records.next_answer));
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
  return data_loss("{} sent other records of slot {} than its summaries say", records.held->node,
                   slot_);
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

absl::Status SlotMerge::request(MergeStreams::Held& held, MessageKind kind, uint16_t flags,
                                std::string_view payload) {
  Envelope envelope;
  envelope.kind = kind;
  envelope.flags = flags;
  envelope.slot = slot_;
  envelope.attempt = options_.attempt;
  envelope.sequence = ++held.requests << kRequestShift;
  absl::Status status = held.stream->send_control(envelope, payload, kRequestMs);
  if (!status.ok()) return unavailable("asking {}: {}", held.node, message_of(status));
  return absl::OkStatus();
}

// The next answer to the last request. What a request before it still brings is dropped.
absl::StatusOr<Message> SlotMerge::answer(MergeStreams::Held& held, MessageKind kind,
                                          uint64_t* next) {
  const Stage::Pause pause(options_.stage);
  const int64_t deadline = clock_.monotonic_ns() + options_.answer_timeout_ms * kMs;
  for (;;) {
    if (!host_.running()) return cancelled("the job has ended");
    absl::StatusOr<Message> message = held.stream->receive(kCancellationPollMs);
    if (!message.ok()) {
      if (held.stream->closed()) {
        return unavailable("the stream to {} broke: {}", held.node,
                           message_of(held.stream->closed_reason()));
      }
      if (clock_.monotonic_ns() > deadline) {
        return unavailable("{} does not answer for {} ms", held.node, options_.answer_timeout_ms);
      }
      continue;
    }
    const Envelope& envelope = message->envelope;
    host_.count_message(envelope.payload_bytes + static_cast<uint32_t>(Envelope::kBytes));
    if (envelope.sequence >> kRequestShift < held.requests) continue;
    if (envelope.kind != kind || envelope.slot != slot_ || envelope.attempt != options_.attempt ||
        *next >= kMaxAnswers || envelope.sequence != (held.requests << kRequestShift) + *next) {
      return data_loss("{} sent message kind {} of slot {} number {:#x} where slot {} was due",
                       held.node, static_cast<int>(envelope.kind), envelope.slot, envelope.sequence,
                       slot_);
    }
    ++*next;
    return message;
  }
}

}  // namespace sluice
