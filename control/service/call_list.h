// The calls of a node's two services, listed once: what guards them, what carries them and what
// stands in for gRPC in a simulated cluster is made from this list.
//
// CALL(Method, handler, kind): the method as control/proto declares it, the service's function that
// answers it, and what it counts as (guarded_services.h). STREAM(...): one that answers with pages.
#ifndef SLUICE_CONTROL_SERVICE_CALL_LIST_H_
#define SLUICE_CONTROL_SERVICE_CALL_LIST_H_

// clang-format off
#define SLUICE_PEER_CALLS(CALL, STREAM)            \
  CALL(Apply, apply, kCluster)                     \
  CALL(Read, read, kCluster)                       \
  STREAM(ScanSlot, scan_slot, kScan)               \
  CALL(Digests, digests, kCluster)                 \
  CALL(FindMissing, find_missing, kCluster)        \
  CALL(Stages, stages, kCluster)                   \
  CALL(ReadClock, read_clock, kCluster)            \
  CALL(RecallStore, recall_store, kCluster)        \
  CALL(ObserveStamp, observe_stamp, kCluster)      \
  CALL(ArmCut, arm_cut, kCluster)                  \
  CALL(CutDigests, cut_digests, kCluster)          \
  CALL(LookAtTrees, look_at_trees, kCluster)       \
  CALL(DropCut, drop_cut, kCluster)                \
  CALL(DropBackup, drop_backup, kCluster)          \
  CALL(DurableSlots, durable_slots, kCluster)      \
  CALL(FetchPart, fetch_part, kCluster)            \
  CALL(FetchPlan, fetch_plan, kCluster)            \
  CALL(ReportProgress, report_progress, kCluster)  \
  CALL(CommitArchive, commit_archive, kCluster)    \
  STREAM(VerifyArchive, verify_archive, kVerify)   \
  CALL(CheckArchive, check_archive, kCluster)      \
  CALL(DeleteArchive, delete_archive, kCluster)

#define SLUICE_SERVING_CALLS(CALL, STREAM)         \
  CALL(Stamp, stamp, kStamp)                       \
  CALL(Write, write, kWrite)                       \
  CALL(Get, get, kGet)                             \
  CALL(Count, count, kCount)                       \
  STREAM(Export, export_slots, kExport)            \
  CALL(Status, status, kGet)                       \
  STREAM(CreateBackup, create_backup, kBackup)     \
  STREAM(ResumeBackup, resume_backup, kBackup)     \
  CALL(CancelBackup, cancel_backup, kBackup)       \
  STREAM(VerifyBackup, verify_backup, kVerify)     \
  CALL(DeleteBackup, delete_backup, kBackup)       \
  STREAM(RestorePart, restore_part, kRestore)      \
  STREAM(ReadUnits, read_units, kRestore)          \
  STREAM(ListSlots, list_slots, kContents)         \
  STREAM(ListContents, list_contents, kContents)   \
  STREAM(ReadContents, read_contents, kContents)   \
  STREAM(ReadRecords, read_records, kContents)
// clang-format on

#endif  // SLUICE_CONTROL_SERVICE_CALL_LIST_H_
