// Agreed slots: checked in the buffer they were received in, and archived verbatim from there.
#include <algorithm>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/pipeline/consolidation_impl.h"

namespace sluice::consolidation {
namespace {

constexpr int64_t kRefusalRetryNs = 20'000'000;
// After so many an activity lets other work have its thread.
constexpr int kMessagesInATurn = 8;
// Slots of one source that may arrive at the same time; a source packs a handful.
constexpr size_t kMaxArriving = 256;

}  // namespace

void ConsolidationImpl::run_agreed(Lane& lane) {
  for (int messages = 0; messages < kMessagesInATurn; ++messages) {
    const std::shared_ptr<Stream> stream = stream_of(lane);
    if (stream == nullptr || !send_refusals(lane, *stream)) return;
    // Asked first: what came before it closed is received before its end.
    const bool closed = stream->closed();
    absl::StatusOr<Message> message = stream->receive(0);
    if (!message.ok()) {
      if (closed) {
        drop_arriving(lane);
      } else if (stream->closed()) {
        lane.activity->wake();
      }
      return;
    }
    if (absl::Status status = on_agreed(lane, *std::move(message)); !status.ok()) {
      stream->close(status);
      drop_arriving(lane);
    }
  }
  lane.activity->wake();
}

std::shared_ptr<Stream> ConsolidationImpl::stream_of(Lane& lane) {
  std::shared_ptr<Stream> stream;
  bool newer = false;
  {
    const MutexLock lock(mutex_);
    // Once all is durable it takes, and drops, what sources repeat: it stands in their buffers.
    if (stopping() || !check_not_ended().ok()) return nullptr;
    stream = lane.newest;
    newer = std::exchange(lane.seen, lane.streams) != lane.streams;
  }
  if (newer) drop_arriving(lane);
  return stream;
}

// False while the source takes none: it takes no more blocks either until it has heard of these.
bool ConsolidationImpl::send_refusals(Lane& lane, Stream& stream) {
  while (!lane.refusals.empty()) {
    const Refusal& refusal = lane.refusals.front();
    Envelope envelope;
    envelope.kind = MessageKind::kSlotRefused;
    envelope.slot = refusal.slot;
    envelope.attempt = options_.attempt;
    const absl::Status sent = stream.send_control(envelope, encode_status(refusal.why), 0);
    if (!sent.ok()) {
      // Nobody tells when one of the exchange's control buffers is free.
      lane.activity->wake_at(exchange_.clock().monotonic_ns() + kRefusalRetryNs);
      return stream.closed();
    }
    lane.refusals.pop_front();
  }
  return true;
}

// An error breaks the stream; what concerns one slot alone is refused instead.
absl::Status ConsolidationImpl::on_agreed(Lane& lane, Message message) {
  const Envelope envelope = message.envelope;
  if (envelope.kind == MessageKind::kStreamEnd) return absl::OkStatus();
  if (envelope.kind != MessageKind::kBlock && envelope.kind != MessageKind::kSlotEnd) {
    return data_loss("a source sent a message of kind {}", static_cast<int>(envelope.kind));
  }
  if (envelope.attempt != options_.attempt) {
    return failed_precondition("a block of attempt {} in attempt {}", envelope.attempt,
                               options_.attempt);
  }
  {
    const MutexLock lock(mutex_);
    const auto found = slots_.find(envelope.slot);
    if (found == slots_.end() ||
        !std::binary_search(lane.slots.begin(), lane.slots.end(), envelope.slot)) {
      return data_loss("{} sent slot {}, which is not its own", lane.node, envelope.slot);
    }
    Slot& slot = found->second;
    if (slot.phase != Slot::Phase::kMissing || (slot.owner != nullptr && slot.owner != &lane)) {
      count_repeated(envelope);
      return absl::OkStatus();
    }
    slot.owner = &lane;
  }
  count_block(envelope.payload_bytes + static_cast<uint32_t>(Envelope::kBytes));
  if (lane.arriving.size() >= kMaxArriving && !lane.arriving.contains(envelope.slot)) {
    return resource_exhausted("{} sends more than {} slots at a time", lane.node, kMaxArriving);
  }
  Arriving& arriving = lane.arriving[envelope.slot];
  if (arriving.digester == nullptr) arriving.digester = std::make_unique<SlotDigester>();

  const bool restart = envelope.sequence == 0 && (envelope.flags & Envelope::kRestart) != 0;
  if (restart) {
    drop(envelope.slot, arriving.next_sequence > 0);
    arriving.digester->reset();
    arriving.next_sequence = 0;
    arriving.refused = false;
  }
  const bool repeated = !arriving.refused && envelope.sequence < arriving.next_sequence;
  {
    const MutexLock lock(mutex_);
    if (repeated) {
      count_repeated(envelope);
    } else {
      slots_[envelope.slot].taken_bytes += envelope.payload_bytes + Envelope::kBytes;
    }
  }
  // Refused: sent before the source heard of it.
  if (repeated || arriving.refused) return absl::OkStatus();
  absl::Status status;
  if (envelope.sequence > arriving.next_sequence) {
    status = data_loss("block {} came where {} was due", envelope.sequence, arriving.next_sequence);
  } else if (envelope.kind == MessageKind::kBlock) {
    status = take_block(lane, arriving, message);
  }
  const bool last =
      envelope.kind == MessageKind::kSlotEnd || (envelope.flags & Envelope::kEndOfSlot) != 0;
  if (status.ok() && last) status = finish_agreed(lane, message, arriving);
  if (!running()) return absl::OkStatus();
  if (!status.ok()) refuse(lane, envelope.slot, arriving, status);
  return absl::OkStatus();
}

absl::Status ConsolidationImpl::take_block(Lane& lane, Arriving& arriving, Message& message) {
  const Envelope& envelope = message.envelope;
  {
    Stage::Work work(options_.check);
    SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open(message.payload()));
    const BlockHeader& header = reader.header();
    if (header.slot != envelope.slot || header.slot_bits != options_.slot_bits ||
        header.stored_bytes != envelope.payload_bytes) {
      return data_loss("an envelope for slot {} around a block of slot {}", envelope.slot,
                       header.slot);
    }
    SLUICE_RETURN_IF_ERROR(arriving.digester->add_block(reader));
    work.add(envelope.payload_bytes);
  }
  ++arriving.next_sequence;
  if (absl::Status status = writer_.append(std::move(message.buffer), envelope.payload_bytes);
      !status.ok()) {
    end(State::kFailed,
        with_context(status, fmt::format("archiving slot {} of {}", envelope.slot, lane.node)));
  }
  return absl::OkStatus();
}

