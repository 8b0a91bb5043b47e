// The states of a backup and its parts, as they are spelled everywhere. Pure.
#ifndef SLUICE_CONTROL_SCHEDULE_STATES_H_
#define SLUICE_CONTROL_SCHEDULE_STATES_H_

#include <optional>
#include <string_view>

#include "absl/status/status.h"

namespace sluice {

// A backup's, a source's part (up to sent) and a target's part (copy_completed, consolidated).
enum class BackupState {
  kPlanning,       // cut armed, digests collected, plan made
  kEnabled,        // sources send
  kSent,           // every source's part was sent
  kCopyCompleted,  // every slot is at its target and equals the plan
  kConsolidated,   // segments, indexes and manifest parts are durable
  kCompleted,      // the root manifest is on every target: the backup exists
  kFailed,
  kCancelled,
};

// planning enabled sent copy_completed consolidated completed failed cancelled
std::string_view name_of(BackupState state);
std::optional<BackupState> backup_state_named(std::string_view name);

// completed and cancelled are for good. failed is left only by resuming (to planning or enabled,
// with a higher attempt).
bool is_terminal(BackupState state);
// Nobody works on it: completed, cancelled or failed.
bool has_ended(BackupState state);

// Forward by one step; back to enabled (a re-plan, or resuming) from sent, copy_completed and
// failed; back to planning from failed; to failed or cancelled from anything that is not terminal.
// A state to itself is legal.
bool is_legal(BackupState from, BackupState to);
// FAILED_PRECONDITION naming both states unless is_legal().
absl::Status check_transition(BackupState from, BackupState to);

}  // namespace sluice

#endif  // SLUICE_CONTROL_SCHEDULE_STATES_H_
