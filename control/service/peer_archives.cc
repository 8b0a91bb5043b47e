// The part of PeerService that is about backups and archives.
#include "control/backup/backup_manager.h"
#include "control/backup/local_archives.h"
#include "control/job/job_fence.h"
#include "control/service/peer_service.h"
#include "control/service/verify_stream.h"

namespace sluice {

absl::Status PeerService::drop_backup(IncomingCall&, const v1::BackupReference& request,
                                      v1::Empty*) {
  const auto pass = context_.fence->enter(request.backup(), request.attempt());
  // Of a backup that was deleted nothing is to stay, whoever asks.
  if (!pass.ok() && !absl::IsNotFound(pass.status())) return pass.status();
  return roles_.drop(request.backup(), request.attempt());
}

absl::Status PeerService::durable_slots(IncomingCall&, const v1::BackupReference& request,
                                        v1::SlotList* reply) {
  SLUICE_ASSIGN_OR_RETURN(const auto pass,
                          context_.fence->enter(request.backup(), request.attempt()));
  SLUICE_ASSIGN_OR_RETURN(const auto slots, roles_.durable(request.backup(), request.attempt()));
  for (const uint32_t slot : slots) reply->add_slots(slot);
  return absl::OkStatus();
}

absl::Status PeerService::fetch_part(IncomingCall&, const v1::BackupReference& request,
                                     v1::PartReply* reply) {
  SLUICE_ASSIGN_OR_RETURN(const auto pass,
                          context_.fence->enter(request.backup(), request.attempt()));
  SLUICE_ASSIGN_OR_RETURN(const auto part, roles_.part(request.backup(), request.attempt()));
  reply->set_part(part.manifest.encode());
  reply->set_newest_stamp(part.newest_stamp);
  reply->set_folder(part.folder);
  return absl::OkStatus();
}

absl::Status PeerService::fetch_plan(IncomingCall&, const v1::PlanRequest& request,
                                     v1::PlanReply* reply) {
  SLUICE_ASSIGN_OR_RETURN(const auto chunks, manager_.plan_of(request));
  for (const std::string& chunk : chunks) reply->add_chunks(chunk);
  return absl::OkStatus();
}

absl::Status PeerService::report_progress(IncomingCall&, const v1::ProgressRequest& request,
                                          v1::Empty*) {
  SLUICE_ASSIGN_OR_RETURN(const auto pass,
                          context_.fence->enter(request.backup(), request.attempt()));
  return manager_.report(request);
}

absl::Status PeerService::commit_archive(IncomingCall&, const v1::CommitRequest& request,
                                         v1::CommitReply* reply) {
  SLUICE_ASSIGN_OR_RETURN(const auto pass,
                          context_.fence->enter(request.backup(), request.attempt()));
  SLUICE_ASSIGN_OR_RETURN(*reply->mutable_folder(),
                          roles_.commit(request.backup(), request.attempt(), request.manifest()));
  return absl::OkStatus();
}

absl::Status PeerService::verify_archive(IncomingCall& call, const v1::ArchiveReference& request,
                                         PageSink<v1::VerifyUpdate>* pages) {
  SLUICE_ASSIGN_OR_RETURN(const auto reading, context_.archives->read(request, "a verification"));
  return stream_verification(reading->directory(), reading->id(), *context_.clock, call, *pages);
}

absl::Status PeerService::check_archive(IncomingCall&, const v1::ArchiveReference& request,
                                        v1::ArchiveState* reply) {
  SLUICE_ASSIGN_OR_RETURN(const auto there, context_.archives->check(request));
  reply->set_there(there);
  return absl::OkStatus();
}

absl::Status PeerService::delete_archive(IncomingCall&, const v1::ArchiveReference& request,
                                         v1::Empty*) {
  return roles_.delete_part(request);
}

}  // namespace sluice
