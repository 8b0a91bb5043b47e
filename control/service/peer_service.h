// What this node does for other nodes: the calls of control/proto/peer.proto over its store, cuts
// and archive. // Thread-safe.
#ifndef SLUICE_CONTROL_SERVICE_PEER_SERVICE_H_
#define SLUICE_CONTROL_SERVICE_PEER_SERVICE_H_

#include "control/backup/backup_roles.h"
#include "control/peers/node_context.h"
#include "control/proto/peer.pb.h"
#include "control/service/byte_budget.h"
#include "control/service/incoming_call.h"
#include "control/service/page_sink.h"

namespace sluice {

class BackupManager;

class PeerService {
 public:
  // Requests of peers in work are bounded by `budget_bytes`; beyond it they wait, then get
  // RESOURCE_EXHAUSTED.
  PeerService(const NodeContext& context, BackupRoles& roles, BackupManager& manager,
              size_t budget_bytes = size_t{256} << 20)
      : context_(context), roles_(roles), manager_(manager), budget_(budget_bytes) {}

  absl::Status apply(IncomingCall& call, const v1::ApplyRequest& request, v1::ApplyReply* reply);
  absl::Status read(IncomingCall& call, const v1::ReadRequest& request, v1::ReadReply* reply);
  absl::Status scan_slot(IncomingCall& call, const v1::ScanRequest& request,
                         PageSink<v1::ScanPage>* pages);
  absl::Status digests(IncomingCall& call, const v1::DigestsRequest& request,
                       v1::DigestsReply* reply);
  absl::Status stages(IncomingCall& call, const v1::Empty& request, v1::StagesReply* reply);
  absl::Status recall_store(IncomingCall& call, const v1::RecallRequest& request,
                            v1::RecallReply* reply);
  absl::Status find_missing(IncomingCall& call, const v1::FindMissingRequest& request,
                            v1::FindMissingReply* reply);
  absl::Status read_clock(IncomingCall& call, const v1::Empty& request, v1::ClockReply* reply);
  absl::Status observe_stamp(IncomingCall& call, const v1::ObserveRequest& request,
                             v1::Empty* reply);
  absl::Status arm_cut(IncomingCall& call, const v1::ArmRequest& request, v1::ArmReply* reply);
  absl::Status look_at_trees(IncomingCall& call, const v1::LookAtTreesRequest& request,
                             v1::LookAtTreesReply* reply);
  absl::Status cut_digests(IncomingCall& call, const v1::CutDigestsRequest& request,
                           v1::CutDigestsReply* reply);
  absl::Status drop_cut(IncomingCall& call, const v1::BackupReference& request, v1::Empty* reply);
  absl::Status drop_backup(IncomingCall& call, const v1::BackupReference& request,
                           v1::Empty* reply);
  absl::Status durable_slots(IncomingCall& call, const v1::BackupReference& request,
                             v1::SlotList* reply);
  absl::Status fetch_part(IncomingCall& call, const v1::BackupReference& request,
                          v1::PartReply* reply);
  absl::Status fetch_plan(IncomingCall& call, const v1::PlanRequest& request, v1::PlanReply* reply);
  absl::Status report_progress(IncomingCall& call, const v1::ProgressRequest& request,
                               v1::Empty* reply);
  absl::Status commit_archive(IncomingCall& call, const v1::CommitRequest& request,
                              v1::CommitReply* reply);
  absl::Status verify_archive(IncomingCall& call, const v1::ArchiveReference& request,
                              PageSink<v1::VerifyUpdate>* pages);
  absl::Status check_archive(IncomingCall& call, const v1::ArchiveReference& request,
                             v1::ArchiveState* reply);
  absl::Status delete_archive(IncomingCall& call, const v1::ArchiveReference& request,
                              v1::Empty* reply);

 private:
  absl::StatusOr<CutInfo> find_cut(std::string_view backup) const;

  const NodeContext& context_;
  BackupRoles& roles_;
  BackupManager& manager_;
  ByteBudget budget_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_PEER_SERVICE_H_
