#include "control/service/peer_service.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "control/backup/backup_trees.h"
#include "control/backup/node_trees.h"
#include "control/job/job_fence.h"
#include "control/peers/rpc.h"
#include "control/records/slot_cursor.h"
#include "control/service/request_limits.h"

namespace sluice {

namespace {
constexpr int64_t kPeerBudgetWaitMs = 2'000;

absl::Status no_table(const std::string& name) {
  return unavailable("{} has no distribution table yet", name);
}
}  // namespace

absl::Status PeerService::apply(IncomingCall&, const v1::ApplyRequest& request,
                                v1::ApplyReply* reply) {
  SLUICE_RETURN_IF_ERROR(check_count("records", request.records_size()));
  SLUICE_ASSIGN_OR_RETURN(const auto share,
                          budget_.take(request.ByteSizeLong(), kPeerBudgetWaitMs));
  auto snapshot = context_.directory->snapshot();
  if (request.epoch() > snapshot->epoch() || snapshot->table == nullptr) {
    SLUICE_RETURN_IF_ERROR(context_.directory->refresh());
    snapshot = context_.directory->snapshot();
  }
  if (snapshot->table == nullptr) return no_table(context_.name);
  reply->set_epoch(snapshot->epoch());
  if (request.epoch() != snapshot->epoch()) return absl::OkStatus();
  const DistributionTable& table = *snapshot->table;
  const int self = table.find_member(context_.name);
  std::vector<RecordView> records;
  records.reserve(static_cast<size_t>(request.records_size()));
  for (const v1::Record& record : request.records()) {
    SLUICE_ASSIGN_OR_RETURN(const RecordView view, view_of(record));
    const uint32_t slot = slot_of(view.key, table.slot_bits());
    if (self < 0 || !table.holds(slot, static_cast<uint32_t>(self))) {
      return failed_precondition("slot {} is not one of {}'s", slot, context_.name);
    }
    records.push_back(view);
  }
  SLUICE_ASSIGN_OR_RETURN(const auto results, context_.store->apply(records));
  SLUICE_RETURN_IF_ERROR(clash_among(records, results));
  reply->set_missed_cut(missed_cut(results));
  reply->set_token(context_.store->found().joining);
  reply->set_sequence(context_.store->durable_sequence());
  return absl::OkStatus();
}

absl::Status PeerService::read(IncomingCall&, const v1::ReadRequest& request,
                               v1::ReadReply* reply) {
  SLUICE_RETURN_IF_ERROR(check_count("keys", request.keys_size()));
  for (const std::string& key : request.keys()) {
    SLUICE_ASSIGN_OR_RETURN(const auto found, context_.store->get(key));
    auto* result = reply->add_results();
    result->set_found(found.has_value());
    if (found.has_value()) fill(found->view(), result->mutable_record());
    if (reply->ByteSizeLong() > static_cast<size_t>(kMaxRpcBytes)) {
      return resource_exhausted("more than {} MiB asked for at once", kMaxRpcBytes >> 20);
    }
  }
  // Afterwards: reading may find that what was read cannot be made durable.
  reply->set_read_only(!context_.store->writable().ok());
  return absl::OkStatus();
}

absl::Status PeerService::scan_slot(IncomingCall&, const v1::ScanRequest& request,
                                    PageSink<v1::ScanPage>* pages) {
  if (request.slot() >= context_.cluster().slots()) {
    return invalid_argument("there is no slot {}", request.slot());
  }
  SLUICE_RETURN_IF_ERROR(check_key_length("a prefix", request.prefix().size()));
  SLUICE_RETURN_IF_ERROR(check_key_length("a place to begin after", request.after().size()));
  const auto cursor =
      open_local_cursor(*context_.store, {request.slot(), request.prefix(), request.after()});
  v1::ScanPage page;
  size_t bytes = 0;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, cursor->next());
    if (!more) break;
    const RecordSummary& summary = cursor->summary();
    v1::ScanItem* item = page.add_items();
    fill(cursor->key(), summary, item);
    bytes += cursor->key().size() + 64;
    if (request.values() && !summary.tombstone) {
      RecordSummary current;
      SLUICE_ASSIGN_OR_RETURN(*item->mutable_value(), cursor->value(&current));
      bytes += item->value().size();
    }
    if (bytes < kBatchBytes) continue;
    SLUICE_RETURN_IF_ERROR(pages->write(page));
    page.Clear();
    bytes = 0;
  }
  return page.items_size() == 0 ? absl::OkStatus() : pages->write(page);
}

