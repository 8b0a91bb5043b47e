// The part of PeerService that is about backups and archives.
#include "control/backup/backup_manager.h"
#include "control/backup/local_archives.h"
#include "control/job/job_fence.h"
#include "control/peers/rpc.h"
#include "control/service/peer_service.h"
#include "control/service/verify_stream.h"

namespace sluice {

grpc::Status PeerService::DropBackup(grpc::ServerContext*, const v1::BackupReference* request,
                                     v1::Empty*) {
  const auto pass = context_.fence->enter(request->backup(), request->attempt());
  // Of a backup that was deleted nothing is to stay, whoever asks.
  if (!pass.ok() && !absl::IsNotFound(pass.status())) return to_grpc(pass.status());
  return to_grpc(roles_.drop(request->backup(), request->attempt()));
}

grpc::Status PeerService::DurableSlots(grpc::ServerContext*, const v1::BackupReference* request,
                                       v1::SlotList* reply) {
  const auto pass = context_.fence->enter(request->backup(), request->attempt());
  if (!pass.ok()) return to_grpc(pass.status());
  const auto slots = roles_.durable(request->backup(), request->attempt());
  if (!slots.ok()) return to_grpc(slots.status());
  for (const uint32_t slot : *slots) reply->add_slots(slot);
  return grpc::Status::OK;
}

grpc::Status PeerService::FetchPart(grpc::ServerContext*, const v1::BackupReference* request,
                                    v1::PartReply* reply) {
  const auto pass = context_.fence->enter(request->backup(), request->attempt());
  if (!pass.ok()) return to_grpc(pass.status());
  const auto part = roles_.part(request->backup(), request->attempt());
  if (!part.ok()) return to_grpc(part.status());
  reply->set_part(part->manifest.encode());
  reply->set_newest_stamp(part->newest_stamp);
  reply->set_folder(part->folder);
  return grpc::Status::OK;
}

grpc::Status PeerService::FetchPlan(grpc::ServerContext*, const v1::PlanRequest* request,
                                    v1::PlanReply* reply) {
  const auto chunks = manager_.plan_of(*request);
  if (!chunks.ok()) return to_grpc(chunks.status());
  for (const std::string& chunk : *chunks) reply->add_chunks(chunk);
  return grpc::Status::OK;
}

grpc::Status PeerService::ReportProgress(grpc::ServerContext*, const v1::ProgressRequest* request,
                                         v1::Empty*) {
  const auto pass = context_.fence->enter(request->backup(), request->attempt());
  if (!pass.ok()) return to_grpc(pass.status());
  return to_grpc(manager_.report(*request));
}

grpc::Status PeerService::CommitArchive(grpc::ServerContext*, const v1::CommitRequest* request,
                                        v1::Empty*) {
  const auto pass = context_.fence->enter(request->backup(), request->attempt());
  if (!pass.ok()) return to_grpc(pass.status());
  return to_grpc(roles_.commit(request->backup(), request->attempt(), request->manifest()));
}

grpc::Status PeerService::VerifyArchive(grpc::ServerContext* call,
                                        const v1::ArchiveReference* request,
                                        grpc::ServerWriter<v1::VerifyUpdate>* writer) {
  const auto reading = context_.archives->read(*request, "a verification");
  if (!reading.ok()) return to_grpc(reading.status());
  return to_grpc(stream_verification((*reading)->directory(), (*reading)->id(), *context_.clock,
                                     *call, *writer));
}

grpc::Status PeerService::CheckArchive(grpc::ServerContext*, const v1::ArchiveReference* request,
                                       v1::ArchiveState* reply) {
  const auto there = context_.archives->check(*request);
  if (!there.ok()) return to_grpc(there.status());
  reply->set_there(*there);
  return grpc::Status::OK;
}

grpc::Status PeerService::DeleteArchive(grpc::ServerContext*, const v1::ArchiveReference* request,
                                        v1::Empty*) {
  return to_grpc(roles_.delete_part(*request));
}

}  // namespace sluice
