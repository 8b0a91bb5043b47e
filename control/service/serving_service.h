// What this node does for clients: the gRPC adapter over its coordinators. Thread-safe.
#ifndef SLUICE_CONTROL_SERVICE_SERVING_SERVICE_H_
#define SLUICE_CONTROL_SERVICE_SERVING_SERVICE_H_

#include <atomic>
#include <string>

#include "control/backup/backup_manager.h"
#include "control/peers/node_context.h"
#include "control/proto/sluice.grpc.pb.h"
#include "control/records/read_coordinator.h"
#include "control/records/write_coordinator.h"
#include "control/service/byte_budget.h"

namespace sluice {

class ServingService : public v1::Sluice::Service {
 public:
  // UNAVAILABLE before the node has joined, once it stops, and where a call is meant for another
  // node.
  absl::Status check_ready(const grpc::ServerContext& call) const {
    SLUICE_RETURN_IF_ERROR(context_.check_ready());
    return check_callee(call, context_.cluster().uuid, context_.name);
  }

  // Writes in work are bounded by `budget_bytes`; beyond it they wait, then get RESOURCE_EXHAUSTED.
  ServingService(const NodeContext& context, BackupManager& backups,
                 size_t budget_bytes = size_t{256} << 20)
      : context_(context),
        backups_(backups),
        writes_(context),
        reads_(context),
        budget_(budget_bytes) {}

  // Ends streams that follow a backup or run a restore, so that the server can shut down.
  void stop() { stopping_ = true; }

  grpc::Status Stamp(grpc::ServerContext* call, const v1::StampRequest* request,
                     v1::Version* reply) override;
  grpc::Status Write(grpc::ServerContext* call, const v1::WriteRequest* request,
                     v1::WriteReply* reply) override;
  grpc::Status Get(grpc::ServerContext* call, const v1::GetRequest* request,
                   v1::GetReply* reply) override;
  grpc::Status Count(grpc::ServerContext* call, const v1::CountRequest* request,
                     v1::CountReply* reply) override;
  grpc::Status Export(grpc::ServerContext* call, const v1::ExportRequest* request,
                      grpc::ServerWriter<v1::ExportPage>* writer) override;
  grpc::Status Status(grpc::ServerContext* call, const v1::Empty* request,
                      v1::StatusReply* reply) override;
  grpc::Status CreateBackup(grpc::ServerContext* call, const v1::CreateBackupRequest* request,
                            grpc::ServerWriter<v1::BackupUpdate>* writer) override;
  grpc::Status ResumeBackup(grpc::ServerContext* call, const v1::BackupRequest* request,
                            grpc::ServerWriter<v1::BackupUpdate>* writer) override;
  grpc::Status CancelBackup(grpc::ServerContext* call, const v1::BackupRequest* request,
                            v1::Empty* reply) override;
  grpc::Status VerifyBackup(grpc::ServerContext* call, const v1::BackupRequest* request,
                            grpc::ServerWriter<v1::VerifyUpdate>* writer) override;
  grpc::Status DeleteBackup(grpc::ServerContext* call, const v1::BackupRequest* request,
                            v1::Empty* reply) override;
  grpc::Status RestorePart(grpc::ServerContext* call, const v1::RestorePartRequest* request,
                           grpc::ServerWriter<v1::RestoreUpdate>* writer) override;
  grpc::Status ReadUnits(grpc::ServerContext* call, const v1::ReadUnitsRequest* request,
                         grpc::ServerWriter<v1::UnitKeys>* writer) override;

 private:
  absl::Status export_slots(const v1::ExportRequest& request, grpc::ServerContext& call,
                            grpc::ServerWriter<v1::ExportPage>& writer);
  absl::Status follow(absl::StatusOr<std::shared_ptr<BackupRun>> run, grpc::ServerContext& call,
                      grpc::ServerWriter<v1::BackupUpdate>& writer);
  absl::Status verify(const std::string& backup, grpc::ServerContext& call,
                      grpc::ServerWriter<v1::VerifyUpdate>& writer);
  absl::Status erase(const std::string& backup);
  absl::Status erase_damaged(const std::string& backup);
  absl::Status mark_deleted(const std::string& backup, StoredBackup* stored);
  absl::Status restore_part(const v1::RestorePartRequest& request, grpc::ServerContext& call,
                            grpc::ServerWriter<v1::RestoreUpdate>& writer);

  const NodeContext& context_;
  BackupManager& backups_;
  WriteCoordinator writes_;
  ReadCoordinator reads_;
  ByteBudget budget_;
  std::atomic<bool> stopping_{false};
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_SERVING_SERVICE_H_
