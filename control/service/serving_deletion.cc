// The part of ServingService that deletes backups.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/defect.h"
#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/backup/backup_job.h"
#include "control/backup/cut_round.h"
#include "control/peers/archive_reference.h"
#include "control/peers/rpc.h"
#include "control/service/serving_service.h"

namespace sluice {

namespace {

constexpr int64_t kCheckMs = 10'000;
constexpr int64_t kDeleteMs = 60'000;
constexpr int64_t kDownMs = 2'000;
constexpr int64_t kConnectMs = 5'000;
constexpr int kTries = 8;
// Of a backup whose document cannot be read: nobody comes after it.
constexpr uint64_t kLastAttempt = ~uint64_t{0};

v1::ArchiveReference reference_to(const NodeContext& context, const BackupHead& head,
                                  const std::string& node) {
  return make_reference({context.cluster().uuid, head.uuid, node, head.manifest_digest}, head.name);
}

// One call to each holder, all at once; by node, what did not succeed.
template <typename Call>
absl::StatusOr<std::map<std::string, absl::Status>> ask_holders(const NodeContext& context,
                                                                const BackupHead& head,
                                                                int64_t timeout_ms,
                                                                const Call& ask) {
  SLUICE_ASSIGN_OR_RETURN(const auto holders, load_holders(*context.block, head.uuid));
  // One that has just come back is asked where it is now.
  context.directory->refresh().IgnoreError();
  std::map<std::string, absl::Status> failed;
  Mutex mutex;
  parallel_for(holders.size(), [&](size_t i) {
    const std::string& node = holders[i];
    const auto peer = context.peers->find(node);
    absl::Status status = peer.status();
    if (peer.ok()) {
      grpc::ClientContext call;
      // One that is down removes its part when it returns.
      const bool live = context.directory->snapshot()->live(node);
      if (live) (*peer)->connect(kConnectMs);
      set_timeout(call, live ? timeout_ms : std::min(timeout_ms, kDownMs));
      const grpc::Status answer = ask((*peer)->peer(), call, reference_to(context, head, node));
      (*peer)->note(answer);
      status = from_peer(answer, node);
    }
    if (status.ok()) return;
    const MutexLock lock(mutex);
    failed[node] = status;
  });
  return failed;
}

// Before anything is changed: a holder whose part is something else, or in use, keeps the backup as
// it is. One that does not answer does not: it removes its part when it returns.
absl::Status check_holders(const NodeContext& context, const BackupHead& head) {
  SLUICE_ASSIGN_OR_RETURN(const auto failed,
                          ask_holders(context, head, kCheckMs,
                                      [](v1::Peer::StubInterface& peer, grpc::ClientContext& call,
                                         const v1::ArchiveReference& request) {
                                        v1::ArchiveState reply;
                                        return peer.CheckArchive(&call, request, &reply);
                                      }));
  std::string reasons;
  for (const auto& [node, status] : failed) {
    if (!absl::IsDataLoss(status) && !absl::IsFailedPrecondition(status)) continue;
    reasons += fmt::format("{}{}", reasons.empty() ? "" : "; ", message_of(status));
  }
  if (reasons.empty()) return absl::OkStatus();
  return failed_precondition("backup {} stays as it is, nothing was removed: {}", head.name,
                             reasons);
}

}  // namespace

absl::Status ServingService::delete_backup(IncomingCall&, const v1::BackupRequest& request,
                                           v1::Empty*) {
  return erase(request.backup(), request.force());
}

// What no document names any more cannot be told from what others keep: archives stay on their
// nodes.
absl::Status ServingService::erase_damaged(const std::string& backup) {
  SLUICE_ASSIGN_OR_RETURN(const std::string uuid, find_backup(*context_.block, backup));
  SLUICE_ASSIGN_OR_RETURN(const auto job, take_backup_job(context_, uuid, backup));
  spdlog::warn(
      "backup {}: its document is damaged and erased; an archive {} may remain on its target nodes",
      backup, uuid);
  drop_backup(context_, uuid, kLastAttempt);
  return erase_backup(*context_.block, uuid);
}

// From here on nobody verifies, restores or resumes it, whatever becomes of this node.
absl::Status ServingService::mark_deleted(const std::string& backup, StoredBackup* stored) {
  for (int i = 0; i < kTries; ++i) {
    SLUICE_ASSIGN_OR_RETURN(*stored, load_backup(*context_.block, backup));
    const BackupHead& head = stored->head;
    std::unique_ptr<Job> job;
    if (head.state == BackupState::kCompleted) {
      SLUICE_RETURN_IF_ERROR(check_holders(context_, head));
    } else if (!is_terminal(head.state)) {
      SLUICE_ASSIGN_OR_RETURN(const auto holder, context_.block->get(kBackupLockKey));
      if (holder.has_value() && holder->value.starts_with(head.uuid)) {
        return failed_precondition("backup {} is running: cancel it first", head.name);
      }
      // So that nobody resumes it, or takes it over, meanwhile.
      SLUICE_ASSIGN_OR_RETURN(job, take_backup_job(context_, head.uuid, head.name));
    }
    const absl::Status status = begin_deletion(*context_.block, *stored, context_.clock->wall_ms());
    if (!absl::IsAborted(status)) return status;
  }
  return unavailable("backup {} keeps changing", backup);
}

absl::Status ServingService::erase(const std::string& backup, bool force) {
  const auto remove_parts = [this](const BackupHead& head) {
    return ask_holders(context_, head, kDeleteMs,
                       [](v1::Peer::StubInterface& peer, grpc::ClientContext& call,
                          const v1::ArchiveReference& request) {
                         v1::Empty reply;
                         return peer.DeleteArchive(&call, request, &reply);
                       });
  };
  if (absl::IsDataLoss(load_backup(*context_.block, backup).status())) return erase_damaged(backup);
  StoredBackup stored;
  if (defect(Defect::kPartsGoFirst)) {
    SLUICE_ASSIGN_OR_RETURN(stored, load_backup(*context_.block, backup));
    SLUICE_RETURN_IF_ERROR(remove_parts(stored.head).status());
  }
  SLUICE_RETURN_IF_ERROR(mark_deleted(backup, &stored));
  SLUICE_ASSIGN_OR_RETURN(const auto failed, remove_parts(stored.head));
  // Cuts, and what nodes have of it that are not its holders.
  drop_backup(context_, stored.head.uuid, stored.head.attempt);
  std::map<std::string, std::string> reasons;
  for (const auto& [node, status] : failed) {
    // One that answers removes its part, or says what is in the way of that.
    if (force && is_away(status) && !context_.directory->snapshot()->live(node)) {
      spdlog::warn("backup {}: its part on {} is left to that node: {}", stored.head.name, node,
                   message_of(status));
      SLUICE_RETURN_IF_ERROR(
          abandon_part(*context_.block, stored.head, node, context_.clock->wall_ms()));
      continue;
    }
    reasons[node] = message_of(status);
  }
  return end_deletion(*context_.block, stored.head.uuid, reasons, context_.clock->wall_ms());
}

}  // namespace sluice
