// What this node does for clients: the calls of control/proto/sluice.proto over its coordinators.
// Thread-safe.
#ifndef SLUICE_CONTROL_SERVICE_SERVING_SERVICE_H_
#define SLUICE_CONTROL_SERVICE_SERVING_SERVICE_H_

#include <atomic>
#include <string>

#include "control/backup/backup_manager.h"
#include "control/peers/node_context.h"
#include "control/proto/sluice.pb.h"
#include "control/records/read_coordinator.h"
#include "control/records/stamp_coordinator.h"
#include "control/records/write_coordinator.h"
#include "control/service/byte_budget.h"
#include "control/service/incoming_call.h"
#include "control/service/page_sink.h"

namespace sluice {

class ServingService {
 public:
  // Writes in work are bounded by `budget_bytes`; beyond it they wait, then get RESOURCE_EXHAUSTED.
  ServingService(const NodeContext& context, BackupManager& backups,
                 size_t budget_bytes = size_t{256} << 20)
      : context_(context),
        backups_(backups),
        stamps_(context),
        writes_(context),
        reads_(context),
        budget_(budget_bytes) {}

  // Ends streams that follow a backup or run a restore, so that the server can shut down.
  void stop() { stopping_ = true; }

  absl::Status stamp(IncomingCall& call, const v1::StampRequest& request, v1::Version* reply);
  absl::Status write(IncomingCall& call, const v1::WriteRequest& request, v1::WriteReply* reply);
  absl::Status get(IncomingCall& call, const v1::GetRequest& request, v1::GetReply* reply);
  absl::Status count(IncomingCall& call, const v1::CountRequest& request, v1::CountReply* reply);
  absl::Status export_slots(IncomingCall& call, const v1::ExportRequest& request,
                            PageSink<v1::ExportPage>* pages);
  absl::Status status(IncomingCall& call, const v1::Empty& request, v1::StatusReply* reply);
  absl::Status create_backup(IncomingCall& call, const v1::CreateBackupRequest& request,
                             PageSink<v1::BackupUpdate>* pages);
  absl::Status resume_backup(IncomingCall& call, const v1::BackupRequest& request,
                             PageSink<v1::BackupUpdate>* pages);
  absl::Status cancel_backup(IncomingCall& call, const v1::BackupRequest& request,
                             v1::Empty* reply);
  absl::Status verify_backup(IncomingCall& call, const v1::BackupRequest& request,
                             PageSink<v1::VerifyUpdate>* pages);
  absl::Status delete_backup(IncomingCall& call, const v1::BackupRequest& request,
                             v1::Empty* reply);
  absl::Status restore_part(IncomingCall& call, const v1::RestorePartRequest& request,
                            PageSink<v1::RestoreUpdate>* pages);
  absl::Status read_units(IncomingCall& call, const v1::ReadUnitsRequest& request,
                          PageSink<v1::UnitKeys>* pages);
  absl::Status list_slots(IncomingCall& call, const v1::ListSlotsRequest& request,
                          PageSink<v1::PartSlots>* pages);
  absl::Status list_contents(IncomingCall& call, const v1::ListContentsRequest& request,
                             PageSink<v1::ContentsPage>* pages);
  absl::Status read_contents(IncomingCall& call, const v1::ReadContentsRequest& request,
                             PageSink<v1::ContentsPiece>* pages);
  absl::Status read_records(IncomingCall& call, const v1::ReadRecordsRequest& request,
                            PageSink<v1::RecordsPage>* pages);

 private:
  absl::Status follow(absl::StatusOr<std::shared_ptr<BackupRun>> run, const IncomingCall& call,
                      PageSink<v1::BackupUpdate>& pages);
  absl::Status erase(const std::string& backup, bool force);
  absl::Status erase_damaged(const std::string& backup);
  absl::Status mark_deleted(const std::string& backup, StoredBackup* stored);

  const NodeContext& context_;
  BackupManager& backups_;
  StampCoordinator stamps_;
  WriteCoordinator writes_;
  ReadCoordinator reads_;
  ByteBudget budget_;
  std::atomic<bool> stopping_{false};
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_SERVING_SERVICE_H_
