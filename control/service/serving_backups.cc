// The part of ServingService that is about backups.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status.h"
#include "control/client/rpc.h"
#include "control/schedule/backup_store.h"
#include "control/service/backup_lock.h"
#include "control/service/cut_round.h"
#include "control/service/serving_service.h"

namespace sluice {

namespace {
constexpr int64_t kUpdateMs = 500;
constexpr int64_t kDeleteMs = 60'000;
constexpr int64_t kVerifyMs = 24 * 3600 * int64_t{1000};
}  // namespace

grpc::Status ServingService::CreateBackup(grpc::ServerContext* call,
                                          const v1::CreateBackupRequest* request,
                                          grpc::ServerWriter<v1::BackupUpdate>* writer) {
  if (const absl::Status ready = context_.check_ready(); !ready.ok()) return to_grpc(ready);
  BackupWish wish;
  wish.name = request->name();
  wish.targets.assign(request->targets().begin(), request->targets().end());
  wish.dry_run = request->dry_run();
  return to_grpc(follow(backups_.create(wish), *call, *writer));
}

grpc::Status ServingService::ResumeBackup(grpc::ServerContext* call,
                                          const v1::BackupRequest* request,
                                          grpc::ServerWriter<v1::BackupUpdate>* writer) {
  if (const absl::Status ready = context_.check_ready(); !ready.ok()) return to_grpc(ready);
  return to_grpc(follow(backups_.resume(request->backup()), *call, *writer));
}

// Tells of the run until it ends or the client goes away; the run does not depend on the client.
absl::Status ServingService::follow(absl::StatusOr<std::shared_ptr<BackupRun>> begun,
                                    grpc::ServerContext& call,
                                    grpc::ServerWriter<v1::BackupUpdate>& writer) {
  if (!begun.ok()) return begun.status();
  const std::shared_ptr<BackupRun> run = *std::move(begun);
  uint64_t version = 0;
  bool first = true;
  while (true) {
    const BackupRun::Report report = run->wait(version, first ? 0 : kUpdateMs);
    if (stopping_ && !report.finished) return unavailable("the node stops; another one goes on");
    if (call.IsCancelled()) return cancelled("the client went away");
    if (report.version == version && !first) continue;
    first = false;
    version = report.version;
    v1::BackupUpdate update;
    update.set_backup(report.head.name);
    update.set_uuid(report.head.uuid);
    update.set_state(std::string(name_of(report.head.state)));
    update.set_bytes_done(report.bytes_done);
    update.set_bytes_total(report.bytes_total);
    update.set_message(report.message);
    if (report.finished) {
      if (report.status.code() == absl::StatusCode::kAborted) {
        return unavailable("{}", message_of(report.status));
      }
      BackupHead head = report.head;
      if (!report.status.ok() && head.error.empty()) head.error = message_of(report.status);
      update.set_last(true);
      update.set_result(encode(head));
    }
    if (!writer.Write(update)) return cancelled("the client went away");
    if (report.finished) return absl::OkStatus();
  }
}

grpc::Status ServingService::CancelBackup(grpc::ServerContext*, const v1::BackupRequest* request,
                                          v1::Empty*) {
  return to_grpc(backups_.cancel(request->backup()));
}

grpc::Status ServingService::VerifyBackup(grpc::ServerContext* call,
                                          const v1::BackupRequest* request,
                                          grpc::ServerWriter<v1::VerifyUpdate>* writer) {
  return to_grpc(verify(request->backup(), *call, *writer));
}

// Each holder checks its own part, one after the other; what they find is passed on as it comes.
absl::Status ServingService::verify(const std::string& backup, grpc::ServerContext& call,
                                    grpc::ServerWriter<v1::VerifyUpdate>& writer) {
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(*context_.block, backup));
  if (stored.head.state != BackupState::kCompleted) {
    return failed_precondition("backup {} is {}, not completed", stored.head.name,
                               name_of(stored.head.state));
  }
  uint64_t blocks = 0, bytes = 0;
  for (const ArchivePart& part : stored.head.archives) {
    SLUICE_ASSIGN_OR_RETURN(const auto peer, context_.peers->find(part.node));
    grpc::ClientContext checking;
    set_timeout(checking, kVerifyMs);
    v1::ArchiveReference request;
    request.set_backup(stored.head.uuid);
    request.set_folder(part.path);
    const auto reader = peer->peer().VerifyArchive(&checking, request);
    v1::VerifyUpdate update;
    while (reader->Read(&update)) {
      if (update.last()) {
        blocks += update.blocks();
        bytes += update.bytes();
        update.set_last(false);
      }
      update.clear_blocks();
      update.clear_bytes();
      for (v1::Problem& problem : *update.mutable_problems()) {
        problem.set_file(fmt::format("{}:{}", part.node, problem.file()));
      }
      if (stopping_ || call.IsCancelled() || !writer.Write(update)) {
        checking.TryCancel();
        reader->Finish();
        return cancelled("the client went away, or the node stops");
      }
    }
    const grpc::Status status = reader->Finish();
    peer->note(status);
    if (!status.ok()) {
      if (status.error_code() == grpc::StatusCode::UNAVAILABLE) return from_peer(status, part.node);
      // What cannot be checked at all is a part that is bad.
      v1::VerifyUpdate bad;
      v1::Problem* problem = bad.add_problems();
      problem->set_file(fmt::format("{}:{}", part.node, part.path));
      problem->set_slot(-1);
      problem->set_reason(std::string(message_of(from_grpc(status))));
      writer.Write(bad);
    }
  }
  v1::VerifyUpdate last;
  last.set_last(true);
  last.set_blocks(blocks);
  last.set_bytes(bytes);
  writer.Write(last);
  return absl::OkStatus();
}

