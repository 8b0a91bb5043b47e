// What this node does for other nodes: the gRPC adapter over its store, cuts and archive.
// Thread-safe.
#ifndef SLUICE_CONTROL_SERVICE_PEER_SERVICE_H_
#define SLUICE_CONTROL_SERVICE_PEER_SERVICE_H_

#include "control/backup/backup_roles.h"
#include "control/peers/node_context.h"
#include "control/proto/peer.grpc.pb.h"
#include "control/service/byte_budget.h"

namespace sluice {

class BackupManager;

class PeerService : public v1::Peer::Service {
 public:
  // UNAVAILABLE before the node has joined, once it stops, and where a call is meant for another
  // node.
  absl::Status check_ready(const grpc::ServerContext& call) const {
    SLUICE_RETURN_IF_ERROR(context_.check_ready());
    return check_callee(call, context_.cluster().uuid, context_.name);
  }

  // Requests of peers in work are bounded by `budget_bytes`; beyond it they wait, then get
  // RESOURCE_EXHAUSTED.
  PeerService(const NodeContext& context, BackupRoles& roles, BackupManager& manager,
              size_t budget_bytes = size_t{256} << 20)
      : context_(context), roles_(roles), manager_(manager), budget_(budget_bytes) {}

  grpc::Status Apply(grpc::ServerContext* call, const v1::ApplyRequest* request,
                     v1::ApplyReply* reply) override;
  grpc::Status Read(grpc::ServerContext* call, const v1::ReadRequest* request,
                    v1::ReadReply* reply) override;
  grpc::Status ScanSlot(grpc::ServerContext* call, const v1::ScanRequest* request,
                        grpc::ServerWriter<v1::ScanPage>* writer) override;
  grpc::Status Digests(grpc::ServerContext* call, const v1::DigestsRequest* request,
                       v1::DigestsReply* reply) override;
  grpc::Status Stages(grpc::ServerContext* call, const v1::Empty* request,
                      v1::StagesReply* reply) override;
  grpc::Status RecallStore(grpc::ServerContext* call, const v1::RecallRequest* request,
                           v1::RecallReply* reply) override;
  grpc::Status FindMissing(grpc::ServerContext* call, const v1::FindMissingRequest* request,
                           v1::FindMissingReply* reply) override;
  grpc::Status ReadClock(grpc::ServerContext* call, const v1::Empty* request,
                         v1::ClockReply* reply) override;
  grpc::Status ObserveStamp(grpc::ServerContext* call, const v1::ObserveRequest* request,
                            v1::Empty* reply) override;
  grpc::Status ArmCut(grpc::ServerContext* call, const v1::ArmRequest* request,
                      v1::ArmReply* reply) override;
  grpc::Status CutDigests(grpc::ServerContext* call, const v1::CutDigestsRequest* request,
                          v1::CutDigestsReply* reply) override;
  grpc::Status DropCut(grpc::ServerContext* call, const v1::BackupReference* request,
                       v1::Empty* reply) override;
  grpc::Status DropBackup(grpc::ServerContext* call, const v1::BackupReference* request,
                          v1::Empty* reply) override;
  grpc::Status DurableSlots(grpc::ServerContext* call, const v1::BackupReference* request,
                            v1::SlotList* reply) override;
  grpc::Status FetchPart(grpc::ServerContext* call, const v1::BackupReference* request,
                         v1::PartReply* reply) override;
  grpc::Status FetchPlan(grpc::ServerContext* call, const v1::PlanRequest* request,
                         v1::PlanReply* reply) override;
  grpc::Status ReportProgress(grpc::ServerContext* call, const v1::ProgressRequest* request,
                              v1::Empty* reply) override;
  grpc::Status CommitArchive(grpc::ServerContext* call, const v1::CommitRequest* request,
                             v1::Empty* reply) override;
  grpc::Status VerifyArchive(grpc::ServerContext* call, const v1::ArchiveReference* request,
                             grpc::ServerWriter<v1::VerifyUpdate>* writer) override;
  grpc::Status CheckArchive(grpc::ServerContext* call, const v1::ArchiveReference* request,
                            v1::ArchiveState* reply) override;
  grpc::Status DeleteArchive(grpc::ServerContext* call, const v1::ArchiveReference* request,
                             v1::Empty* reply) override;

 private:
  absl::Status apply(const v1::ApplyRequest& request, v1::ApplyReply* reply);
  absl::Status find_missing(const v1::FindMissingRequest& request, v1::FindMissingReply* reply);
  absl::Status scan(const v1::ScanRequest& request, grpc::ServerContext& call,
                    grpc::ServerWriter<v1::ScanPage>& writer);
  absl::Status cut_digests(const v1::CutDigestsRequest& request, v1::CutDigestsReply* reply);
  absl::StatusOr<CutInfo> find_cut(std::string_view backup) const;

  const NodeContext& context_;
  BackupRoles& roles_;
  BackupManager& manager_;
  ByteBudget budget_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_PEER_SERVICE_H_
