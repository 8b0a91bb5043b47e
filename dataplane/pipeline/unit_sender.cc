#include "dataplane/pipeline/unit_sender.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>

#include "base/status.h"
#include "dataplane/block/block.h"

namespace sluice {

void UnitSender::send(const RestorePlan::Unit& unit) {
  UnitTry result;
  try_unit(unit, &result);
  context_.tally.account(unit, std::move(result));
}

void UnitSender::try_unit(const RestorePlan::Unit& unit, UnitTry* result) {
  regrouper_.reset();
  // The last try continues after a failure, without sending, so that it is known how many records
  // the unit has. One that is repacked continues in any case: its other slots may have healthy
  // replicas.
  const bool last = unit.tries + 1 >= context_.options.tries;
  for (uint32_t i = 0; i < unit.blocks; ++i) {
    if (result->failure.has_value() &&
        (result->failure->permanent || (!last && !context_.repack))) {
      return;
    }
    const BlockLocation& location = context_.plan.blocks(unit.part)[unit.first + i];
    const bool completed = context_.options.completed_slots.contains(location.slot);
    if (completed && !context_.repack) continue;
    absl::StatusOr<BlockBuffer> buffer = context_.take_buffer();
    if (!buffer.ok()) {
      result->failure = UnitFailure{"", buffer.status()};
      return;
    }
    absl::Status status;
    {
      Stage::Work work(context_.options.read);
      status = context_.archive.read_block(unit.part, location, buffer->span());
      if (status.ok()) work.add(location.bytes);
    }
    if (!status.ok()) {
      result->failure = context_.read_failure(unit.part, status);
    } else if (context_.repack) {
      send_regrouped(*std::move(buffer), completed, unit, result);
    } else {
      send_plain(*std::move(buffer), location, unit, result);
    }
  }
}

void UnitSender::send_plain(BlockBuffer buffer, const BlockLocation& location,
                            const RestorePlan::Unit& unit, UnitTry* result) {
  const absl::StatusOr<RecordCount> count = RecordCount::of_block({buffer.data(), location.bytes});
  if (!count.ok()) {
    result->failure = context_.read_failure(unit.part, count.status());
    return;
  }
  result->add(*count);
  if (result->failure.has_value()) return;
  result->failure = send_block(buffer, location.bytes, location.slot, unit.tries, *count, result);
}

void UnitSender::send_regrouped(BlockBuffer buffer, bool completed, const RestorePlan::Unit& unit,
                                UnitTry* result) {
  // Live records by new slot that no block has gone out with yet; one in fragments counts with its
  // last block.
  std::map<uint32_t, RecordCount> unsent;
  BlockRegrouper::Sink sink;
  sink.take = [this] { return context_.take_buffer(); };
  sink.record = [&](uint32_t slot, std::string_view key, const RecordSummary& summary) {
    result->digests[slot].add(key, summary);
    result->newest_stamp = std::max(result->newest_stamp, summary.version.stamp);
    RecordCount record{1, 0, key.size() + summary.value_bytes};
    if (summary.tombstone) record = {0, 1, 0};
    result->add(record);
    unsent[slot].records += record.records;
    unsent[slot].bytes += record.bytes;
  };
  sink.refused = [&](const RecordSummary& summary, const absl::Status& why) {
    result->add(summary.tombstone ? RecordCount{0, 1, 0} : RecordCount{1, 0, 0});
    // No try can write it; the archive is whole.
    if (!result->failure.has_value()) result->failure = UnitFailure{"", why, /*permanent=*/true};
  };
  sink.put = [&](BlockBuffer block, uint32_t block_bytes, uint32_t slot) {
    if (completed || result->failed_slots.contains(slot)) return absl::OkStatus();
    const RecordCount count = std::exchange(unsent[slot], {});
    std::optional<UnitFailure> failure =
        send_block(block, block_bytes, slot, unit.tries, count, result);
    if (failure.has_value()) {
      result->failed_slots.insert(slot);
      if (!result->failure.has_value()) result->failure = std::move(failure);
    }
    return absl::OkStatus();
  };
  const auto header = peek_block_header({buffer.data(), buffer.capacity()});
  absl::Status status = header.status();
  if (status.ok()) {
    absl::StatusOr<BlockReader> reader = BlockReader::open({buffer.data(), header->stored_bytes});
    status = reader.ok() ? regrouper_.regroup(*reader, sink) : reader.status();
  }
  if (!status.ok()) result->failure = context_.read_failure(unit.part, status);
}

std::optional<UnitFailure> UnitSender::send_block(BlockBuffer& buffer, uint32_t bytes,
                                                  uint32_t slot, int tries,
                                                  const RecordCount& count, UnitTry* result) {
  absl::StatusOr<SlotRoute> route = context_.route(slot);
  if (!route.ok()) return UnitFailure{"", route.status()};
  Envelope envelope;
  envelope.kind = MessageKind::kWriteRequest;
  envelope.slot = slot;
  envelope.attempt = route->epoch;
  envelope.payload_bytes = bytes;
  envelope.version_override = context_.options.mapping.restamp.stamp;
  envelope.version_node = context_.options.mapping.restamp.node;
  // A later try begins with another replica: the first one may be alive but stuck.
  std::vector<SlotRoute::Replica>& replicas = route->replicas;
  const auto first = static_cast<size_t>(tries) % replicas.size();
  std::rotate(replicas.begin(), replicas.begin() + static_cast<std::ptrdiff_t>(first),
              replicas.end());
  const int64_t timeout_ms = context_.options.request_timeout_ms;
  std::optional<UnitFailure> failure;
  for (size_t i = 0; i < replicas.size(); ++i) {
    envelope.sequence = context_.client->next_sequence();
    const uint32_t message_bytes = Envelope::seal(envelope, buffer);
    absl::StatusOr<RequestClient::CallPtr> call = context_.client->begin(
        replicas.front(), buffer.share(), message_bytes, envelope.sequence, timeout_ms);
    if (call.ok()) {
      // The envelope of a request that is still on its way must not change under it, so a sent one
      // is not sent to another replica in this try.
      auto reply = WriteReply::of(context_.client->finish(*call, timeout_ms));
      failure = result->take_reply(*route, reply, slot, count);
      break;
    }
    if (!failure.has_value()) failure = UnitFailure{replicas.front().node, call.status()};
    std::rotate(replicas.begin(), replicas.begin() + 1, replicas.end());
  }
  if (failure.has_value() && absl::IsFailedPrecondition(failure->status)) {
    context_.router.refresh();
  }
  return failure;
}

}  // namespace sluice