grpc::Status ServingService::DeleteBackup(grpc::ServerContext*, const v1::BackupRequest* request,
                                          v1::Empty*) {
  return to_grpc(erase(request->backup()));
}

// What no document names any more cannot be told from what others keep: archives stay on their
// nodes.
absl::Status ServingService::erase_damaged(const std::string& backup) {
  SLUICE_ASSIGN_OR_RETURN(const std::string uuid, find_backup(*context_.block, backup));
  SLUICE_ASSIGN_OR_RETURN(const auto lock,
                          take_backup_lock(*context_.block, uuid, context_.name, backup));
  spdlog::warn(
      "backup {}: its document is damaged and erased; an archive {} may remain on its target nodes",
      backup, uuid);
  drop_backup(context_, uuid);
  return erase_backup(*context_.block, uuid);
}

absl::Status ServingService::erase(const std::string& backup) {
  absl::StatusOr<StoredBackup> found = load_backup(*context_.block, backup);
  if (absl::IsDataLoss(found.status())) return erase_damaged(backup);
  if (!found.ok()) return found.status();
  StoredBackup stored = *std::move(found);
  SLUICE_ASSIGN_OR_RETURN(const auto holder, context_.block->get(kBackupLockKey));
  if (holder.has_value() && holder->value.starts_with(stored.head.uuid)) {
    return failed_precondition("backup {} is running: cancel it first", stored.head.name);
  }
  // Until the end, so that nobody resumes it meanwhile.
  SLUICE_ASSIGN_OR_RETURN(const auto lock, take_backup_lock(*context_.block, stored.head.uuid,
                                                            context_.name, stored.head.name));
  SLUICE_ASSIGN_OR_RETURN(stored, load_backup(*context_.block, stored.head.uuid));
  const BackupHead& head = stored.head;
  // A backup that lost some parts would still be listed as completed: nothing goes before all
  // holders have answered.
  for (const ArchivePart& part : head.archives) {
    SLUICE_ASSIGN_OR_RETURN(const auto peer, context_.peers->find(part.node));
    grpc::ClientContext call;
    set_timeout(call, kDeleteMs);
    v1::ClockReply reply;
    if (const grpc::Status status = peer->peer().ReadClock(&call, {}, &reply); !status.ok()) {
      return unavailable(
          "backup {} stays as it is: node {}, which holds a part of it, does not answer ({}); "
          "start "
          "it, then delete again",
          head.name, part.node, message_of(from_grpc(status)));
    }
  }
  std::string failures;
  for (const ArchivePart& part : head.archives) {
    grpc::ClientContext call;
    set_timeout(call, kDeleteMs);
    v1::ArchiveReference request;
    request.set_backup(head.uuid);
    request.set_folder(part.path);
    v1::Empty reply;
    const auto peer = context_.peers->find(part.node);
    const absl::Status status =
        peer.ok() ? from_peer((*peer)->peer().DeleteArchive(&call, request, &reply), part.node)
                  : peer.status();
    if (!status.ok()) {
      failures += fmt::format("{}{}", failures.empty() ? "" : "; ", message_of(status));
    }
  }
  if (!failures.empty()) {
    return unavailable("archives of backup {} remain, and it stays listed: {}", head.name,
                       failures);
  }
  drop_backup(context_, head.uuid);
  return erase_backup(*context_.block, head.uuid);
}

}  // namespace sluice
