// The target's side of BackupRole: consolidates what sources send into this node's part of the
// archive.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/deadline.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/status.h"
#include "control/backup/backup_role.h"
#include "control/job/job_fence.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {
constexpr int64_t kPollMs = 100;
constexpr int64_t kDigestsMs = 10'000;
constexpr int64_t kDigestsRetryMs = 200;
// For a source that is down to come back, or for the coordinator to plan without it.
constexpr int64_t kSourcePatienceMs = 600'000;
}  // namespace

void BackupRole::run_target() {
  report_.change([](NodeProgress& progress) { progress.target_state = BackupState::kEnabled; });
  const absl::Status status = guarded("consolidating copies", [this] { return consolidate(); });
  if (status.ok() || cancellation_.cancelled()) return;
  spdlog::error("{}: backup {}: as target: {}", context_.name, head_.name, message_of(status));
  report_.change([&](NodeProgress& progress) {
    progress.target_state = BackupState::kFailed;
    progress.error = fmt::format("as target: {}", message_of(status));
  });
}

absl::Status BackupRole::consolidate() {
  SLUICE_ASSIGN_OR_RETURN(auto slots, target_slots());
  SLUICE_RETURN_IF_ERROR(make_folders(context_.archive_folder));
  ArchiveWriter::Options writing;
  writing.folder = archive_path(context_, head_);
  writing.identity = archive_identity(context_, head_);
  writing.node = context_.name;
  writing.disk = &disk_;
  writing.planned.emplace();
  for (const ConsolidationSlot& slot : slots) writing.planned->insert(slot.slot);
  // The head of an attempt that begins to commit says consolidated: whatever was committed before
  // is of an earlier attempt, which did not complete the backup.
  writing.reopen_committed = head_.state != BackupState::kConsolidated;
  SLUICE_ASSIGN_OR_RETURN(auto writer, open_part(writing));
  ArchiveWriter* const archive = writer.get();
  {
    const MutexLock lock(mutex_);
    for (const auto& [slot, digest] : writer->durable_at_open()) durable_.insert(slot);
    writer_ = std::move(writer);
  }
  ConsolidationOptions options;
  options.job = head_.uuid;
  options.attempt = head_.attempt;
  options.slot_bits = head_.slot_bits;
  options.slots = std::move(slots);
  options.check = &check_;
  options.merge = &merge_;
  options.node = context_.name;
  options.find_source = [this](const std::string& node) -> absl::StatusOr<MergePeer> {
    const auto snapshot = context_.directory->snapshot();
    const Member* member = snapshot->find(node);
    if (member == nullptr) return not_found("source {} is no member any more", node);
    return MergePeer{member->info.data_address,
                     fmt::format("{}/{}", member->info.store_id, member->info.incarnation)};
  };
  options.on_slot_durable = [this](uint32_t slot) {
    const MutexLock lock(mutex_);
    durable_.insert(slot);
  };
  SLUICE_ASSIGN_OR_RETURN(auto consolidation,
                          Consolidation::start(*context_.exchange, *archive, options));
  const absl::Status end = consolidation->wait_to_end(kPollMs, [&] {
    report_target(consolidation->progress());
    return !cancellation_.cancelled();
  });
  if (cancellation_.cancelled()) return cancelled("the backup's attempt {} ended", head_.attempt);
  SLUICE_RETURN_IF_ERROR(end);
  report_.change(
      [](NodeProgress& progress) { progress.target_state = BackupState::kCopyCompleted; });
  SLUICE_ASSIGN_OR_RETURN(PartManifest part, consolidation->finish());
  {
    const MutexLock lock(mutex_);
    part_ = std::move(part);
    consolidation_ = std::move(consolidation);
  }
  report_.change(
      [](NodeProgress& progress) { progress.target_state = BackupState::kConsolidated; });
  return absl::OkStatus();
}

// Opening gives up slots that another attempt may want.
absl::StatusOr<std::unique_ptr<ArchiveWriter>> BackupRole::open_part(
    const ArchiveWriter::Options& options) {
  SLUICE_ASSIGN_OR_RETURN(const auto pass, context_.fence->enter(head_.uuid, head_.attempt));
  return ArchiveWriter::open(options);
}

void BackupRole::report_target(const Consolidation::Progress& now) {
  report_.change([&](NodeProgress& progress) {
    progress.done_slots = now.slots_durable;
    progress.done_bytes = now.record_bytes;
    progress.received_bytes = now.received_bytes;
    progress.repeated_bytes = report_.before().repeated_bytes + now.repeated_bytes;
    progress.dropped_bytes = report_.before().dropped_bytes + now.dropped_bytes;
    progress.records = now.records;
    progress.divergence = report_.before().divergence;
    progress.divergence +=
        {now.divergence.stale, now.divergence.missing, now.divergence.conflicting};
  });
}

absl::StatusOr<std::vector<ConsolidationSlot>> BackupRole::target_slots() {
  std::vector<ConsolidationSlot> slots;
  bool divergent = false;
  for (const SlotPlan& planned : plan_.slots) {
    if (planned.target != static_cast<uint32_t>(self_)) continue;
    ConsolidationSlot slot;
    slot.slot = planned.slot;
    slot.agreed = planned.agreed;
    slot.told = planned.told;
    const auto senders = planned.agreed ? plan_.copies_of(planned) : plan_.senders_of(planned);
    for (const PlanCopy& copy : senders) {
      slot.senders.push_back({plan_.nodes[copy.node].name, planned.expected});
    }
    divergent = divergent || !planned.agreed;
    slots.push_back(std::move(slot));
  }
  if (divergent) SLUICE_RETURN_IF_ERROR(add_divergent_digests(slots));
  return slots;
}

// The plan leaves out what each replica of a divergent slot published; its source tells.
absl::Status BackupRole::add_divergent_digests(std::vector<ConsolidationSlot>& slots) {
  std::map<std::string, std::vector<SlotDigest>> digests;
  for (const ConsolidationSlot& slot : slots) {
    if (slot.agreed) continue;
    for (const auto& sender : slot.senders) digests[sender.node];
  }
  for (auto& [node, published] : digests) {
    Deadline deadline(*context_.clock, kSourcePatienceMs);
    while (published.empty()) {
      if (cancellation_.cancelled()) return cancelled("the backup's attempt ended");
      grpc::ClientContext call;
      set_timeout(call, kDigestsMs);
      v1::CutDigestsRequest request;
      request.set_backup(head_.uuid);
      request.set_attempt(head_.attempt);
      v1::CutDigestsReply reply;
      SLUICE_ASSIGN_OR_RETURN(const auto peer, context_.peers->find(node));
      const grpc::Status status = peer->peer().CutDigests(&call, request, &reply);
      peer->note(status);
      if (status.ok() && (reply.cut() != head_.cut || reply.epoch() != head_.epoch)) {
        return failed_precondition("{} has another cut of this backup", node);
      }
      if (status.ok() && reply.taken()) {
        SLUICE_ASSIGN_OR_RETURN(published,
                                decode_digests(reply.digests(), context_.cluster().slots()));
      } else if (status.error_code() == grpc::StatusCode::NOT_FOUND) {
        return from_peer(status, node);
      } else if (!deadline.pause(kDigestsRetryMs)) {
        return deadline_exceeded("node {}: its digests of backup {} were not there within {} s",
                                 node, head_.name, kSourcePatienceMs / 1000);
      }
    }
  }
  for (ConsolidationSlot& slot : slots) {
    if (slot.agreed) continue;
    for (auto& sender : slot.senders) sender.digest = digests[sender.node][slot.slot];
  }
  return absl::OkStatus();
}

}  // namespace sluice