absl::Status PeerService::digests(IncomingCall&, const v1::DigestsRequest& request,
                                  v1::DigestsReply* reply) {
  const uint32_t slots = context_.cluster().slots();
  if (request.first_slot() > slots || request.slots() > slots - request.first_slot()) {
    return invalid_argument("slots {} and {} on: there are {}", request.first_slot(),
                            request.slots(), slots);
  }
  std::vector<SlotDigest> digests;
  for (uint32_t i = 0; i < request.slots(); ++i) {
    digests.push_back(context_.store->digest(request.first_slot() + i));
  }
  reply->set_epoch(context_.directory->snapshot()->epoch());
  reply->set_digests(encode_digests(digests));
  return absl::OkStatus();
}

absl::Status PeerService::find_missing(IncomingCall&, const v1::FindMissingRequest& request,
                                       v1::FindMissingReply* reply) {
  if (request.slot() >= context_.cluster().slots()) {
    return invalid_argument("there is no slot {}", request.slot());
  }
  SLUICE_RETURN_IF_ERROR(check_count("keys", request.items_size()));
  if (request.items().empty()) return absl::OkStatus();
  const auto scan = context_.store->scan(request.slot(), request.items(0).key());
  SlotScan::Item here;
  SLUICE_ASSIGN_OR_RETURN(bool more, scan->next(&here));
  for (int i = 0; i < request.items_size(); ++i) {
    const v1::ScanItem& item = request.items(i);
    if (i > 0 && item.key() <= request.items(i - 1).key()) {
      return invalid_argument("the keys to look for do not ascend");
    }
    while (more && here.key < item.key()) {
      SLUICE_ASSIGN_OR_RETURN(more, scan->next(&here));
    }
    SLUICE_ASSIGN_OR_RETURN(const RecordSummary wanted, summary_of(item));
    const bool found = more && here.key == item.key();
    if (!found || here.summary < wanted) reply->add_missing(static_cast<uint32_t>(i));
    if (!found || !request.tell()) continue;
    auto* told = reply->add_here();
    told->set_item(static_cast<uint32_t>(i));
    told->set_stamp(here.summary.version.stamp);
    told->set_node(here.summary.version.node);
    told->set_tombstone(here.summary.tombstone);
    told->set_same(here.summary.same_content(wanted));
  }
  return absl::OkStatus();
}

absl::Status PeerService::read_clock(IncomingCall&, const v1::Empty&, v1::ClockReply* reply) {
  reply->set_stamp(context_.store->clock().now());
  reply->set_epoch(context_.directory->snapshot()->epoch());
  reply->set_machine_ms(context_.clock->wall_ms());
  return absl::OkStatus();
}

absl::Status PeerService::recall_store(IncomingCall&, const v1::RecallRequest& request,
                                       v1::RecallReply* reply) {
  SLUICE_ASSIGN_OR_RETURN(const auto peer, context_.peers->find(request.node()));
  reply->set_sequence(peer->recall(request.token()));
  return absl::OkStatus();
}

absl::Status PeerService::observe_stamp(IncomingCall&, const v1::ObserveRequest& request,
                                        v1::Empty*) {
  return context_.store->clock().observe_archived(request.stamp());
}

