#include "control/records/read_coordinator.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"
#include "control/peers/peer_calls.h"
#include "control/peers/rpc.h"
#include "control/records/key_read.h"

namespace sluice {

namespace {

// How often it is looked whether the client is still there.
constexpr int64_t kStopPollMs = 200;
constexpr int64_t kLongestPageMs = 60'000;
// Before a node that has too much to do is asked again.
constexpr int64_t kPauseMs = 100;

// Whether enough replicas of each slot have answered.
bool cover(const DistributionTable& table, uint32_t first, uint32_t slots, size_t quorum,
           const std::function<bool(const std::string&)>& answered) {
  std::vector<uint8_t> has(table.members().size());
  for (size_t i = 0; i < has.size(); ++i) has[i] = answered(table.members()[i].name) ? 1 : 0;
  for (uint32_t slot = first; slot < first + slots; ++slot) {
    size_t answers = 0;
    for (const uint16_t member : table.replicas_of(slot)) answers += has[member];
    if (answers < quorum) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::optional<Record>> ReadCoordinator::get(std::string_view key) {
  return KeyRead(context_, options_.replicas, quorum_, key).run();
}

absl::StatusOr<ReadCoordinator::Digests> ReadCoordinator::collect_digests(
    uint32_t first, uint32_t slots, const std::function<bool()>& stopped) {
  const auto snapshot = context_.directory->snapshot();
  if (snapshot->table == nullptr) return unavailable("there is no distribution table yet");
  const DistributionTable& table = *snapshot->table;
  Digests digests;
  PeerCalls<v1::DigestsRequest, v1::DigestsReply> calls;
  const auto ask = [&](const std::string& name) {
    auto peer = context_.peers->find(name);
    if (!peer.ok()) {
      digests.failed[name] = peer.status();
      return;
    }
    v1::DigestsRequest request;
    request.set_first_slot(first);
    request.set_slots(slots);
    calls.ask(*std::move(peer), std::move(request), options_.replicas.call_ms,
              [](PeerNode& node, grpc::ClientContext* context, const v1::DigestsRequest* asked,
                 v1::DigestsReply* reply, auto done) {
                node.peer().async()->Digests(context, asked, reply, std::move(done));
              });
  };
  std::vector<std::string> later;  // that lately did not answer
  std::set<std::string> holders;
  for (uint32_t slot = first; slot < first + slots; ++slot) {
    for (const uint16_t member : table.replicas_of(slot)) {
      holders.insert(table.members()[member].name);
    }
  }
  for (const std::string& name : holders) {
    if (name == context_.name) {
      std::vector<SlotDigest>& own = digests.of[name];
      for (uint32_t i = 0; i < slots; ++i) own.push_back(context_.store->digest(first + i));
      continue;
    }
    const auto peer = context_.peers->find(name);
    const bool likely = snapshot->live(name) && peer.ok() && (*peer)->available();
    if (likely) {
      ask(name);
    } else {
      later.push_back(name);
    }
  }
  const auto covered = [&] {
    return cover(table, first, slots, quorum_,
                 [&](const std::string& name) { return digests.of.contains(name); });
  };
  Deadline deadline(*context_.clock, options_.replicas.call_ms);
  while (!covered()) {
    if (stopped()) return cancelled("the node stops, or the client went away");
    const bool more = !later.empty();
    const int64_t left_ms = deadline.left_ms();
    if ((calls.pending() == 0 && !more) || left_ms <= 0) break;
    auto answer = calls.next(
        calls.pending() == 0 ? 0
                             : std::min(more ? options_.replicas.hedge_ms : kStopPollMs, left_ms));
    if (answer.has_value()) {
      const std::string& name = answer->node->name();
      auto decoded = answer->status.ok() ? decode_digests(answer->reply.digests(), slots)
                                         : from_grpc(answer->status);
      if (decoded.ok()) {
        digests.of[name] = *std::move(decoded);
      } else {
        digests.failed[name] = decoded.status();
      }
    } else if (more) {
      for (const std::string& name : later) ask(name);
      later.clear();
    }
  }
  if (calls.pending() > 0) calls.note_late();
  for (const std::string& name : holders) {
    if (calls.is_open(name)) digests.failed[name] = late(options_.replicas.call_ms);
  }
  return digests;
}

absl::StatusOr<ReadCoordinator::Sources> ReadCoordinator::sources(uint32_t slot,
                                                                  const Digests& digests,
                                                                  uint32_t first) {
  SLUICE_ASSIGN_OR_RETURN(const auto names, ranked_replicas(context_, slot));
  Sources sources;
  std::vector<const SlotDigest*> published;
  for (const std::string& name : names) {
    const auto found = digests.of.find(name);
    if (found == digests.of.end() || published.size() == quorum_) continue;
    sources.nodes.push_back(name);
    published.push_back(&found->second[slot - first]);
  }
  if (published.size() < quorum_) {
    std::string reasons;
    for (const std::string& name : names) {
      if (digests.of.contains(name)) continue;
      const auto why = digests.failed.find(name);
      add_reason(&reasons, name,
                 why == digests.failed.end() ? unavailable("was not asked") : why->second);
    }
    return too_few_to_read(slot, published.size(), quorum_, reasons);
  }
  if (std::all_of(published.begin(), published.end(),
                  [&](const SlotDigest* digest) { return *digest == *published.front(); })) {
    sources.agreed = *published.front();
    sources.nodes.resize(1);
  }
  return sources;
}

absl::StatusOr<uint64_t> ReadCoordinator::count(uint32_t first, uint32_t slots,
                                                std::string_view prefix,
                                                const std::function<bool()>& stopped) {
  SLUICE_ASSIGN_OR_RETURN(const Digests digests, collect_digests(first, slots, stopped));
  uint64_t total = 0;
  for (uint32_t slot = first; slot < first + slots; ++slot) {
    if (stopped()) return cancelled("the node stops, or the client went away");
    SLUICE_ASSIGN_OR_RETURN(const Sources from, sources(slot, digests, first));
    if (from.agreed.has_value() && (prefix.empty() || from.agreed->records == 0)) {
      total += from.agreed->records;
      continue;
    }
    SlotRange range{slot, std::string(prefix), {}};
    uint64_t records = 0;
    if (!merge(from.nodes, &range, options_.scan, nullptr, &records).ok()) {
      SLUICE_ASSIGN_OR_RETURN(records, walk({slot, std::string(prefix), {}}, nullptr, stopped));
    }
    total += records;
  }
  return total;
}

absl::StatusOr<uint64_t> ReadCoordinator::visit_slot(const SlotRange& range, const Visit& visit,
                                                     const std::function<bool()>& stopped) {
  return walk(range, &visit, stopped);
}

// A replica that is late or gone is answered by reading on from others, behind what was handed out
// already, and in the end by asking it again with more patience.
absl::StatusOr<uint64_t> ReadCoordinator::walk(SlotRange range, const Visit* visit,
                                               const std::function<bool()>& stopped) {
  uint64_t records = 0;
  absl::Status visited;
  // The visitor's own error ends the walk.
  const Visit guarded = [&](std::string_view key, std::string value) {
    visited = (*visit)(key, std::move(value));
    return visited;
  };
  ScanTimes times = options_.scan;
  Deadline deadline(*context_.clock, times.whole_ms);
  for (uint32_t failures = 0;;) {
    SLUICE_ASSIGN_OR_RETURN(const Digests digests, collect_digests(range.slot, 1, stopped));
    SLUICE_ASSIGN_OR_RETURN(const Sources from, sources(range.slot, digests, range.slot));
    if (from.agreed.has_value() && from.agreed->records == 0) return records;
    const std::string behind = range.after;
    const absl::Status last =
        merge(from.nodes, &range, times, visit == nullptr ? nullptr : &guarded, &records);
    if (last.ok()) return records;
    if (!visited.ok()) return visited;
    if (stopped()) return cancelled("the node stops, or the client went away");
    failures = range.after == behind ? failures + 1 : 0;
    const bool waits = absl::IsDeadlineExceeded(last) || absl::IsResourceExhausted(last);
    if (failures > context_.cluster().replicas && !waits) return last;
    if (deadline.passed()) return last;
    if (absl::IsResourceExhausted(last)) deadline.pause(kPauseMs);
    if (failures >= context_.cluster().replicas) {
      times.page_ms = std::min(times.page_ms * 2, kLongestPageMs);
    }
  }
}

absl::Status ReadCoordinator::merge(const std::vector<std::string>& nodes, SlotRange* range,
                                    const ScanTimes& times, const Visit* visit, uint64_t* records) {
  std::vector<std::unique_ptr<SlotCursor>> cursors;
  for (const std::string& node : nodes) {
    if (node == context_.name) {
      cursors.push_back(open_local_cursor(*context_.store, *range));
    } else {
      SLUICE_ASSIGN_OR_RETURN(auto peer, context_.peers->find(node));
      const bool values = visit != nullptr && cursors.empty();
      cursors.push_back(open_remote_cursor(std::move(peer), *range, values, times));
    }
  }
  std::vector<SlotCursor*> standing;
  for (const auto& cursor : cursors) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, cursor->next());
    if (more) standing.push_back(cursor.get());
  }
  while (!standing.empty()) {
    SlotCursor* best = standing.front();
    for (SlotCursor* cursor : standing) {
      const int order = cursor->key().compare(best->key());
      if (order < 0 || (order == 0 && best->summary() < cursor->summary())) best = cursor;
    }
    const std::string key(best->key());
    RecordSummary summary = best->summary();
    if (visit != nullptr && !summary.tombstone) {
      SLUICE_ASSIGN_OR_RETURN(std::string value, best->value(&summary));
      if (!summary.tombstone) SLUICE_RETURN_IF_ERROR((*visit)(key, std::move(value)));
    }
    if (!summary.tombstone) ++*records;
    range->after = key;
    for (size_t i = 0; i < standing.size();) {
      if (standing[i]->key() != key) {
        ++i;
        continue;
      }
      SLUICE_ASSIGN_OR_RETURN(const bool more, standing[i]->next());
      if (more) {
        ++i;
      } else {
        standing.erase(standing.begin() + static_cast<ptrdiff_t>(i));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice
