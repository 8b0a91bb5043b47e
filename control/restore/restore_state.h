// The states of a restore, and what it does where records differ, as they are spelled everywhere.
// Pure.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_STATE_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_STATE_H_

#include <optional>
#include <string_view>

namespace sluice {

enum class RestoreState {
  kRunning,
  kCompleted,              // every record is durable on all its replicas, and the proof says so
  kCompletedWithFailures,  // but for what is on the retry list
  kFailed,
  kCancelled,
};

// running completed completed_with_failures failed cancelled
std::string_view name_of(RestoreState state);
std::optional<RestoreState> restore_state_named(std::string_view name);

// Which record stays where the cluster's and the archive's differ.
enum class OnConflict {
  kNewest,   // the newer one, deletions included
  kArchive,  // the archive's, but for what is written after the restore began
};
// newest archive
std::string_view name_of(OnConflict on_conflict);

// An attempt that did not come to its end: run again, it goes on where it stood.
bool is_resumable(RestoreState state);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_STATE_H_
