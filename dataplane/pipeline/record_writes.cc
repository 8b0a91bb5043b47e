#include "dataplane/pipeline/record_writes.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/status.h"
#include "dataplane/block/record_batch.h"
#include "dataplane/pipeline/write_tally.h"

namespace sluice {
namespace {

constexpr size_t kMaxTokenBytes = 255;
constexpr size_t kMaxReplicas = 64;
constexpr uint8_t kOutcomeBits = 3;
constexpr uint8_t kAfterCut = 4;

absl::Status damaged() { return data_loss("a damaged reply to a batch of records"); }

bool get_status(ByteReader& in, absl::Status* status) {
  std::string_view text;
  if (!in.get_string(&text, kMaxReasonBytes + 16)) return false;
  *status = decode_status(text);
  return true;
}

bool is_uniform(const std::vector<ApplyResult>& results) {
  return std::all_of(results.begin(), results.end(), [](const ApplyResult& result) {
    return result.outcome != ApplyResult::Outcome::kSuperseded && !result.after_cut;
  });
}

}  // namespace

std::string ApplyAnswer::encode() const {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put_string(encode_status(refused));
  out.put_string(encode_status(failed));
  out.put_string(token);
  out.put<uint64_t>(sequence);
  out.put_varint(results.size());
  for (const ApplyResult& result : results) {
    out.put<uint8_t>(static_cast<uint8_t>(static_cast<uint8_t>(result.outcome) |
                                          (result.after_cut ? kAfterCut : 0)));
    if (result.outcome == ApplyResult::Outcome::kSuperseded) {
      out.put<uint64_t>(result.newer.stamp);
      out.put<uint32_t>(result.newer.node);
    }
    if (result.after_cut) out.put<uint64_t>(result.cut);
  }
  return bytes;
}

absl::StatusOr<ApplyAnswer> ApplyAnswer::decode(std::string_view payload) {
  ByteReader in(payload);
  ApplyAnswer answer;
  std::string_view token;
  uint64_t count = 0;
  if (!get_status(in, &answer.refused) || !get_status(in, &answer.failed) ||
      !in.get_string(&token, kMaxTokenBytes) || !in.get(&answer.sequence) ||
      !in.get_varint(&count) || count > kMaxBatchRecords) {
    return damaged();
  }
  answer.token = token;
  answer.results.resize(count);
  for (ApplyResult& result : answer.results) {
    uint8_t word = 0;
    if (!in.get(&word) || word > (kOutcomeBits | kAfterCut) ||
        (word & kOutcomeBits) > static_cast<uint8_t>(ApplyResult::Outcome::kSuperseded)) {
      return damaged();
    }
    result.outcome = static_cast<ApplyResult::Outcome>(word & kOutcomeBits);
    result.after_cut = (word & kAfterCut) != 0;
    if (result.outcome == ApplyResult::Outcome::kSuperseded &&
        (!in.get(&result.newer.stamp) || !in.get(&result.newer.node))) {
      return damaged();
    }
    if (result.after_cut && !in.get(&result.cut)) return damaged();
  }
  if (!in.done()) return damaged();
  return answer;
}

std::string RecordWriteReply::encode() const {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put_string(encode_status(refused));
  out.put_string(std::string_view(reason).substr(0, kMaxReasonBytes));
  out.put_varint(exceptions.size());
  for (const Exception& exception : exceptions) {
    out.put<uint32_t>(exception.index);
    out.put<uint64_t>(exception.restamp_above);
    out.put<uint8_t>(exception.in_doubt ? 1 : 0);
    const size_t answered = std::min(exception.answered.size(), kMaxReplicas);
    out.put_varint(answered);
    for (size_t i = 0; i < answered; ++i) out.put_string(exception.answered[i]);
  }
  return bytes;
}

absl::StatusOr<RecordWriteReply> RecordWriteReply::decode(std::string_view payload) {
  ByteReader in(payload);
  RecordWriteReply reply;
  std::string_view reason;
  uint64_t count = 0;
  if (!get_status(in, &reply.refused) || !in.get_string(&reason, kMaxReasonBytes) ||
      !in.get_varint(&count) || count > kMaxBatchRecords) {
    return damaged();
  }
  reply.reason = reason;
  reply.exceptions.resize(count);
  for (Exception& exception : reply.exceptions) {
    uint8_t in_doubt = 0;
    uint64_t answered = 0;
    if (!in.get(&exception.index) || !in.get(&exception.restamp_above) || !in.get(&in_doubt) ||
        in_doubt > 1 || !in.get_varint(&answered) || answered > kMaxReplicas) {
      return damaged();
    }
    exception.in_doubt = in_doubt == 1;
    for (uint64_t i = 0; i < answered; ++i) {
      std::string_view node;
      if (!in.get_string(&node, Hello::kMaxNameBytes)) return damaged();
      exception.answered.emplace_back(node);
    }
  }
  if (!in.done()) return damaged();
  return reply;
}

// What the replicas of one batch said. Outlives the request while slow replicas are still to
// answer. As long as all answers are the same for all records, one tally is kept for all of them.
class RecordWrites::Round {
 public:
  Round(size_t records, size_t replicas, size_t quorum) : records_(records), quorum_(quorum) {
    all_.open = replicas;
  }

