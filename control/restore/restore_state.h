// The states of a restore, as they are spelled everywhere. Pure.
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

// An attempt that did not come to its end: run again, it goes on where it stood.
bool is_resumable(RestoreState state);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_STATE_H_
