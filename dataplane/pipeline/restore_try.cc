#include "dataplane/pipeline/restore_try.h"

#include "base/status.h"
#include "dataplane/block/block.h"

namespace sluice {

absl::StatusOr<RecordCount> RecordCount::of_block(std::span<const uint8_t> block) {
  RecordCount count;
  SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open_verified(block));
  for (;;) {
    BlockEntry entry;
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) return count;
    if (entry.tombstone) ++count.deletions;
    if (entry.tombstone || !entry.last()) continue;
    ++count.records;
    count.bytes += entry.key.size() + entry.value_bytes;
  }
}

UnitFailure UnitFailure::first_of(const std::vector<WriteReply::Failure>& failures) {
  const WriteReply::Failure& first = failures.front();
  if (failures.size() == 1) return UnitFailure{first.node, first.status};
  std::string reason(message_of(first.status));
  for (size_t i = 1; i < failures.size(); ++i) {
    reason += fmt::format("; {} too: {}", failures[i].node, message_of(failures[i].status));
  }
  return UnitFailure{first.node, absl::Status(first.status.code(), reason)};
}

void UnitTry::add(const RecordCount& more) {
  count.records += more.records;
  count.deletions += more.deletions;
  count.bytes += more.bytes;
}

std::optional<UnitFailure> UnitTry::take_reply(const SlotRoute& route,
                                               absl::StatusOr<WriteReply>& reply, uint32_t slot,
                                               const RecordCount& block) {
  const std::string& node = route.replicas.front().node;
  if (!reply.ok()) return UnitFailure{node, reply.status()};
  if (!reply->failures.empty()) return UnitFailure::first_of(reply->failures);
  if (reply->holders.size() != route.replicas.size()) {
    return UnitFailure{node, data_loss("its answer names {} of {} replicas that have the block",
                                       reply->holders.size(), route.replicas.size())};
  }
  // A value over several blocks is a value to the replica that has all of them in one place.
  for (const WriteReply::Holder& holder : reply->holders) {
    if (keeping.try_emplace(holder.node, holder.keeping).first->second == holder.keeping) continue;
    return UnitFailure{holder.node,
                       aborted("the lot was committed, or full, between two of these blocks")};
  }
  // Of the slot's blocks in one request, with the first.
  if (const auto found = reply->kept.extract(slot); !found.empty()) {
    kept.add(found.mapped());
  }
  holders.add(route.epoch, reply->holders);
  for (const WriteReply::Holder& holder : reply->holders) {
    if (holder.keeping != 0) retained_by.insert({holder.node, holder.keeping});
  }
  for (const SlotRoute::Replica& replica : route.replicas) {
    RestoreResult::Node& sum = nodes[replica.node];
    sum.records += block.records;
    sum.bytes += block.bytes;
  }
  return std::nullopt;
}

}  // namespace sluice
