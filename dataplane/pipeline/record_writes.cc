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

absl::Status damaged() { return data_loss("a damaged reply to a batch of records"); }

bool get_status(ByteReader& in, absl::Status* status) {
  std::string_view text;
  if (!in.get_string(&text, kMaxReasonBytes + 16)) return false;
  *status = decode_status(text);
  return true;
}

}  // namespace

std::string ApplyAnswer::encode() const {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put_string(encode_status(refused));
  out.put_string(encode_status(failed));
  out.put_string(token);
  out.put<uint64_t>(sequence);
  out.put<uint64_t>(missed_cut);
  return bytes;
}

absl::StatusOr<ApplyAnswer> ApplyAnswer::decode(std::string_view payload) {
  ByteReader in(payload);
  ApplyAnswer answer;
  std::string_view token;
  if (!get_status(in, &answer.refused) || !get_status(in, &answer.failed) ||
      !in.get_string(&token, kMaxTokenBytes) || !in.get(&answer.sequence) ||
      !in.get(&answer.missed_cut) || !in.done()) {
    return damaged();
  }
  answer.token = token;
  return answer;
}

std::string RecordWriteReply::encode() const {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put_string(encode_status(refused));
  out.put_string(std::string_view(reason).substr(0, kMaxReasonBytes));
  out.put<uint64_t>(as_of);
  return bytes;
}

absl::StatusOr<RecordWriteReply> RecordWriteReply::decode(std::string_view payload) {
  ByteReader in(payload);
  RecordWriteReply reply;
  std::string_view reason;
  if (!get_status(in, &reply.refused) || !in.get_string(&reason, kMaxReasonBytes) ||
      !in.get(&reply.as_of) || !in.done()) {
    return damaged();
  }
  reply.reason = reason;
  return reply;
}

// What the replicas of one batch said. Outlives the request while slow replicas are still to
// answer.
class RecordWrites::Round {
 public:
  Round(size_t replicas, size_t quorum) : quorum_(quorum) { tally_.open = replicas; }

  void take(const std::string& node, const absl::StatusOr<ApplyAnswer>& answer) {
    {
      const MutexLock lock(mutex_);
      --tally_.open;
      absl::Status failure = answer.status();
      if (answer.ok()) failure = answer->refused.ok() ? answer->failed : answer->refused;
      if (failure.ok()) {
        tally_.take(answer->missed_cut);
      } else {
        reasons_ +=
            fmt::format("{}{}: {}", reasons_.empty() ? "" : "; ", node, message_of(failure));
      }
    }
    changed_.notify_all();
  }

  RecordWriteReply wait(uint64_t stamp, int64_t timeout_ms) {
    MutexLock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                      [&]() SLUICE_REQUIRES(mutex_) { return tally_.decided(quorum_); });
    RecordWriteReply reply;
    if (tally_.acknowledged(quorum_)) {
      reply.as_of = tally_.as_of(stamp, quorum_);
    } else {
      reply.reason = reasons_.empty() ? "the replicas did not answer in time" : reasons_;
    }
    return reply;
  }

 private:
  const size_t quorum_;
  Mutex mutex_;
  Condition changed_;
  WriteTally tally_ SLUICE_GUARDED_BY(mutex_);
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
  } else {
    answer.failed = clash_among(records, *results);
    answer.missed_cut = missed_cut(*results);
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
                  round->take(node, answer);
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
  const auto round = std::make_shared<Round>(batch->replicas.size(), options_.quorum);
  const uint64_t stamp = message.envelope.version_override;
  forward(*batch, message, round);
  round->take(options_.node, apply_records(batch->records));
  return round->wait(stamp, options_.timeout_ms).encode();
}

}  // namespace sluice
