// Accounts for the tries of a restore's units: what is written, tried again or given up, and what
// the caller is told. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_RESTORE_TALLY_H_
#define SLUICE_DATAPLANE_PIPELINE_RESTORE_TALLY_H_

#include "absl/status/status.h"
#include "base/arena.h"
#include "base/mutex.h"
#include "dataplane/archive/reader.h"
#include "dataplane/pipeline/restore.h"
#include "dataplane/pipeline/restore_ledger.h"
#include "dataplane/pipeline/restore_plan.h"
#include "dataplane/pipeline/restore_try.h"

namespace sluice {

// account() is thread-safe; the rest is called before the first and after the last one.
class RestoreTally {
 public:
  // All outlive it. With `repack`, blocks are regrouped by other slots, or records are picked.
  RestoreTally(ArchiveReader& archive, const RestoreOptions& options, RestorePlan& plan,
               bool repack)
      : archive_(archive), options_(options), plan_(plan), repack_(repack) {}

  // A plain restore knows from the manifest what the archive holds. Where records are picked or
  // regrouped, they are counted as they come by, also those of completed slots.
  void count_by_manifest();
  // All replicas retain the unit's blocks: for who watches, that is as good as done.
  void report(RestorePlan::Unit* unit);
  // Ends a try of the unit: done, to be tried again, or given up.
  void account(RestorePlan::Unit unit, UnitTry result);
  // `buffer` is for reading what the failed units' slots hold.
  absl::StatusOr<RestoreResult> finish(BlockBuffer buffer);

 private:
  void report_locked(RestorePlan::Unit* unit) SLUICE_REQUIRES(mutex_);
  void give_up(const RestorePlan::Unit& unit, const UnitTry& result) SLUICE_REQUIRES(mutex_);
  void count_unit(const UnitTry& result) SLUICE_REQUIRES(mutex_);
  void count_done(const RestorePlan::Unit& unit, const UnitTry& result) SLUICE_REQUIRES(mutex_);
  bool counted_by_manifest() const { return !repack_ && options_.only.empty(); }

  ArchiveReader& archive_;
  const RestoreOptions& options_;
  RestorePlan& plan_;
  const bool repack_;
  Mutex mutex_;  // callbacks are called with it held
  SlotLedger ledger_ SLUICE_GUARDED_BY(mutex_);
  RestoreResult result_ SLUICE_GUARDED_BY(mutex_);
  uint64_t reported_bytes_ SLUICE_GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RESTORE_TALLY_H_
