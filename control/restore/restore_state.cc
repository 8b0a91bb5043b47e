#include "control/restore/restore_state.h"

#include <array>
#include <utility>

namespace sluice {
namespace {

constexpr std::array<std::pair<RestoreState, std::string_view>, 5> kNames{{
    {RestoreState::kRunning, "running"},
    {RestoreState::kCompleted, "completed"},
    {RestoreState::kCompletedWithFailures, "completed_with_failures"},
    {RestoreState::kFailed, "failed"},
    {RestoreState::kCancelled, "cancelled"},
}};

}  // namespace

std::string_view name_of(RestoreState state) {
  for (const auto& [known, name] : kNames) {
    if (known == state) return name;
  }
  return "unknown";
}

std::optional<RestoreState> restore_state_named(std::string_view name) {
  for (const auto& [state, known] : kNames) {
    if (known == name) return state;
  }
  return std::nullopt;
}

bool is_resumable(RestoreState state) {
  return state == RestoreState::kRunning || state == RestoreState::kFailed ||
         state == RestoreState::kCancelled;
}

std::string_view name_of(OnConflict on_conflict) {
  return on_conflict == OnConflict::kArchive ? "archive" : "newest";
}

}  // namespace sluice
