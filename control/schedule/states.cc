#include "control/schedule/states.h"

#include <array>
#include <utility>

#include "base/status.h"

namespace sluice {
namespace {

constexpr std::array<std::pair<BackupState, std::string_view>, 8> kNames{{
    {BackupState::kPlanning, "planning"},
    {BackupState::kEnabled, "enabled"},
    {BackupState::kSent, "sent"},
    {BackupState::kCopyCompleted, "copy_completed"},
    {BackupState::kConsolidated, "consolidated"},
    {BackupState::kCompleted, "completed"},
    {BackupState::kFailed, "failed"},
    {BackupState::kCancelled, "cancelled"},
}};

}  // namespace

std::string_view name_of(BackupState state) {
  for (const auto& [known, name] : kNames) {
    if (known == state) return name;
  }
  return "unknown";
}

std::optional<BackupState> backup_state_named(std::string_view name) {
  for (const auto& [state, known] : kNames) {
    if (known == name) return state;
  }
  return std::nullopt;
}

bool is_terminal(BackupState state) {
  return state == BackupState::kCompleted || state == BackupState::kCancelled;
}

bool has_ended(BackupState state) { return is_terminal(state) || state == BackupState::kFailed; }

bool is_legal(BackupState from, BackupState to) {
  using enum BackupState;
  if (from == to) return true;
  if (is_terminal(from)) return false;
  if (to == kCancelled) return true;
  if (to == kFailed) return true;
  switch (from) {
    case kPlanning:
      return to == kEnabled;
    case kEnabled:
      return to == kSent;
    case kSent:
      return to == kCopyCompleted || to == kEnabled;
    case kCopyCompleted:
      return to == kConsolidated || to == kEnabled;
    case kConsolidated:
      return to == kCompleted;
    case kFailed:
      return to == kPlanning || to == kEnabled;
    case kCompleted:
    case kCancelled:
      return false;
  }
  return false;
}

absl::Status check_transition(BackupState from, BackupState to) {
  if (is_legal(from, to)) return absl::OkStatus();
  return failed_precondition("a backup cannot go from {} to {}", name_of(from), name_of(to));
}

}  // namespace sluice