  void take(const std::string& node, const absl::StatusOr<ApplyAnswer>& answer, bool sent) {
    {
      const MutexLock lock(mutex_);
      for_each([](WriteTally& tally) { --tally.open; });
      if (!answer.ok()) {
        fail(node, answer.status(), sent);
      } else if (!answer->refused.ok()) {
        fail(node, answer->refused, /*unknown=*/false);
      } else if (!answer->failed.ok()) {
        fail(node, answer->failed, /*unknown=*/true);
      } else if (answer->results.empty()) {
        for_each([&](WriteTally& tally) { tally.take(node, ApplyResult()); });
      } else if (answer->results.size() != records_) {
        fail(node, data_loss("it answered for another number of records"), /*unknown=*/true);
      } else {
        if (each_.empty()) each_.assign(records_, all_);
        for (size_t i = 0; i < records_; ++i) each_[i].take(node, answer->results[i]);
      }
    }
    changed_.notify_all();
  }

  RecordWriteReply wait(int64_t timeout_ms) {
    MutexLock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                      [this]() SLUICE_REQUIRES(mutex_) { return decided(); });
    RecordWriteReply reply;
    reply.reason = reasons_.empty() ? "the replicas did not answer in time" : reasons_;
    if (each_.empty() && !all_.must_restamp(quorum_) && all_.acknowledged() >= quorum_)
      return reply;
    if (each_.empty()) each_.assign(records_, all_);
    for (size_t i = 0; i < records_; ++i) add_exception(i, each_[i], &reply);
    return reply;
  }

 private:
  template <typename Visit>
  void for_each(Visit visit) SLUICE_REQUIRES(mutex_) {
    if (each_.empty()) {
      visit(all_);
    } else {
      std::for_each(each_.begin(), each_.end(), visit);
    }
  }
  void fail(const std::string& node, const absl::Status& why, bool unknown)
      SLUICE_REQUIRES(mutex_) {
    for_each([&](WriteTally& tally) { tally.unknown += unknown; });
    reasons_ += fmt::format("{}{}: {}", reasons_.empty() ? "" : "; ", node, message_of(why));
  }
  bool decided() const SLUICE_REQUIRES(mutex_) {
    if (each_.empty()) return all_.decided(quorum_);
    return std::all_of(each_.begin(), each_.end(),
                       [this](const WriteTally& tally) { return tally.decided(quorum_); });
  }
  void add_exception(size_t index, const WriteTally& tally, RecordWriteReply* reply) const {
    RecordWriteReply::Exception exception;
    exception.index = static_cast<uint32_t>(index);
    if (tally.must_restamp(quorum_)) {
      exception.restamp_above = tally.above;
      exception.answered = tally.answered;
      exception.answered.insert(exception.answered.end(), tally.behind.begin(), tally.behind.end());
    } else if (tally.acknowledged() >= quorum_) {
      return;
    } else {
      exception.in_doubt = tally.may_be_somewhere();
    }
    reply->exceptions.push_back(std::move(exception));
  }

  const size_t records_;
  const size_t quorum_;
  Mutex mutex_;
  Condition changed_;
  WriteTally all_ SLUICE_GUARDED_BY(mutex_);
  std::vector<WriteTally> each_ SLUICE_GUARDED_BY(mutex_);
  std::string reasons_ SLUICE_GUARDED_BY(mutex_);
};