absl::Status PeerService::arm_cut(IncomingCall&, const v1::ArmRequest& request,
                                  v1::ArmReply* reply) {
  auto snapshot = context_.directory->snapshot();
  if (request.epoch() != snapshot->epoch()) {
    SLUICE_RETURN_IF_ERROR(context_.directory->refresh());
    snapshot = context_.directory->snapshot();
  }
  if (snapshot->table == nullptr) return no_table(context_.name);
  if (request.epoch() != snapshot->epoch()) {
    return failed_precondition("the distribution table here is of epoch {}, not {}",
                               snapshot->epoch(), request.epoch());
  }
  SLUICE_ASSIGN_OR_RETURN(
      const auto pass, context_.fence->enter(request.backup(), request.attempt(), JobFence::kWaitMs,
                                             Store::Sync::kWithNext));
  const absl::Status armed =
      context_.store->arm_cut({request.backup(), request.cut(), request.epoch(), false});
  reply->set_clock(context_.store->clock().now());
  if (armed.code() == absl::StatusCode::kOutOfRange) {
    reply->set_missed(true);
    return absl::OkStatus();
  }
  return armed;
}

absl::Status PeerService::stages(IncomingCall&, const v1::Empty&, v1::StagesReply* reply) {
  put(context_.stages(), reply->mutable_stages());
  return absl::OkStatus();
}

absl::Status PeerService::look_at_trees(IncomingCall&, const v1::LookAtTreesRequest& request,
                                        v1::LookAtTreesReply* reply) {
  SLUICE_RETURN_IF_ERROR(check_count("trees", request.names_size()));
  SLUICE_RETURN_IF_ERROR(context_.fence->enter(request.backup(), request.attempt()).status());
  const std::vector<std::string> names(request.names().begin(), request.names().end());
  for (const NodeTrees::Seen& seen :
       context_.trees->look(request.backup(), request.attempt(), names, request.rescan())) {
    auto* tree = reply->add_trees();
    tree->set_name(seen.name);
    tree->set_done(seen.done);
    if (!seen.status.ok()) tree->set_error(std::string(message_of(seen.status)));
    if (!seen.done || !seen.status.ok()) continue;
    put(seen.report, tree->mutable_found());
    for (const auto& [number, shard] : seen.shards) {
      auto* to = tree->add_shards();
      to->set_shard(number);
      to->set_entries(shard.entries);
      to->set_bytes(shard.bytes);
    }
  }
  return absl::OkStatus();
}

absl::Status PeerService::cut_digests(IncomingCall&, const v1::CutDigestsRequest& request,
                                      v1::CutDigestsReply* reply) {
  // Not for as long as a cut takes: a higher attempt need not wait for it.
  SLUICE_RETURN_IF_ERROR(context_.fence->enter(request.backup(), request.attempt()).status());
  SLUICE_ASSIGN_OR_RETURN(CutInfo cut, find_cut(request.backup()));
  if (!cut.taken && request.pass()) {
    SLUICE_RETURN_IF_ERROR(context_.store->clock().observe(cut.cut + 1));
    SLUICE_RETURN_IF_ERROR(context_.store->take_due_cut().status());
    SLUICE_ASSIGN_OR_RETURN(cut, find_cut(request.backup()));
  }
  reply->set_taken(cut.taken);
  reply->set_cut(cut.cut);
  reply->set_epoch(cut.epoch);
  if (!cut.taken) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const auto digests, context_.store->cut_digests(request.backup()));
  reply->set_digests(encode_digests(digests));
  return absl::OkStatus();
}

absl::StatusOr<CutInfo> PeerService::find_cut(std::string_view backup) const {
  for (CutInfo& cut : context_.store->cuts()) {
    if (cut.backup == backup) return std::move(cut);
  }
  return not_found("{} has no cut of backup {}", context_.name, backup);
}

absl::Status PeerService::drop_cut(IncomingCall&, const v1::BackupReference& request, v1::Empty*) {
  const auto pass = context_.fence->enter(request.backup(), request.attempt());
  // Of a backup that was deleted nothing is to stay, whoever asks.
  if (!pass.ok() && !absl::IsNotFound(pass.status())) return pass.status();
  return context_.store->drop_cut(request.backup());
}

}  // namespace sluice
