// The part of PeerService that is about backups and archives.
#include "control/client/rpc.h"
#include "control/service/local_archives.h"
#include "control/service/peer_service.h"
#include "control/service/verify_stream.h"

namespace sluice {

grpc::Status PeerService::DropBackup(grpc::ServerContext*, const v1::BackupReference* request,
                                     v1::Empty*) {
  return to_grpc(roles_.drop(request->backup()));
}

grpc::Status PeerService::DurableSlots(grpc::ServerContext*, const v1::BackupReference* request,
                                       v1::SlotList* reply) {
  const auto slots = roles_.durable(request->backup());
  if (!slots.ok()) return to_grpc(slots.status());
  for (const uint32_t slot : *slots) reply->add_slots(slot);
  return grpc::Status::OK;
}

grpc::Status PeerService::FetchPart(grpc::ServerContext*, const v1::BackupReference* request,
                                    v1::PartReply* reply) {
  const auto part = roles_.part(request->backup());
  if (!part.ok()) return to_grpc(part.status());
  reply->set_part(part->manifest.encode());
  reply->set_newest_stamp(part->newest_stamp);
  reply->set_folder(part->folder);
  return grpc::Status::OK;
}

grpc::Status PeerService::CommitArchive(grpc::ServerContext*, const v1::CommitRequest* request,
                                        v1::Empty*) {
  return to_grpc(roles_.commit(request->backup(), request->manifest()));
}

grpc::Status PeerService::VerifyArchive(grpc::ServerContext* call,
                                        const v1::ArchiveReference* request,
                                        grpc::ServerWriter<v1::VerifyUpdate>* writer) {
  const auto reading = context_.archives->read(*request, "a verification");
  if (!reading.ok()) return to_grpc(reading.status());
  return to_grpc(stream_verification((*reading)->directory(), (*reading)->id(), *call, *writer));
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