absl::StatusOr<RecordWrites::Batch> RecordWrites::check(const Message& message) {
  const Envelope& envelope = message.envelope;
  SLUICE_ASSIGN_OR_RETURN(RecordBatchReader reader, RecordBatchReader::open(message.payload()));
  if (reader.records() == 0 || reader.records() > kMaxBatchRecords) {
    return invalid_argument("a batch of {} records: 1 to {}", reader.records(), kMaxBatchRecords);
  }
  if (envelope.version_override == 0) return invalid_argument("a batch of records has no version");
  if (envelope.attempt > router_.epoch()) router_.refresh();
  SLUICE_ASSIGN_OR_RETURN(const auto placement, router_.placement());
  if (placement->epoch != envelope.attempt) {
    return failed_precondition("stale epoch: {} in the request, {} here", envelope.attempt,
                               placement->epoch);
  }
  Batch batch;
  batch.records.resize(reader.records());
  uint32_t group = 0;
  for (RecordView& record : batch.records) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&record));
    if (!more) return data_loss("a batch with fewer records than it says");
    record.version = {envelope.version_override, envelope.version_node};
    const uint32_t here = placement->group_of[slot_of(record.key, placement->slot_bits)];
    if (&record == batch.records.data()) group = here;
    if (here != group) {
      return failed_precondition("a batch of records of slots with different replicas");
    }
  }
  RecordView beyond;
  SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&beyond));
  if (more) return data_loss("a batch with more records than it says");
  batch.replicas = placement->groups[group];
  if (std::none_of(batch.replicas.begin(), batch.replicas.end(),
                   [&](const auto& replica) { return replica.node == options_.node; })) {
    return failed_precondition("{} does not hold these slots in epoch {}", options_.node,
                               placement->epoch);
  }
  return batch;
}

ApplyAnswer RecordWrites::apply_records(const std::vector<RecordView>& records) {
  ApplyAnswer answer;
  if (answer.refused = store_.writable(); !answer.refused.ok()) return answer;
  absl::StatusOr<std::vector<ApplyResult>> results = store_.apply(records);
  if (absl::IsInvalidArgument(results.status())) {
    answer.refused = results.status();
  } else if (!results.ok()) {
    answer.failed = results.status();
  } else if (!is_uniform(*results)) {
    answer.results = *std::move(results);
  }
  answer.token = store_.found().joining;
  answer.sequence = store_.durable_sequence();
  return answer;
}

std::string RecordWrites::apply(const Message& message) {
  const absl::StatusOr<Batch> batch = check(message);
  if (batch.ok()) return apply_records(batch->records).encode();
  ApplyAnswer refusal;
  refusal.refused = batch.status();
  return refusal.encode();
}

void RecordWrites::forward(const Batch& batch, Message& message,
                           const std::shared_ptr<Round>& round) {
  // One sequence for all replicas: they share the buffer, so they share the envelope in it.
  Envelope envelope = message.envelope;
  envelope.sequence = peers_.next_sequence();
  const uint32_t bytes = Envelope::seal(envelope, message.buffer);
  for (const SlotRoute::Replica& replica : batch.replicas) {
    if (replica.node == options_.node) continue;
    peers_.send(replica, message.buffer.share(), bytes, envelope.sequence, options_.send_timeout_ms,
                options_.timeout_ms,
                [round, node = replica.node,
                 on_answer = options_.on_answer](const RequestClient::Outcome& outcome) {
                  const absl::StatusOr<ApplyAnswer> answer = ApplyAnswer::of(outcome);
                  if (answer.ok() && answer->refused.ok() && answer->failed.ok() && on_answer) {
                    on_answer(node, answer->token, answer->sequence);
                  }
                  round->take(node, answer, outcome.sent);
                });
  }
}

std::string RecordWrites::coordinate(Message& message) {
  const absl::StatusOr<Batch> batch = check(message);
  if (!batch.ok()) {
    RecordWriteReply refusal;
    refusal.refused = batch.status();
    return refusal.encode();
  }
  const auto round =
      std::make_shared<Round>(batch->records.size(), batch->replicas.size(), options_.quorum);
  forward(*batch, message, round);
  round->take(options_.node, apply_records(batch->records), /*sent=*/true);
  return round->wait(options_.timeout_ms).encode();
}

}  // namespace sluice
