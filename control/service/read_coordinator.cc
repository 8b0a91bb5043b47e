#include "control/service/read_coordinator.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "control/client/rpc.h"

namespace sluice {

namespace {

absl::Status too_few(uint32_t slot, size_t readable, size_t quorum, const std::string& reasons) {
  return unavailable("slot {}: {} of the {} replicas that a read needs can be read; {}", slot,
                     readable, quorum, reasons);
}

void add_reason(std::string* reasons, std::string_view node, const absl::Status& status) {
  const std::string_view message = message_of(status);
  *reasons += reasons->empty() ? "" : "; ";
  if (!message.starts_with(node)) *reasons += fmt::format("{}: ", node);
  *reasons += message;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReadCoordinator::replicas(uint32_t slot) {
  const auto snapshot = context_.directory->snapshot();
  if (snapshot->table == nullptr) return unavailable("there is no distribution table yet");
  std::vector<std::pair<int, std::string>> ranked;
  for (const uint16_t member : snapshot->table->replicas_of(slot)) {
    const std::string& name = snapshot->table->members()[member].name;
    int rank = 0;
    if (name != context_.name) {
      const auto node = context_.peers->find(name);
      rank = !node.ok() ? 4 : (*node)->available() ? 1 : 2;
      if (!snapshot->live(name)) rank += 2;
    }
    ranked.emplace_back(rank, name);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  names.reserve(ranked.size());
  for (auto& [rank, name] : ranked) names.push_back(std::move(name));
  return names;
}

absl::StatusOr<std::optional<Record>> ReadCoordinator::read_one(const std::string& node,
                                                                std::string_view key) {
  if (node == context_.name) return context_.store->get(key);
  SLUICE_ASSIGN_OR_RETURN(const auto peer, context_.peers->find(node));
  grpc::ClientContext context;
  set_timeout(context, options_.call_ms);
  v1::ReadRequest request;
  request.add_keys(key.data(), key.size());
  v1::ReadReply reply;
  const grpc::Status status = peer->peer().Read(&context, request, &reply);
  peer->note(status);
  if (!status.ok()) return from_peer(status, node);
  if (reply.results_size() != 1) return data_loss("{}: answered another number of records", node);
  if (!reply.results(0).found()) return std::optional<Record>();
  v1::Record& record = *reply.mutable_results(0)->mutable_record();
  SLUICE_RETURN_IF_ERROR(view_of(record).status());
  return Record{std::move(*record.mutable_key()),
                std::move(*record.mutable_value()),
                {record.stamp(), record.node()},
                record.tombstone()};
}

absl::StatusOr<std::optional<Record>> ReadCoordinator::get(std::string_view key) {
  const uint32_t slot = slot_of(key, context_.cluster().slot_bits);
  SLUICE_ASSIGN_OR_RETURN(const auto names, replicas(slot));
  std::optional<Record> newest;
  size_t answers = 0;
  std::string reasons;
  for (const std::string& name : names) {
    auto answer = read_one(name, key);
    if (!answer.ok()) {
      add_reason(&reasons, name, answer.status());
      continue;
    }
    if (answer->has_value() &&
        (!newest.has_value() || newest->view().summary() < (*answer)->view().summary())) {
      newest = *std::move(answer);
    }
    if (++answers == quorum_) return newest;
  }
  return too_few(slot, answers, quorum_, reasons);
}

absl::StatusOr<std::vector<SlotDigest>> ReadCoordinator::digests_of(const std::string& node,
                                                                    uint32_t first,
                                                                    uint32_t slots) {
  if (node == context_.name) {
    std::vector<SlotDigest> digests;
    for (uint32_t i = 0; i < slots; ++i) digests.push_back(context_.store->digest(first + i));
    return digests;
  }
  SLUICE_ASSIGN_OR_RETURN(const auto peer, context_.peers->find(node));
  grpc::ClientContext context;
  set_timeout(context, options_.call_ms);
  v1::DigestsRequest request;
  request.set_first_slot(first);
  request.set_slots(slots);
  v1::DigestsReply reply;
  const grpc::Status status = peer->peer().Digests(&context, request, &reply);
  peer->note(status);
  if (!status.ok()) return from_peer(status, node);
  return decode_digests(reply.digests(), slots);
}

ReadCoordinator::Digests ReadCoordinator::live_digests(uint32_t first, uint32_t slots) {
  Digests all;
  for (const Member& member : context_.directory->snapshot()->members) {
    if (!member.live) continue;
    if (auto digests = digests_of(member.info.name, first, slots); digests.ok()) {
      all[member.info.name] = *std::move(digests);
    }
  }
  return all;
}

absl::StatusOr<ReadCoordinator::Sources> ReadCoordinator::sources(uint32_t slot,
                                                                  const Digests& digests,
                                                                  uint32_t first) {
  SLUICE_ASSIGN_OR_RETURN(const auto names, replicas(slot));
  Sources sources;
  std::vector<const SlotDigest*> published;
  for (const std::string& name : names) {
    const auto found = digests.find(name);
    if (found == digests.end() || published.size() == quorum_) continue;
    sources.nodes.push_back(name);
    published.push_back(&found->second[slot - first]);
  }
  if (published.size() < quorum_) {
    std::string reasons;
    for (const std::string& name : names) {
      if (digests.find(name) == digests.end()) {
        add_reason(&reasons, name, unavailable("did not answer"));
      }
    }
    return too_few(slot, published.size(), quorum_, reasons);
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
  const Digests digests = live_digests(first, slots);
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
    if (!merge(from.nodes, &range, nullptr, &records).ok()) {
      SLUICE_ASSIGN_OR_RETURN(records, walk({slot, std::string(prefix), {}}, nullptr));
    }
    total += records;
  }
  return total;
}

absl::StatusOr<uint64_t> ReadCoordinator::visit_slot(const SlotRange& range, const Visit& visit) {
  return walk(range, &visit);
}

absl::StatusOr<uint64_t> ReadCoordinator::walk(SlotRange range, const Visit* visit) {
  absl::Status last;
  uint64_t records = 0;
  absl::Status visited;
  // The visitor's own error ends the walk; a replica's is answered by going on with the others.
  const Visit guarded = [&](std::string_view key, std::string value) {
    visited = (*visit)(key, std::move(value));
    return visited;
  };
  for (uint32_t round = 0; round <= context_.cluster().replicas; ++round) {
    Digests digests;
    SLUICE_ASSIGN_OR_RETURN(const auto names, replicas(range.slot));
    std::string reasons;
    for (const std::string& name : names) {
      if (digests.size() == quorum_) break;
      auto answer = digests_of(name, range.slot, 1);
      if (answer.ok()) {
        digests[name] = *std::move(answer);
      } else {
        add_reason(&reasons, name, answer.status());
      }
    }
    if (digests.size() < quorum_) return too_few(range.slot, digests.size(), quorum_, reasons);
    SLUICE_ASSIGN_OR_RETURN(const Sources from, sources(range.slot, digests, range.slot));
    if (from.agreed.has_value() && from.agreed->records == 0) return records;
    last = merge(from.nodes, &range, visit == nullptr ? nullptr : &guarded, &records);
    if (last.ok()) return records;
    if (!visited.ok()) return visited;
  }
  return last;
}

absl::Status ReadCoordinator::merge(const std::vector<std::string>& nodes, SlotRange* range,
                                    const Visit* visit, uint64_t* records) {
  std::vector<std::unique_ptr<SlotCursor>> cursors;
  for (const std::string& node : nodes) {
    if (node == context_.name) {
      cursors.push_back(open_local_cursor(*context_.store, *range));
    } else {
      SLUICE_ASSIGN_OR_RETURN(auto peer, context_.peers->find(node));
      const bool values = visit != nullptr && cursors.empty();
      cursors.push_back(open_remote_cursor(std::move(peer), *range, values, options_.scan_ms));
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