// What the plan says, or the source now tells.
absl::StatusOr<SlotDigest> ConsolidationImpl::expected_of(const Message& end) {
  const ConsolidationSlot* plan = nullptr;
  {
    const MutexLock lock(mutex_);
    plan = slots_.find(end.envelope.slot)->second.plan;
  }
  if (!plan->told) return plan->senders.front().digest;
  SlotDigest digest;
  if (end.envelope.kind != MessageKind::kSlotEnd) {
    return data_loss("its source does not tell what it has read");
  }
  ByteReader in(end.payload());
  if (!SlotDigest::decode(in, &digest) || !in.done()) {
    return data_loss("what its source tells is no digest");
  }
  return digest;
}

absl::Status ConsolidationImpl::finish_agreed(Lane& lane, const Message& end, Arriving& arriving) {
  if (!running()) return absl::OkStatus();
  const uint32_t slot = end.envelope.slot;
  SLUICE_RETURN_IF_ERROR(arriving.digester->end_slot());
  const SlotDigest& digest = arriving.digester->digest();
  SLUICE_ASSIGN_OR_RETURN(const SlotDigest expected, expected_of(end));
  if (digest != expected) {
    return data_loss("{} records in {} bytes with digest {} came; the source has {} in {} with {}",
                     digest.records, digest.bytes, digest.sum.to_hex(), expected.records,
                     expected.bytes, expected.sum.to_hex());
  }
  if (slot_received(slot, digest, arriving.digester->newest_stamp())) lane.arriving.erase(slot);
  return absl::OkStatus();
}

void ConsolidationImpl::refuse(Lane& lane, uint32_t slot, Arriving& arriving,
                               const absl::Status& why) {
  drop(slot, arriving.next_sequence > 0);
  arriving.next_sequence = 0;
  arriving.refused = true;
  slot_failed(slot, lane.node, why);
  if (running()) lane.refusals.push_back({slot, why});
}

void ConsolidationImpl::drop_arriving(Lane& lane) {
  for (auto& [slot, arriving] : lane.arriving) {
    drop(slot, arriving.next_sequence > 0);
    const MutexLock lock(mutex_);
    slots_[slot].owner = nullptr;
  }
  lane.arriving.clear();
  lane.refusals.clear();
}

}  // namespace sluice::consolidation
